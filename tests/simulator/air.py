"""Connections between simulated processes: real encoding, admission and typed calls, over lines that misbehave."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

import msgspec
from cryptography import x509

from keyhaul.identity.names import ServiceName
from keyhaul.transport.caller import DEADLINE_HEADER, Answer
from keyhaul.transport.calls import TypedCalls
from keyhaul.transport.http2_events import RequestArrived
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.limits import Limits
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.metrics import TransportMetrics
from keyhaul.transport.operations import OPERATIONS
from keyhaul.transport.serving import Service
from tests.simulator.loop import OUTSIDE, Life

FASTEST, SLOWEST = 0.0005, 0.004
"""Seconds one way, without faults."""

OVERTAKEN = 0.05
"""Seconds by which a message is late that others overtake."""

KEPT = 64
"""Sealed messages of a line that may be replayed."""

UP_AGAIN = (0.05, 0.6)
"""Seconds until a connection that broke stands again."""

_SEALED = frozenset(operation.path for operation in OPERATIONS.values() if operation.sealed)
_LINK = _SEALED | {OPERATIONS[name].path for name in ("link.hello", "link.establish", "link.wake")}


class Process(Protocol):
    """What the air needs of a process."""

    name: ServiceName
    life: Life | None
    server: Server | None
    serves: bool


class Faults(Protocol):
    """Decides what goes wrong."""

    def fate(self, path: str) -> str:
        """What becomes of a message: "" or a kind of fault."""
        ...

    def count(self, kind: str) -> None:
        """A fault happened."""
        ...


class Server(Service):
    """The transport's own server, which tells of handlers that fail."""

    def __init__(self, own: ServiceName, routes: Routes, failed: Callable[[str, Exception], None], alarm: Any) -> None:
        super().__init__(own, routes, metrics=TransportMetrics.on(None), alarm=alarm)
        self._failed = failed

    def _report(self, operation: str, peer: Peer, error: Exception) -> str:
        self._failed(operation, error)
        return "error"


class Ends(Protocol):
    """What ends with its connection."""

    def fail(self) -> None:
        """The connection is gone."""
        ...


@dataclass(eq=False)
class Exchange:
    """A request on its way, and its answer."""

    caller: Process
    server: Process
    path: str
    line: Line
    epoch: int
    end: float
    answer: asyncio.Future[Answer]
    handlers: list[asyncio.Future[Answer]] = field(default_factory=list)

    def fail(self) -> None:
        """The connection is gone."""
        if not self.answer.done():
            self.answer.set_exception(ServiceError(ErrorCode.UNREACHABLE, "the connection is gone"))
        self.abandon()

    def abandon(self) -> None:
        """Nobody waits for the answer: the server stops what it does."""
        for handler in self.handlers:
            handler.cancel()


@dataclass(eq=False)
class Partition:
    """Lines on which nothing passes, or everything late."""

    lines: frozenset[frozenset[str]]
    slow: float
    """Seconds more, one way; 0: nothing passes."""
    felt: Callable[[], None]
    """Told once, as soon as a message meets it."""
    met: bool = False

    def meet(self) -> None:
        """A message came to it."""
        if not self.met:
            self.met = True
            self.felt()


@dataclass(eq=False)
class Line:
    """The connections between two services."""

    epoch: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when this epoch's connections are lost."""
    up_at: float = 0.0
    partitions: list[Partition] = field(default_factory=list)
    exchanges: dict[Ends, None] = field(default_factory=dict)
    heard: deque[tuple[Process, Process, str, bytes]] = field(default_factory=lambda: deque(maxlen=KEPT))
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """The last answer to each operation."""

    def cut(self) -> bool:
        """Whether a message that comes now cannot pass."""
        cuts = [partition for partition in self.partitions if not partition.slow]
        for partition in cuts:
            partition.meet()
        return bool(cuts)

    def slow(self) -> float:
        """Seconds by which a message that comes now is late."""
        for partition in self.partitions:
            if partition.slow:
                partition.meet()
        return sum(partition.slow for partition in self.partitions)


class Air:
    """Everything between the processes."""

    def __init__(self, chance: Random, faults: Faults, certificates: Callable[[str], x509.Certificate]) -> None:
        self.chance = chance
        self._faults = faults
        self._certificates = certificates
        self.processes: dict[str, Process] = {}
        self.lines: dict[frozenset[str], Line] = {}
        self._by_ends: dict[tuple[str, str], Line] = {}
        self.messages = 0

    def line(self, one: str, other: str) -> Line:
        """The line between two services."""
        line = self._by_ends.get((one, other))
        if line is None:
            line = self.lines.setdefault(frozenset((one, other)), Line())
            self._by_ends[one, other] = line
        return line

    def divide(self, partition: Partition) -> None:
        """Let a partition begin."""
        for ends in partition.lines:
            self.line(*sorted(ends)).partitions.append(partition)

    def unite(self, partition: Partition) -> None:
        """Let it end; the connections have to be made anew."""
        for ends in sorted(partition.lines, key=sorted):
            one, other = sorted(ends)
            self.line(one, other).partitions.remove(partition)
            self.reset(one, other)

    def standing(self, caller: Process, peer: str) -> bool:
        """Whether a connection stands."""
        line = self.line(caller.name.id, peer)
        server = self.processes.get(peer)
        if server is None or server.life is None or not server.serves:
            return False
        return asyncio.get_running_loop().time() >= line.up_at and not (line.partitions and line.cut())

    def reset(self, one: str, other: str) -> None:
        """Break the connections between two services; they come back by themselves."""
        line = self.line(one, other)
        line.epoch += 1
        line.gone.set()
        line.gone = asyncio.Event()
        line.up_at = asyncio.get_running_loop().time() + self.chance.uniform(*UP_AGAIN)
        for exchange in list(line.exchanges):
            exchange.fail()
        line.exchanges.clear()

    def gone(self, service: str) -> None:
        """A process died: all its connections break."""
        for ends in list(self.lines):
            if service in ends:
                one, *other = sorted(ends)
                self.reset(one, *other)

    def certificate(self, service: str) -> x509.Certificate:
        """The certificate of a service."""
        return self._certificates(service)

    async def carry(self, caller: Process, server: str, path: str, body: bytes, end: float) -> Answer:
        """Carry a request to its server and the answer back."""
        loop = asyncio.get_running_loop()
        line = self.line(caller.name.id, server)
        exchange = Exchange(caller, self.processes[server], path, line, line.epoch, end, loop.create_future())
        line.exchanges[exchange] = None
        if path in _LINK:
            line.heard.append((caller, exchange.server, path, body))
        self._send(exchange, body, lambda arriving: self._arrive(exchange, arriving))
        try:
            async with asyncio.timeout_at(end):
                return await exchange.answer
        except TimeoutError:
            raise ServiceError(ErrorCode.DEADLINE, "no answer in time") from None
        finally:
            line.exchanges.pop(exchange, None)
            if exchange.handlers:
                loop.call_later(self._delay(line), exchange.abandon, context=OUTSIDE)

    def replay(self, line: Line, how: str, services: list[str]) -> bool:
        """Send a link's message of some time ago once more; nobody waits for the answer.

        `how`: as it was, altered, back to who sent it, or to another service. False where nobody was there to get it.
        """
        if not line.heard:
            return False
        caller, server, path, body = self.chance.choice(line.heard)
        match how:
            case "replayed altered":
                body = self._corrupted(body)
            case "reflected":
                caller, server = server, caller
            case "redirected":
                server = self.processes[self.chance.choice([each for each in services if each != caller.name.id])]
        if server.life is None or not server.serves:
            return False
        loop = asyncio.get_running_loop()
        exchange = Exchange(caller, server, path, line, line.epoch, loop.time() + 5.0, loop.create_future())
        exchange.answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception(), context=OUTSIDE)
        self._arrive(exchange, body)
        return True

    def _delay(self, line: Line) -> float:
        delay = FASTEST + (SLOWEST - FASTEST) * self.chance.random()
        return delay + line.slow() if line.partitions else delay

    def _send(self, exchange: Exchange, body: bytes, arrive: Callable[[bytes], None]) -> None:
        """One way: whatever happens to a message happens here."""
        self.messages += 1
        loop = asyncio.get_running_loop()
        delays = [self._delay(exchange.line)]
        fate = self._faults.fate(exchange.path)
        if fate and fate != "answer replayed":
            self._faults.count(fate)
        match fate:
            case "lost":
                return
            case "reset":
                ends = exchange.caller.name.id, exchange.server.name.id
                loop.call_later(delays[0] / 2, self.reset, *ends, context=OUTSIDE)
            case "doubled":
                delays.append(delays[0] + self.chance.uniform(0.0, 0.5))
            case "reordered":
                delays[0] += self.chance.uniform(0.0, OVERTAKEN)
            case "delayed":
                delays[0] += self.chance.uniform(0.2, 8.0)
            case "corrupted" if exchange.path in _LINK:
                body = self._corrupted(body)
            case "corrupted":
                # Transport security ends a connection on which anything was changed.
                loop.call_later(delays[0], self.reset, exchange.caller.name.id, exchange.server.name.id)
                return
        for delay in delays:
            loop.call_later(delay, self._deliver, exchange, body, arrive, context=OUTSIDE)

    def _deliver(self, exchange: Exchange, body: bytes, arrive: Callable[[bytes], None]) -> None:
        line = exchange.line
        if line.epoch == exchange.epoch and not (line.partitions and line.cut()):
            arrive(body)

    def _arrive(self, exchange: Exchange, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        server = exchange.server
        if server.life is None or server.server is None or not server.serves:
            exchange.fail()
            return
        remaining = max(1, int((exchange.end - loop.time()) * 1000))
        headers = {DEADLINE_HEADER: str(remaining).encode()}
        request = RequestArrived(1, b"POST", exchange.path.encode(), headers, body)
        peer = Peer(exchange.caller.name, self._certificates(exchange.caller.name.id))
        handler = server.life.ask(server.server.answer(peer, request))
        exchange.handlers.append(handler)
        handler.add_done_callback(lambda done: self._answered(exchange, done), context=OUTSIDE)

    def _answered(self, exchange: Exchange, done: asyncio.Future[Answer]) -> None:
        exchange.handlers.remove(done)
        if done.cancelled() or done.exception() is not None:
            return
        status, body = done.result()
        if exchange.path in _LINK:
            earlier = exchange.line.answers.get(exchange.path)
            if earlier is not None and self._faults.fate(exchange.path) == "answer replayed":
                self._faults.count("answer replayed")
                (status, body) = earlier
            else:
                exchange.line.answers[exchange.path] = status, body
        self._send(exchange, body, lambda arriving: self._return(exchange, status, arriving))

    def _return(self, exchange: Exchange, status: int, body: bytes) -> None:
        if not exchange.answer.done():
            exchange.answer.set_result((status, body))

    def _corrupted(self, body: bytes) -> bytes:
        """The same message with one character of one of its texts changed, or cut short.

        What becomes of it does not depend on the texts themselves, which hold ciphertexts of real randomness.
        """
        chance = self.chance
        content = msgspec.json.decode(body) if body else {}
        texts = sorted(name for name, value in content.items() if isinstance(value, str) and len(value) > 4)
        if not texts or chance.random() < 0.05:
            return body[: len(body) // 2]
        name = chance.choice(texts)
        text = content[name]
        place = chance.randrange(len(text) - 4)
        content[name] = text[:place] + ("B" if text[place] == "A" else "A") + text[place + 1 :]
        return msgspec.json.encode(content)


class _Connection:
    """A connection that stands, as `TypedCalls` uses it."""

    def __init__(self, air: Air, caller: Process, peer: Peer) -> None:
        self._air = air
        self._caller = caller
        self.peer = peer
        self.gone = air.line(caller.name.id, peer.name.id).gone

    async def exchange(self, path: str, body: bytes, end: float) -> Answer:
        return await self._air.carry(self._caller, self.peer.name.id, path, body, end)

    def expect_message(self) -> None:
        """Nothing follows: the air itself says when a connection is lost."""


class SimulatedCalls(TypedCalls):
    """The transport's own typed calls over a simulated connection."""

    def __init__(self, air: Air, caller: Process, peer: ServiceName) -> None:
        super().__init__(caller.name, peer, limits=Limits(), pending=1024)
        self._air = air
        self._caller = caller
        self._to = peer

    def _standing(self) -> Any:
        if not self._air.standing(self._caller, self._to.id):
            return None
        return _Connection(self._air, self._caller, Peer(self._to, self._air.certificate(self._to.id)))

    async def _connection(self, end: float) -> Any:
        loop = asyncio.get_running_loop()
        patience = min(end, loop.time() + 1.0)
        while loop.time() < patience:
            await asyncio.sleep(0.05)
            if (standing := self._standing()) is not None:
                return standing
        raise ServiceError(ErrorCode.UNREACHABLE, "no connection stands")
