"""Keeps buffers filled: asks the AKMS for what they lack, and does what its refusals say.

The asyncio driver around `orders.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from keyhaul.identity.names import SaeId
from keyhaul.pressure.gate import FairGate
from keyhaul.randomness import Source
from keyhaul.store.interface import StoreError
from keyhaul.transport.messages.access import DeliveryFailed, Purpose, RequestKeys
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import FailureReason
from services.ukms.answering import Answering
from services.ukms.buffer import Buffer
from services.ukms.buffers import Buffers
from services.ukms.etsi014 import exhausted
from services.ukms.metrics import Metrics
from services.ukms.orders import Ask
from services.ukms.outlook import QUEUE
from services.ukms.terms import REFUSALS, TRANSIENT
from services.ukms.vault import Vault

log = structlog.get_logger(__name__)

ASK_DEADLINE = 5.0
"""Seconds for the AKMS to take a request on."""

MAXIMUM_ASKS = 256
"""Calls to the AKMS at a time; masters take turns."""

LONGEST_RETRY_MS = 60_000
"""A longer wait than this is not kept, whoever asks for it."""

Request = Callable[[RequestKeys, float], Awaitable[None]]
"""Sends a request to the AKMS, within so many seconds; raises ServiceError."""

Doubt = Callable[[SaeId, frozenset[SaeId]], None]
"""Called when an answer does not fit the terms of this master and these slaves."""


class Filling:
    """What is asked of the AKMS for all buffers of a UKMS."""

    def __init__(
        self,
        buffers: Buffers,
        vault: Vault,
        answering: Answering,
        request: Request,
        doubt: Doubt,
        metrics: Metrics,
        *,
        source: Source,
        clock: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], bool],
        closing: asyncio.Event,
    ) -> None:
        """Prepare.

        Args:
            buffers: to be filled.
            vault: remembers what was asked for.
            answering: those who wait.
            request: sends to the AKMS.
            doubt: told of answers that do not fit the terms.
            metrics: what is counted.
            source: draws request names.
            clock: seconds of this node's clock.
            spawn: runs work in the background; False, and the work is not begun, where nothing more is taken on.
            closing: set when nothing more is taken on.
        """
        self._buffers = buffers
        self._vault = vault
        self._answering = answering
        self._request = request
        self._doubt = doubt
        self._metrics = metrics
        self._source = source
        self._clock = clock
        self._spawn = spawn
        self._closing = closing
        self._asked: dict[str, tuple[Buffer, float]] = {}
        self._gate = FairGate(MAXIMUM_ASKS)

    def fill(self, buffer: Buffer) -> None:
        """Ask the AKMS for what a buffer lacks now; who would wait for too long is told to come back."""
        self._answering.send_away(buffer, buffer.overlong(self._clock()))
        for ask in buffer.plan(self._clock(), self._source):
            self._asked[ask.request] = (buffer, ask.until)
            self._spawn(self._ask(buffer, ask))
        held_back = buffer.orders.wait()
        if held_back is not None:
            self._spawn(self._fill_later(buffer, held_back, buffer.orders.resume))

    def ask_again(self) -> None:
        """A new session with the AKMS stands: ask for what is still wanted."""
        self._asked.clear()
        for buffer in self._buffers:
            buffer.orders.again()
            self.fill(buffer)

    def forget(self) -> None:
        """Forget requests that are over."""
        now = self._clock()
        self._asked = {request: asked for request, asked in self._asked.items() if asked[1] > now}

    async def failed(self, failure: DeliveryFailed) -> None:
        """The AKMS will not serve a request."""
        await self._vault.request_ended(failure.request)
        self._failed(failure.request, failure.reason, _pause_of(failure.retry_after_ms), failure.keys_per_second)

    def arrived(self, request: str, number: int, buffer: Buffer) -> None:
        """Keys came for a request, into a buffer: another one where the terms have changed meanwhile."""
        asking, _ = self._asked.get(request, (None, 0.0))
        if asking is None:
            return
        asking.orders.arrived(request, number, self._clock())
        if asking is not buffer:
            self._doubt(asking.key.master, asking.key.slaves)
            self._answering.fail(asking.fail_unserved(), exhausted())

    async def _ask(self, buffer: Buffer, ask: Ask) -> None:
        urgent = ask.purpose is Purpose.DEMAND
        async with self._gate.enter(buffer.key.master, cost=ask.number, urgent=urgent):
            remaining = ask.until - self._clock()
            if remaining <= 0:
                return
            message = RequestKeys(
                request=ask.request,
                master=buffer.key.master,
                slaves=list(buffer.slaves),
                number=ask.number,
                size=buffer.key.size,
                purpose=ask.purpose,
                remaining_ms=max(1, round(1000 * remaining)),
            )
            try:
                await self._vault.request_made(ask.request, buffer.key, ask.number)
                await self._request(message, min(remaining, ASK_DEADLINE))
            except ServiceError as error:
                await self._not_asked(ask.request, error)
            except StoreError as error:
                log.error("a request was not sent: the store failed", error=str(error))
                self._failed(ask.request, FailureReason.BUSY, 0.0)

    async def _not_asked(self, request: str, error: ServiceError) -> None:
        gone = error.code is ErrorCode.EXHAUSTED and error.retry_after_ms > 0
        if error.code in TRANSIENT and not gone:
            self._failed(request, FailureReason.BUSY, _pause_of(error.retry_after_ms))
            return
        if error.code not in REFUSALS and not gone:
            log.error("the AKMS did not take a request", code=error.code, reason=error.message)
        reason = FailureReason.NOT_PERMITTED if error.code in REFUSALS else FailureReason.NO_KEYS
        self._failed(request, reason, _pause_of(error.retry_after_ms))

    def _failed(self, request: str, reason: FailureReason, retry_after: float, rate: float = 0.0) -> None:
        buffer, _ = self._asked.pop(request, (None, 0.0))
        if buffer is None:
            return
        pause = buffer.orders.failed(request, retry_after, self._clock(), rate)
        if pause is None:
            return
        self._metrics.requests_failed.labels(reason.value).inc()
        if reason is FailureReason.NOT_PERMITTED:
            self._doubt(buffer.key.master, buffer.key.slaves)
            self._answering.forbid(buffer)
        elif rate > 0:
            self._answering.send_away(buffer, buffer.overlong(self._clock()))
        elif reason in (FailureReason.NO_KEYS, FailureReason.DEADLINE) and not 0 < retry_after <= QUEUE:
            self._answering.send_away(buffer, buffer.fail_unserved(), retry_after)
        self._spawn(self._fill_later(buffer, pause, buffer.orders.retry))

    async def _fill_later(self, buffer: Buffer, pause: float, resume: Callable[[], None]) -> None:
        try:
            async with asyncio.timeout(pause):
                await self._closing.wait()
        except TimeoutError:
            resume()
            self.fill(buffer)


def _pause_of(retry_after_ms: int) -> float:
    """Seconds that the AKMS asks for, within reason."""
    return min(max(0, retry_after_ms), LONGEST_RETRY_MS) / 1000
