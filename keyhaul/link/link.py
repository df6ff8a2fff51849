"""One link as its service uses it, with what its operator sets, and the tasks that keep it going.

Messages are `calling`'s and `serving`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from keyhaul.identity.names import ServiceName
from keyhaul.link.calling import Calling
from keyhaul.link.core import Core
from keyhaul.link.establishing import Establishing
from keyhaul.link.handshake import SessionRefused
from keyhaul.link.interface import DirectionStatus, LinkStatus, SealedHandler
from keyhaul.link.receiver import ReceiverDirection
from keyhaul.link.refill import ExchangeFailed, Refill, pause
from keyhaul.link.sealing import Sealing
from keyhaul.link.sender import SenderDirection
from keyhaul.link.serving import Serving
from keyhaul.transport.messages.base import Message, ServiceError
from keyhaul.transport.messages.link import Sealed, Stream
from keyhaul.transport.operations import Operation, Reply, Request


class Link:
    """One link; implements `keyhaul.link.interface.LinkCalls`."""

    def __init__(
        self,
        core: Core,
        sealing: Sealing,
        establishing: Establishing,
        refill: Refill,
        neighbour: ServiceName,
        register: Callable[[Operation[Any, Any]], None],
    ) -> None:
        self._core = core
        self._sealing = sealing
        self.establishing = establishing
        self._refill = refill
        self._neighbour = neighbour
        self._register = register
        """Makes sure that the neighbour's calls of an operation come here."""
        self._calling = Calling(core, sealing)
        self._serving = Serving(core, sealing, refill, neighbour)

    @property
    def id(self) -> str:
        """The link's id in the network description."""
        return self._core.section.id

    @property
    def neighbour(self) -> ServiceName:
        """The service at the other end."""
        return self._neighbour

    @property
    def up(self) -> bool:
        """Whether the link may be used, a session stands and the neighbour is connected."""
        return self._core.up

    @property
    def process(self) -> bytes:
        """See `LinkCalls.process`."""
        core = self._core
        return b"" if core.session is None or core.frozen else core.session.peer_incarnation

    async def call(
        self,
        operation: Operation[Request, Reply],
        request: Request,
        secret: bytes = b"",
        *,
        deadline: float,
        stream: Stream = Stream.CONTROL,
    ) -> tuple[Reply, bytes]:
        """See `LinkCalls.call`."""
        if operation.one_way:
            raise ValueError(f"{operation.name} is one-way: send it")
        answer: tuple[Reply, bytes] = await self._calling.post(operation, request, secret, deadline, stream)
        return answer

    async def send(
        self,
        operation: Operation[Request, Reply],
        request: Request,
        secret: bytes = b"",
        *,
        deadline: float,
        stream: Stream = Stream.CONTROL,
    ) -> None:
        """See `LinkCalls.send`."""
        if not operation.one_way:
            raise ValueError(f"{operation.name} has an answer: call it")
        await self._calling.post(operation, request, secret, deadline, stream)

    def expecting(self) -> AbstractContextManager[None]:
        """See `LinkCalls.expecting`."""
        return self._core.calls.expecting()

    def serve(self, operation: Operation[Request, Reply], handler: SealedHandler[Request, Reply]) -> None:
        """See `LinkCalls.serve`."""
        self._register(operation)
        self._serving.add(operation, handler)

    def status(self) -> LinkStatus:
        """The state for operators."""
        core = self._core
        if not core.in_use:
            state = "cut" if core.enabled else "disabled"
        else:
            state = "establishing" if core.frozen else "down" if core.session is None else "up"
        return LinkStatus(
            link=self.id,
            neighbour=self._neighbour.id,
            state=state,
            suite=core.session.suite if core.session else "",
            suites=core.suites,
            connected=core.calls.connected,
            sessions_total=core.telemetry.sessions,
            rejected_total=core.telemetry.rejected,
            outgoing=_direction(core.outgoing),
            incoming=_direction(core.incoming),
            floor=core.section.floor,
            configured=tuple(core.section.suites),
            chosen=bool(core.settings.suites),
        )

    async def protect(self, suites: Sequence[str]) -> None:
        """Change the list of accepted suites at run time: a new session follows, and no message is lost.

        It lasts through restarts; an empty list takes the link back to its configuration.

        Raises:
            UnknownSuite: a name is unknown, or none is as strong as the configured floor.
            StoreUnavailable: nothing has changed yet.
        """
        await self._core.set(lambda settings: replace(settings, suites=tuple(suites)))

    async def enable(self, enabled: bool) -> None:
        """Use the link or not, as the operator says (ETSI GS QKD 015, qkdl_enable); it lasts through restarts.

        While it is off nothing crosses it in either direction, and the session stands for later.

        Raises:
            StoreUnavailable: nothing has changed yet.
        """
        await self._core.set(lambda settings: replace(settings, enabled=enabled))

    def allow(self, allowed: bool) -> None:
        """Use the link or not, as the configuration says now; what was set at run time counts besides."""
        self._core.allowed = allowed
        self._core.stir.set()

    def cut(self, cut: bool) -> None:
        """Let nothing cross the link, as if its fibre were cut, or mend it; lasts until the process ends."""
        self._core.cut = cut
        self._core.stir.set()

    async def receive(self, operation: Operation[Message, Message], sealed: Sealed) -> Sealed | None:
        """Serve one sealed message of the neighbour: see `Serving.receive`."""
        return await self._serving.receive(operation, sealed)

    async def maintain(self) -> None:
        """Keep a session and leased pad, for ever."""
        core = self._core
        failures = 0
        purged = core.clock()
        while True:
            core.stir.clear()
            try:
                wait = await self._step()
                failures = 0
            except (ServiceError, SessionRefused, ExchangeFailed) as error:
                failures += 1
                wait = min(core.pace.retry_last, core.pace.retry_first * 2 ** min(failures - 1, 10))
                wait *= 0.75 + core.source(1)[0] / 512
                wait = max(wait, error.retry_after if isinstance(error, ExchangeFailed) else 0.0)
                await asyncio.sleep(wait)
                continue
            if core.clock() - purged >= core.pace.sated:
                await self._refill.purge()
                purged = core.clock()
            if wait:
                await pause(core.stir, wait)

    async def fill(self) -> None:
        """Keep the outgoing pads filled from the module, for ever."""
        core = self._core
        while True:
            core.hungry.clear()
            look = await self._refill.fetch()
            await asyncio.sleep(look.soonest)
            await pause(core.hungry, look.latest - look.soonest)

    async def close(self) -> None:
        """Wait for what must not be cut."""
        await self._core.close()

    async def _step(self) -> float:
        """Do the next thing the link needs; return seconds until the next look, 0 for at once."""
        core = self._core
        if not core.in_use:
            return core.pace.idle
        if core.frozen:
            return core.pace.retry_first
        if not core.switched.is_set():
            core.thaw()
        if not core.calls.connected:
            return core.pace.disconnected
        if core.session is None or core.renew:
            if core.section.initiator:
                await self.establishing.initiate()
                return 0.0
            await self.establishing.ask()
            return core.pace.fill
        demand = self._sealing.demand()
        if not core.outgoing.can_seal_own(core.clock()):
            core.renew = True
            await asyncio.sleep(core.pace.fill)
            return 0.0
        if core.outgoing.exchange_due(demand):
            await self._refill.exchange()
            return 0.0
        return core.pace.idle


def _direction(direction: SenderDirection | ReceiverDirection) -> DirectionStatus:
    streams = direction.streams
    return DirectionStatus(
        payload_available=streams[Stream.PAYLOAD].level,
        control_available=streams[Stream.CONTROL].level,
        blocks=sum(len(pads.blocks) for pads in streams.values()),
        used_total=sum(pads.used for pads in streams.values()),
        burned_total=sum(pads.burned for pads in streams.values()),
        added_total=sum(pads.added for pads in streams.values()),
    )
