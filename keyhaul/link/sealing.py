"""Sealing with patience: a message whose pad is not leased yet waits its turn, up to its deadline."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from keyhaul.link.channel import RequestId
from keyhaul.link.core import Core
from keyhaul.link.flights import Flight
from keyhaul.link.pads import PadShortage
from keyhaul.link.protection.interface import TAG_LENGTH
from keyhaul.link.reconciliation import STREAMS
from keyhaul.link.session import Session
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.link import Sealed, Stream

MAXIMUM_WAITERS = 1024
"""Messages of one stream that wait for pad at any time."""

Outcome = tuple[Sealed, Flight, Session]


@dataclass(slots=True)
class _Waiter:
    kind: str
    clear: bytes
    secret: bytes
    answers: RequestId | None
    sealed: asyncio.Future[Outcome]


class Sealing:
    """Seals a link's messages in the order in which they came, per stream; answers go first: their work is done."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._waiters: dict[Stream, deque[_Waiter]] = {stream: deque() for stream in STREAMS}
        core.on_switch.append(self.admit)

    async def seal(
        self,
        kind: str,
        clear: bytes,
        secret: bytes,
        stream: Stream,
        deadline: float,
        *,
        answers: RequestId | None = None,
    ) -> Outcome:
        """Seal a message as soon as there is pad for it.

        Args:
            kind: the operation's name.
            clear: authenticated.
            secret: encrypted as well; it needs the payload stream.
            stream: whose pad to use.
            deadline: seconds to wait at most.
            answers: the request that it answers, be its session still the present one or not.

        Raises:
            ServiceError: exhausted (no pad within the deadline), unreachable (no session within it), or busy
                (too many wait already).
        """
        core = self._core
        waiters = self._waiters[stream]
        if not waiters or answers is not None:
            try:
                return self._seal(kind, clear, secret, stream, answers)
            except PadShortage:
                pass
        if len(waiters) >= MAXIMUM_WAITERS:
            raise ServiceError(ErrorCode.BUSY, "too many messages wait for pad", retry_after_ms=1000)
        waiter = _Waiter(kind, clear, secret, answers, asyncio.get_running_loop().create_future())
        if answers is not None:
            waiters.appendleft(waiter)
        else:
            waiters.append(waiter)
        core.stir.set()
        core.hungry.set()
        try:
            async with asyncio.timeout(deadline):
                return await waiter.sealed
        except TimeoutError:
            self._forsake(waiter)
            if not core.up:
                raise ServiceError(ErrorCode.UNREACHABLE, "no session with the neighbour") from None
            raise ServiceError(ErrorCode.EXHAUSTED, "not enough key material", retry_after_ms=1000) from None
        except asyncio.CancelledError:
            self._forsake(waiter)
            raise
        finally:
            if waiter in waiters:
                waiters.remove(waiter)

    def admit(self) -> None:
        """Pad or a session came: seal what waits and now can be."""
        for stream, waiters in self._waiters.items():
            while waiters:
                waiter = waiters[0]
                if not waiter.sealed.done():
                    try:
                        outcome = self._seal(waiter.kind, waiter.clear, waiter.secret, stream, waiter.answers)
                    except PadShortage:
                        break
                    waiter.sealed.set_result(outcome)
                waiters.popleft()

    def demand(self) -> dict[Stream, int]:
        """Bytes of each stream that would let everything go that waits."""
        demand = dict.fromkeys(STREAMS, 0)
        for stream, waiters in self._waiters.items():
            if waiters:
                length = sum(len(waiter.secret) for waiter in waiters) + TAG_LENGTH * (len(waiters) - 1)
                need = self._core.outgoing.needs(stream, length, self._core.clock())
                for each in STREAMS:
                    demand[each] += need.of(each)
        return demand

    def foremost(self, stream: Stream) -> int:
        """Bytes of a stream that the first message needs which waits for it; 0 where none waits."""
        waiters = self._waiters[stream]
        if not waiters:
            return 0
        return self._core.outgoing.needs(stream, len(waiters[0].secret), self._core.clock()).of(stream)

    def _seal(self, kind: str, clear: bytes, secret: bytes, stream: Stream, answers: RequestId | None) -> Outcome:
        core = self._core
        present = core.session
        if present is None or core.frozen:
            raise PadShortage("no session stands, or one is being established")
        sealed, flight = core.outgoing.seal(kind, clear, secret, stream, core.clock(), answers=answers)
        return sealed, flight, present

    def _forsake(self, waiter: _Waiter) -> None:
        """A message that was sealed just as its sender gave up never leaves."""
        if waiter.sealed.done() and not waiter.sealed.cancelled():
            self._core.outgoing.flights.finished(waiter.sealed.result()[1], accepted=False)
