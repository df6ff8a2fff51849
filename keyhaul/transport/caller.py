"""The calling role on one connection: requests go out, answers come back, none waits past its time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from h2.errors import ErrorCodes

from keyhaul.transport.http2_events import AnswerArrived, Event, PeerLeaves, StreamFailed
from keyhaul.transport.interface import Peer
from keyhaul.transport.limits import Budget
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.metrics import TransportMetrics
from keyhaul.transport.wire import Wire, WireSettings

DEADLINE_HEADER = b"keyhaul-deadline-ms"

Answer = tuple[int, bytes]
"""HTTP status and body."""


class Unprocessed(Exception):
    """The peer left before it looked at the request: it may be sent again, elsewhere."""


@dataclass(slots=True, eq=False)
class _Exchange:
    path: str
    body: bytes
    end: float
    answer: asyncio.Future[Answer]
    stream: int = 0


class Caller(Wire):
    """A connection over which requests are sent."""

    def __init__(
        self,
        peer: Peer,
        *,
        settings: WireSettings,
        budget: Budget,
        metrics: TransportMetrics,
        direction: str,
        message_owed: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare the connection; `message_owed` tells whether a message of the peer is expected, on any connection."""
        super().__init__(peer, client=True, settings=settings, budget=budget, metrics=metrics, direction=direction)
        self._message_owed = message_owed
        self.on_leaving: Callable[[], None] | None = None
        self._exchanges: dict[int, _Exchange] = {}
        self._waiting: deque[_Exchange] = deque()

    @property
    def leaving(self) -> bool:
        """Whether the peer takes no further requests."""
        return self._http2.leaving or self._http2.closed

    @property
    def speaks(self) -> bool:
        """Whether the peer has accepted the connection."""
        return self.ready.done() and self.ready.exception() is None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._exchanges and not self._waiting

    async def exchange(self, path: str, body: bytes, end: float) -> Answer:
        """Post a body and return the answer.

        Args:
            path: the HTTP path.
            body: the message.
            end: time of the loop's clock by which the answer must be here.

        Raises:
            Unprocessed: the peer certainly did nothing and takes no more on this connection.
            ServiceError: deadline, busy, unreachable.
        """
        exchange = _Exchange(path, body, end, self._loop.create_future())
        if self.leaving:
            raise Unprocessed
        timer = self._loop.call_at(end, _expire, exchange.answer)
        if self._http2.room > 0 and not self._waiting:
            self._send(exchange)
        else:
            self._waiting.append(exchange)
        try:
            return await exchange.answer
        finally:
            timer.cancel()
            if exchange.stream in self._exchanges:
                self._withdraw(exchange)
            elif not exchange.stream and exchange in self._waiting:
                self._waiting.remove(exchange)

    def retire(self) -> None:
        """Close the connection as soon as nothing is under way on it."""
        self._http2.leaving = True
        self._go_on()

    def handle(self, event: Event) -> None:
        """Give an answer or a failure to whoever waits for it."""
        if isinstance(event, AnswerArrived):
            exchange = self._exchanges.pop(event.stream, None)
            if exchange is not None and not exchange.answer.done():
                exchange.answer.set_result((event.status, event.body))
        elif isinstance(event, StreamFailed):
            exchange = self._exchanges.pop(event.stream, None)
            if exchange is not None and not exchange.answer.done():
                exchange.answer.set_exception(self._reason(event))
        elif isinstance(event, PeerLeaves):
            for exchange in self._waiting:
                if not exchange.answer.done():
                    exchange.answer.set_exception(Unprocessed())
            self._waiting.clear()
            if self.on_leaving is not None:
                self.on_leaving()
        self._go_on()

    def abandon(self, reason: str) -> None:
        """Fail everything that is under way."""
        for exchange in self._exchanges.values():
            if not exchange.answer.done():
                exchange.answer.set_exception(ServiceError(ErrorCode.UNREACHABLE, reason))
        for exchange in self._waiting:
            if not exchange.answer.done():
                exchange.answer.set_exception(Unprocessed())
        self._exchanges.clear()
        self._waiting.clear()

    def finished_now(self) -> bool:
        """Whether no call is under way."""
        return self.idle and super().finished_now()

    def owed(self) -> bool:
        """Whether the peer owes an answer, or a message."""
        return bool(self._exchanges) or self._message_owed()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin HTTP/2; a message may be owed from before this connection."""
        super().connection_made(transport)
        if self.owed():
            self.expect_answer()

    def expect_message(self) -> None:
        """From now on a message is owed."""
        if not self._exchanges:
            self.expect_answer()

    def _send(self, exchange: _Exchange) -> None:
        remaining = max(1, int((exchange.end - self._loop.time()) * 1000))
        first = not self.owed()
        exchange.stream = self._http2.request(exchange.path, ((DEADLINE_HEADER, b"%d" % remaining),), exchange.body)
        self._exchanges[exchange.stream] = exchange
        if first:
            self.expect_answer()
        if self._http2.leaving and self.on_leaving is not None:
            self.on_leaving()
        self.schedule_flush()

    def _withdraw(self, exchange: _Exchange) -> None:
        del self._exchanges[exchange.stream]
        self._http2.reset(exchange.stream)
        self.schedule_flush()
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._http2.room > 0:
            exchange = self._waiting.popleft()
            if not exchange.answer.done():
                self._send(exchange)
        if self._http2.leaving and self.idle:
            self._loop.call_soon(self.close)

    def _reason(self, event: StreamFailed) -> Exception:
        if event.unprocessed and self.leaving:
            return Unprocessed()
        if event.code in (ErrorCodes.REFUSED_STREAM, ErrorCodes.ENHANCE_YOUR_CALM):
            return ServiceError(ErrorCode.BUSY, "the peer takes no more requests at this moment")
        return ServiceError(ErrorCode.INTERNAL, "the peer broke off the exchange")


def _expire(answer: asyncio.Future[Answer]) -> None:
    if not answer.done():
        answer.set_exception(ServiceError(ErrorCode.DEADLINE, "no answer in time"))
