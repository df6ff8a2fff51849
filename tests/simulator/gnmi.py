"""gNMI between simulated processes: the real client and the real target, and in the place of gRPC calls that are lost,
late, answered too late, or refused, and streams that stall.

As in gRPC, what one connection carries stays in order and comes once; a connection that breaks takes all of it along.
"""

from __future__ import annotations

import asyncio
import datetime
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, cast

import grpc

from keyhaul.agents.gnmi.client import Client
from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.agents.gnmi.peers import GROUP, PERMITTED, Rpc
from keyhaul.agents.gnmi.tls import GROUP_KEY
from keyhaul.identity.names import ServiceName
from keyhaul.transport.tls import TlsFiles
from tests.simulator.air import FASTEST, SLOWEST, Line
from tests.simulator.loop import OUTSIDE, Died

if TYPE_CHECKING:
    from tests.simulator.carriers import CkmsProcess
    from tests.simulator.processes import SimulatedProcess
    from tests.simulator.world import World

METADATA = ((GROUP_KEY, GROUP),)

REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED
"""With which a node refuses for no good reason."""


class SimulatedPeers:
    """Lets controllers in: by the service that the connection proved."""

    def admit(self, context: Mapping[str, Iterable[bytes]], rpc: Rpc, now: datetime.datetime) -> ServiceName:
        """See `Peers`."""
        (proved,) = context["service"]
        name = ServiceName.parse(proved.decode())
        if rpc not in PERMITTED.get(name.role, frozenset()):
            raise Refused(Code.PERMISSION_DENIED, f"{name} may not call {rpc.value}")
        return name


class SimulatedClient(Client):
    """The controller's client on simulated connections; its files are the process that calls."""

    def __init__(self, address: str, peer: ServiceName, files: TlsFiles) -> None:
        super().__init__(address, peer, files)
        self._caller = cast("SimulatedProcess", files)

    async def close(self) -> None:
        """See `Client`: the connections of the stub end with their calls."""
        self._stub = None

    async def _dialled(self) -> Any:
        if self._stub is None:
            self._stub = Stub(self._caller.world, self._caller, self.peer.id)
        return self._stub


class Stub:
    """Calls one node, as the stub of the service definition does: its names are gNMI's."""

    def __init__(self, world: World, caller: SimulatedProcess, node: str) -> None:
        self._world = world
        self._caller = caller
        self._node = node

    def Get(self, request: Any, timeout: float) -> Call:  # noqa: N802
        """Begin a Get."""
        return Call(self._world, self._caller, self._node, Rpc.GET, request, timeout)

    def Set(self, request: Any, timeout: float) -> Call:  # noqa: N802
        """Begin a Set."""
        return Call(self._world, self._caller, self._node, Rpc.SET, request, timeout)

    def Subscribe(self) -> Stream:  # noqa: N802
        """Begin a subscription."""
        return Stream(self._world, self._caller, self._node)


def failure(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    """As a call fails."""
    none = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, none, none, details)


class Aborted(Exception):
    """The target ended the call with a status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Context:
    """What the target sees of a call."""

    def __init__(self, caller: ServiceName) -> None:
        self._auth = {"service": [caller.uri.encode()], "ssl_negotiated_key_exchange_group": [GROUP.encode()]}

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Who calls."""
        return self._auth

    def peer(self) -> str:
        """The connection: each caller has one."""
        return self._auth["service"][0].decode()

    def invocation_metadata(self) -> tuple[()]:
        """Nothing."""
        return ()

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Nothing to do."""

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        """End the call."""
        raise Aborted(code, details)


@dataclass(eq=False)
class Call:
    """A unary call; it begins when it is awaited."""

    world: World
    caller: SimulatedProcess
    node: str
    rpc: Rpc
    request: Any
    timeout: float
    handlers: list[asyncio.Future[Any]] = field(default_factory=list)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._exchange().__await__()

    async def initial_metadata(self) -> Any:
        """Of the answer."""
        return METADATA

    async def _exchange(self) -> Any:
        air, loop = self.world.air, asyncio.get_running_loop()
        line = air.line(self.caller.name.id, self.node)
        if not air.standing(self.caller, self.node):
            await asyncio.sleep(_delay(air.chance, line))
            raise failure(grpc.StatusCode.UNAVAILABLE, "no connection")
        self.answer: asyncio.Future[Any] = loop.create_future()
        line.exchanges[self] = None
        fate = self.world.faults.gnmi(self.rpc.value)
        if self.rpc is Rpc.SET:
            self.world.overheard.append((self.node, self.request))
        delay = _delay(air.chance, line)
        if fate.endswith(" late"):
            delay += air.chance.uniform(0.2, 8.0)
        if fate.endswith(" refused"):
            loop.call_later(delay, self._fail, REFUSED, "full", context=OUTSIDE)
        elif not fate.endswith(f"{self.rpc.value.lower()} lost"):
            loop.call_later(delay, self._arrive, line, line.epoch, fate, context=OUTSIDE)
        try:
            async with asyncio.timeout(self.timeout):
                return await self.answer
        except TimeoutError:
            raise failure(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time") from None
        finally:
            line.exchanges.pop(self, None)
            if self.handlers:
                loop.call_later(_delay(air.chance, line), self._abandon, context=OUTSIDE)

    def fail(self) -> None:
        """The connection is gone."""
        self._fail(grpc.StatusCode.UNAVAILABLE, "the connection is gone")
        self._abandon()

    def _fail(self, code: grpc.StatusCode, details: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(failure(code, details))

    def _abandon(self) -> None:
        for handler in self.handlers:
            handler.cancel()

    def _arrive(self, line: Line, epoch: int, fate: str) -> None:
        server = cast("CkmsProcess", self.world.air.processes[self.node])
        if line.epoch != epoch or (line.partitions and line.cut()):
            return
        if server.life is None or not server.serves:
            self.fail()
            return
        handler = server.life.ask(called(server, self.caller.name, self.rpc, self.request))
        self.handlers.append(handler)
        handler.add_done_callback(lambda done: self._answered(line, epoch, fate, done), context=OUTSIDE)

    def _answered(self, line: Line, epoch: int, fate: str, done: asyncio.Future[Any]) -> None:
        self.handlers.remove(done)
        if line.epoch != epoch or done.cancelled() or fate == "set answer lost" or (line.partitions and line.cut()):
            return
        error = done.exception()
        if fate == "set answer is an error":
            self._later(line, self._fail, grpc.StatusCode.UNAVAILABLE, "the connection broke")
        elif isinstance(error, Aborted):
            self._later(line, self._fail, error.code, error.details)
        elif error is None:
            self._later(line, self._succeed, done.result())
        else:
            _unforeseen(self.world, self.node, error)

    def _later(self, line: Line, what: Callable[..., None], *arguments: Any) -> None:
        delay = _delay(self.world.air.chance, line)
        asyncio.get_running_loop().call_later(delay, what, *arguments, context=OUTSIDE)

    def _succeed(self, answer: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


def called(server: CkmsProcess, caller: ServiceName, rpc: Rpc, request: Any) -> Coroutine[Any, Any, Any]:
    """What a node does about a call."""
    method = server.target.Get if rpc is Rpc.GET else server.target.Set
    return method(request, Context(caller))


class Pipe:
    """One way of a stream: what is written comes out in order, some time later."""

    def __init__(self) -> None:
        self._come: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.last = 0.0
        """When the last message that was written arrives."""

    def put(self, message: Any) -> None:
        """A message arrived."""
        self._come.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        """The next message."""
        while not self._come:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._come.popleft()


class Stream(Context):
    """A subscription, as its client sees it; `served` is the target's side of it."""

    def __init__(self, world: World, caller: SimulatedProcess, node: str) -> None:
        super().__init__(caller.name)
        self._world = world
        self._caller = caller
        self._node = node
        self._line = world.air.line(caller.name.id, node)
        self._epoch = self._line.epoch
        self._forth = Pipe()
        self._back = Pipe()
        self._handler: asyncio.Future[Any] | None = None
        self._ended: tuple[grpc.StatusCode, str] | None = None

    # The client's side

    async def write(self, request: Any) -> None:
        """Say what is wanted: the call begins."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(_delay(self._world.air.chance, self._line))
        if not self._world.air.standing(self._caller, self._node):
            self._ended = grpc.StatusCode.UNAVAILABLE, "no connection"
            raise failure(*self._ended)
        self._epoch = self._line.epoch
        self._line.exchanges[self] = None
        loop.call_later(_delay(self._world.air.chance, self._line), self._begin, request, context=OUTSIDE)

    async def read(self) -> Any:
        """The next message, or that there is none any more."""
        message = await self._back.get()
        if message is grpc.aio.EOF:
            self._back.put(message)
        return message

    async def initial_metadata(self) -> Any:
        """Of the stream."""
        return METADATA

    async def code(self) -> grpc.StatusCode:
        """How it ended."""
        return self._ended[0] if self._ended else grpc.StatusCode.OK

    async def details(self) -> str:
        """Why it ended."""
        return self._ended[1] if self._ended else ""

    def cancel(self) -> None:
        """The client hangs up."""
        self._line.exchanges.pop(self, None)
        loop = asyncio.get_running_loop()
        loop.call_later(_delay(self._world.air.chance, self._line), self._hang_up, context=OUTSIDE)

    # In between

    def fail(self) -> None:
        """The connection is gone."""
        self._end(grpc.StatusCode.UNAVAILABLE, "the connection is gone")
        self._hang_up()

    def _end(self, code: grpc.StatusCode, details: str) -> None:
        self._line.exchanges.pop(self, None)
        self._ended = self._ended or (code, details)
        self._back.put(grpc.aio.EOF)

    def _hang_up(self) -> None:
        if self._handler is not None:
            self._handler.cancel()

    def _begin(self, request: Any) -> None:
        server = cast("CkmsProcess", self._world.air.processes[self._node])
        if self._line.epoch != self._epoch or (self._line.partitions and self._line.cut()):
            return
        if server.life is None or not server.serves:
            self._end(grpc.StatusCode.UNAVAILABLE, "nobody serves")
            return
        self._forth.put(request)
        self._handler = server.life.ask(server.target.Subscribe(None, Served(self)))
        self._handler.add_done_callback(self._served, context=OUTSIDE)

    def _served(self, done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, Aborted):
            self._end(error.code, error.details)
            return
        self._end(grpc.StatusCode.UNAVAILABLE, "the node is gone")
        if error is not None:
            _unforeseen(self._world, self._node, error)

    async def asked(self) -> Any:
        """The target's side reads."""
        return await self._forth.get()

    def told(self, message: Any) -> None:
        """The target's side writes."""
        loop, air = asyncio.get_running_loop(), self._world.air
        air.messages += 1
        fate = self._world.faults.gnmi("Telemetry")
        if fate == "telemetry lost":
            loop.call_later(_delay(air.chance, self._line), air.reset, self._caller.name.id, self._node)
            return
        late = air.chance.uniform(0.2, 12.0) if fate else 0.0
        self._back.last = max(self._back.last, loop.time() + _delay(air.chance, self._line) + late)
        loop.call_at(self._back.last, self._tell, message, context=OUTSIDE)

    def _tell(self, message: Any) -> None:
        if self._line.epoch == self._epoch and not (self._line.partitions and self._line.cut()):
            self._back.put(message)


class Served(Context):
    """A subscription as its target sees it."""

    def __init__(self, stream: Stream) -> None:
        self._auth = stream._auth
        self._stream = stream

    async def read(self) -> Any:
        """What the client says."""
        return await self._stream.asked()

    async def write(self, message: Any) -> None:
        """Tell something."""
        self._stream.told(message)


def _unforeseen(world: World, node: str, error: BaseException) -> None:
    if not isinstance(error, Died):
        world.oracle.finding("handler-failed", f"{node}: gNMI: {error!r}")


def _delay(chance: Random, line: Line) -> float:
    delay = FASTEST + (SLOWEST - FASTEST) * chance.random()
    return delay + line.slow() if line.partitions else delay
