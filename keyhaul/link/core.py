"""What the drivers of one link share: its two directions, the present session, and what has to be locked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from keyhaul.config.services import LinkSection
from keyhaul.link.channel import Channel
from keyhaul.link.handshake import LinkEnd
from keyhaul.link.protection.interface import Rotation
from keyhaul.link.protection.registry import PROTECTIONS, UnknownSuite, acceptable
from keyhaul.link.receiver import ReceiverDirection
from keyhaul.link.record import Record, Side
from keyhaul.link.sender import SenderDirection
from keyhaul.link.session import INCARNATION_LENGTH, Proposal, Session
from keyhaul.link.settings import LinkSettings, Settings
from keyhaul.link.state import LinkState
from keyhaul.link.telemetry import Telemetry
from keyhaul.randomness import Source
from keyhaul.transport.interface import Calls
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.link import Stream

MINIMUM_STEP = 256
"""Bytes of the smallest lease: below it, leasing costs a slow link more than a crash would."""

LEASE_SECONDS = 2.0
"""A lease is about so much of the link's rate."""

Result = TypeVar("Result")

_log = structlog.get_logger(__name__)


async def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the drivers try again; seconds."""

    disconnected: float = 0.2
    """Between looks at whether the neighbour is connected."""
    retry_first: float = 0.1
    """After the first failure of an establishment or exchange; it doubles."""
    retry_last: float = 2.0
    idle: float = 2.0
    """Between looks at a link that has nothing to do."""
    hungry: float = 0.25
    """Between looks at the module while pad is very low."""
    fill: float = 1.0
    """Between looks at the module while pad is below what is to be kept."""
    sated: float = 5.0
    pending: float = 3.0
    """A responder waits so long for the initiator's `establish` before it goes on as before."""


class Core:
    """The state of one link at one end.

    Locks are taken in the order `exchange`, `control`.
    """

    def __init__(
        self,
        section: LinkSection,
        end: LinkEnd,
        calls: Calls,
        state: LinkState,
        settings: LinkSettings,
        telemetry: Telemetry,
        *,
        clock: Callable[[], float],
        source: Source,
        pace: Pace,
    ) -> None:
        self.section = section
        self.end = end
        self.calls = calls
        self.telemetry = telemetry
        self.clock = clock
        self.source = source
        self.pace = pace
        self.suites = acceptable(section.suites, section.floor)
        self.epoch = 0
        self.incarnation = source(INCARNATION_LENGTH)
        self.session: Session | None = None
        self.exchange_lock = asyncio.Lock()
        """Held while this end's outgoing direction changes durably."""
        self.control_lock = asyncio.Lock()
        """Held while its incoming direction does."""
        self.stir = asyncio.Event()
        """There may be something to do for the maintenance task."""
        self.hungry = asyncio.Event()
        """There may be something to fetch from the module."""
        self.switched = asyncio.Event()
        """Set while no establishment is under way."""
        self.switched.set()
        self.renew = False
        """A new session is wanted although one stands."""
        self.settings = Settings()
        """What the operator has set; change it with `set`."""
        self.allowed = section.enabled
        """Whether the configuration lets anything cross the link."""
        self.cut = False
        """Whether the fibre counts as cut: until the process ends nothing crosses the link."""
        self.on_switch: list[Callable[[], None]] = []
        """Called when an establishment is over."""
        self.on_session: Callable[[], None] = lambda: None
        """Called when a new session stands."""
        self.on_store_older: Callable[[], Awaitable[None]] = _nothing
        """Awaited before a session is entered that shows this end's store to be older than the other's record."""
        self.established_at = clock()
        """When the present session began."""
        self._announced = b""
        self._frozen_until = 0.0
        self._state = state
        self._durable_settings = settings
        self._setting = asyncio.Lock()
        self._settling: set[asyncio.Task[Any]] = set()
        self.outgoing: SenderDirection
        self.incoming: ReceiverDirection

    async def load(self) -> None:
        """Read the durable state; everything that was leased before counts as used.

        The configuration's floor counts for suites that were set at run time as well: where none is as strong, the
        configured ones are back.
        """
        self.settings = await self._durable_settings.load()
        try:
            self.suites = self._suites_of(self.settings)
        except UnknownSuite as error:
            self.settings = replace(self.settings, suites=())
            _log.warning("protections set at run time are not used", link=self.section.id, reason=str(error))
        sizes = {Stream.CONTROL: self.section.reserve, Stream.PAYLOAD: self.section.pool}
        step = max(MINIMUM_STEP, int(self.section.rate / 8 * LEASE_SECONDS))
        outgoing = await self._state.load(Side.OUTGOING)
        incoming = await self._state.load(Side.INCOMING)
        self.outgoing = SenderDirection(outgoing.state, outgoing.blocks, step=step, sizes=sizes)
        self.incoming = ReceiverDirection(incoming.state, incoming.blocks, sizes=sizes)
        for side, loaded, direction in (
            (Side.OUTGOING, outgoing, self.outgoing),
            (Side.INCOMING, incoming, self.incoming),
        ):
            if loaded.corrupt:
                self.telemetry.corrupt(side, loaded.corrupt)
            for stream, pads in direction.streams.items():
                self.telemetry.burned(side, pads.burned)
                self.telemetry.watch(side, stream, lambda pads=pads: float(pads.level))  # type: ignore[misc]

    async def set(self, change: Callable[[Settings], Settings]) -> None:
        """Change what the operator has set: durable first, then it counts.

        Raises:
            UnknownSuite: a suite is unknown, or none is as strong as the configured floor; nothing is changed.
            StoreUnavailable: the outcome is unknown; nothing has changed yet.
        """
        await self.settle(self._set(change))

    async def _set(self, change: Callable[[Settings], Settings]) -> None:
        async with self._setting:
            settings = change(self.settings)
            suites = self._suites_of(settings)
            await self._durable_settings.save(settings)
            self.settings = settings
            if suites != self.suites:
                self.suites = suites
                self.epoch += 1
                self.renew = True
            self.stir.set()

    def _suites_of(self, settings: Settings) -> tuple[str, ...]:
        return acceptable(settings.suites or self.section.suites, self.section.floor)

    async def write(self, *records: Record) -> None:
        """Make records durable; only then may what follows from them happen."""
        await self._state.write(*records)

    def proposal(self) -> Proposal:
        """What this end brings into an establishment now."""
        return Proposal(self.incarnation, self.suites, self.epoch, self.outgoing.report(), self.incoming.report())

    @property
    def up(self) -> bool:
        """Whether the link may be used, a session stands and the neighbour is connected."""
        return self.in_use and self.session is not None and self.calls.connected

    @property
    def in_use(self) -> bool:
        """Whether anything may cross the link."""
        return self.enabled and not self.cut

    @property
    def enabled(self) -> bool:
        """Whether the operator wants it used: by configuration, and by what was set at run time."""
        return self.allowed and self.settings.enabled

    @property
    def frozen(self) -> bool:
        """Whether an establishment is under way: nothing is sealed, and no record changes."""
        return self.clock() < self._frozen_until

    def freeze(self, seconds: float) -> None:
        """An establishment begins; it ends with `thaw`, or by itself."""
        self._frozen_until = self.clock() + seconds
        self.switched.clear()

    def thaw(self) -> None:
        """The establishment is over, whatever came of it."""
        self._frozen_until = 0.0
        self.switched.set()
        for callback in self.on_switch:
            callback()
        self.stir.set()
        self.hungry.set()
        if self.session is not None and self.session.id != self._announced:
            self._announced = self.session.id
            self.on_session()

    async def switch(self, session: Session) -> None:
        """Enter a session: make the reconciliation durable, then use it."""
        if session.own_store_older:
            await self.on_store_older()
        out_record = self.outgoing.reconciled(session.outgoing)
        in_record = self.incoming.reconciled(session.incoming)
        await self.write(out_record, in_record)
        rotation = Rotation(self.section.rotate_messages, self.section.rotate_bytes, self.section.rotate_seconds)
        protection = PROTECTIONS[session.suite]
        out_channel = Channel(
            self.end.link,
            session.id,
            session.incarnation,
            session.peer_incarnation,
            protection(rotation),
            session.outgoing_pad,
        )
        in_channel = Channel(
            self.end.link,
            session.id,
            session.peer_incarnation,
            session.incarnation,
            protection(rotation),
            session.incoming_pad,
        )
        burned = self.outgoing.begin(out_channel, session.outgoing, out_record)
        received = self.incoming.begin(in_channel, session.incoming, in_record)
        self.session = replace(session, outgoing_pad=b"", incoming_pad=b"")
        self.established_at = self.clock()
        self.renew = False
        self.telemetry.established()
        self.telemetry.burned(Side.OUTGOING, burned)
        self.telemetry.burned(Side.INCOMING, received)
        if burned or received:
            self.telemetry.burn_event()
        for side, view in ((Side.OUTGOING, session.outgoing), (Side.INCOMING, session.incoming)):
            if view.restored:
                self.telemetry.restored(side, view.restored)

    def lose(self, session: Session | None) -> None:
        """The other end does not know a session; leave it, unless another one stands by now."""
        if session is not None and self.session is session and not self.frozen:
            self.session = None
            self.outgoing.end()
            self.incoming.end()
        self.stir.set()

    def admit(self) -> None:
        """Refuse what comes or goes while the link is switched off or cut.

        Raises:
            ServiceError: unreachable.
        """
        if not self.in_use:
            reason = "cut" if self.enabled else "switched off"
            raise ServiceError(ErrorCode.UNREACHABLE, f"the link is {reason}")

    async def settle(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Carry work through to its end even if whoever asked for it gives up."""
        task = asyncio.ensure_future(work)
        self._settling.add(task)
        task.add_done_callback(self._settled)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for work that must not be cut."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=2.0)

    def _settled(self, task: asyncio.Task[Any]) -> None:
        self._settling.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.stir.set()
