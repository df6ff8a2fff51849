"""The driver of refill and lease: fetches keys from the module, offers them, and answers the other end's offers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from keyhaul.link.channel import MalformedMessage, RequestId, UnknownSession
from keyhaul.link.core import Core
from keyhaul.link.lookup import Lookup, Module
from keyhaul.link.offers import WORTHWHILE, ProtocolViolation
from keyhaul.link.pads import PadShortage, PadSpent
from keyhaul.link.protection.interface import AuthenticationFailed
from keyhaul.link.receiver import NoRoom, OfferRefused
from keyhaul.link.record import Side
from keyhaul.link.sealing import Sealing
from keyhaul.link.window import Replayed
from keyhaul.transport.codec import decode, encode
from keyhaul.transport.etsi014 import Etsi014Error, Etsi014Unreachable
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.link import LinkControl, LinkControlReply, Sealed, Stream
from keyhaul.transport.operations import LINK_CONTROL

EXCHANGE_DEADLINE = 6.0
"""Seconds for one `link.control`, the other end's look-up included."""

MODULE_DEADLINE = 4.0
"""Seconds for one call to this end's module."""

MAXIMUM_KEYS = 256
"""Keys of one offer."""

HUNGRY = 256
"""Below so many bytes of a stream, smaller offers are worthwhile too, of what the first message lacks that waits."""

HUNGRY_WORTHWHILE = 128
"""Bytes that such an offer has at least."""


class ExchangeFailed(Exception):
    """An exchange that brought nothing; another may be tried after `retry_after` seconds, or the usual pause."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Look:
    """When to look at the module again, seconds from now: when a message comes to wait for pad, and in any case."""

    soonest: float
    latest: float


@dataclass(slots=True)
class Refill:
    """Keeps one link's outgoing pads filled and leased, and its incoming ones confirmed."""

    core: Core
    sealing: Sealing
    module: Module | None
    lookup: Lookup | None

    async def exchange(self) -> None:
        """Lease, offer, burn and finish in one `link.control`.

        Raises:
            ExchangeFailed: nothing came of it.
        """
        core, outgoing = self.core, self.core.outgoing
        async with core.exchange_lock:
            session = core.session
            if session is None or core.frozen:
                return
            record = outgoing.lease(self.sealing.demand())
            if record is not None:
                await core.write(record)
                outgoing.committed(record)
            message = outgoing.message(core.clock())
            try:
                sealed, flight = outgoing.seal(
                    LINK_CONTROL.name, encode(message), b"", Stream.CONTROL, core.clock(), own=True
                )
            except PadShortage:
                core.renew = True
                raise ExchangeFailed("there is no pad for the link's own messages") from None
            core.telemetry.exchanged()
            accepted = False
            try:
                answer = await core.calls.exchange(LINK_CONTROL.path, sealed, Sealed, deadline=EXCHANGE_DEADLINE)
                assert answer is not None
                reply = self._opened(message, answer, flight.id)
                accepted = True
            except ServiceError as error:
                if error.code is ErrorCode.UNKNOWN_SESSION:
                    core.lose(session)
                elif error.code in (ErrorCode.AUTHENTICATION, ErrorCode.CONFLICT):
                    core.renew = True
                raise ExchangeFailed(error.message, error.retry_after_ms / 1000) from None
            except AuthenticationFailed:
                core.telemetry.refused("authentication", "the answer to a link.control")
                if message.offer is not None:
                    record = outgoing.mismatched(message)
                    await core.write(record)
                    outgoing.committed(record)
                    core.telemetry.mismatched()
                else:
                    core.renew = True
                raise ExchangeFailed("the answer was not authentic") from None
            except (UnknownSession, MalformedMessage, Replayed, PadSpent, ProtocolViolation) as error:
                core.telemetry.refused("answer", str(error))
                raise ExchangeFailed(str(error)) from None
            finally:
                outgoing.flights.finished(flight, accepted=accepted)
            await self._take_in(message, reply)
        self.sealing.admit()
        core.hungry.set()

    async def answer(self, control: LinkControl) -> tuple[LinkControlReply, bytes]:
        """Confirm the other end's offer and lease, durably; return the reply and the bits that authenticate it.

        Raises:
            ServiceError: not now (busy), or the message contradicts this end's record (conflict).
        """
        core, incoming = self.core, self.core.incoming
        self._refuse_while_establishing()
        async with core.control_lock:
            self._refuse_while_establishing()
            try:
                ids = incoming.lookup(control)
                found = {}
                if ids:
                    if self.lookup is None:
                        raise ServiceError(ErrorCode.BUSY, "this end has no QKD module", retry_after_ms=10_000)
                    found = await self.lookup.find(ids)
                confirmation = incoming.confirm(control, found)
            except NoRoom as error:
                raise ServiceError(ErrorCode.BUSY, str(error), retry_after_ms=1000) from None
            except OfferRefused as error:
                core.telemetry.refused("conflict", str(error))
                raise ServiceError(ErrorCode.CONFLICT, str(error)) from None
            if confirmation.record is not None:
                await core.write(confirmation.record)
                for block in confirmation.record.add:
                    core.telemetry.refilled(Side.INCOMING, len(block.material))
            incoming.confirmed(confirmation)
            if self.lookup is not None:
                self.lookup.settled()
            return confirmation.reply, confirmation.bits

    def _refuse_while_establishing(self) -> None:
        """An establishment holds the locks of both ends: who waited for one would hold it up."""
        if self.core.frozen:
            raise ServiceError(ErrorCode.BUSY, "a session is being established", retry_after_ms=100)

    async def purge(self) -> None:
        """Delete the bits of blocks that are used up, a chunk at a time."""
        core = self.core
        if core.frozen:
            return
        async with core.exchange_lock:
            record = core.outgoing.purge()
            if record is not None:
                await core.write(record)
                core.outgoing.committed(record)
        async with core.control_lock:
            record = core.incoming.purge()
            if record is not None:
                await core.write(record)
                core.incoming.committed(record)

    async def fetch(self) -> Look:
        """Fetch keys from the module and offer them, where pad is lacking."""
        core, module = self.core, self.module
        demand = self.sealing.demand()
        wanted = core.outgoing.wanted(demand) if core.session is not None and not core.frozen else None
        if module is None or wanted is None or not core.calls.connected:
            return Look(0.0, core.pace.sated)
        stream, lacking = wanted
        level = core.outgoing.streams[stream].level
        hungry = level < HUNGRY
        soonest, latest = core.pace.hungry, core.pace.hungry if hungry or demand[stream] > level else core.pace.fill
        needed = max(HUNGRY_WORTHWHILE, self.sealing.foremost(stream) - level)
        least = min(lacking, WORTHWHILE, needed) if hungry else min(lacking, WORTHWHILE)
        slave = core.section.module.peer_sae
        try:
            status = await module.status(slave, deadline=MODULE_DEADLINE)
            size = status.key_size
            count = min(-(-lacking * 8 // size), status.stored_key_count, status.max_key_per_request, MAXIMUM_KEYS)
            if count < 1 or count * size // 8 < least:
                return Look(soonest, latest)
            container = await module.get_key(slave, number=count, size=size, deadline=MODULE_DEADLINE)
        except Etsi014Error as error:
            wait = max(latest, error.retry_after or 0.0)
            return Look(wait, wait)
        except Etsi014Unreachable:
            return Look(core.pace.fill, core.pace.sated)
        if core.outgoing.pending is None and container.keys:
            core.outgoing.offer(stream, [key.key_ID for key in container.keys], [key.key for key in container.keys])
            core.stir.set()
        return Look(0.0, core.pace.sated)

    def _opened(self, message: LinkControl, answer: Sealed, request: RequestId) -> LinkControlReply:
        """Read the answer, then verify it together with the bits that it confirms."""
        try:
            reply = decode(answer.clear, LinkControlReply)
            bits = self.core.outgoing.offered_bits(message, reply.missing)
        except ServiceError as error:
            raise AuthenticationFailed(error.message) from None
        self.core.incoming.open(answer, LINK_CONTROL.name, own=True, associated=bits, answers=request)
        return reply

    async def _take_in(self, message: LinkControl, reply: LinkControlReply) -> None:
        core = self.core
        record = core.outgoing.answered(message, reply)
        core.telemetry.missing(len(reply.missing))
        if record is not None:
            await core.write(record)
            core.outgoing.committed(record)
            for block in record.add:
                core.telemetry.refilled(Side.OUTGOING, len(block.material))


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, at most so long; then clear it."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
    event.clear()
