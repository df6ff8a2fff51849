"""One HTTP/2 connection on an event loop: moves bytes, watches the silence, closes in good order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import structlog

from keyhaul.transport.http2 import Http2
from keyhaul.transport.http2_events import ConnectionFailed, Event, PeerReady, PingAnswered
from keyhaul.transport.interface import Peer
from keyhaul.transport.keepalive import Keepalive, KeepaliveTimes
from keyhaul.transport.limits import Budget, Limits
from keyhaul.transport.metrics import TransportMetrics

log = structlog.get_logger(__name__)

_WRITE_BUFFER = 1_048_576

_ROUND_TRIPS = 8
"""PINGs of which the fastest counts: the others tell how busy the two processes were."""

_LINGER = 2.0
"""Seconds that the peer has to take the last bytes and close as well."""


@dataclass(frozen=True, slots=True)
class WireSettings:
    """How one connection is handled; times are seconds."""

    keepalive: KeepaliveTimes = field(default_factory=KeepaliveTimes)
    limits: Limits = field(default_factory=Limits)
    ready: float = 5.0
    """After the handshake, until the peer's first SETTINGS."""
    body: float = 15.0
    """From the header block of a message to its end."""
    write: float = 10.0
    """How long the peer may leave a full write buffer unread."""


class Wire(asyncio.Protocol):
    """What both roles have in common; a subclass handles the events."""

    def __init__(
        self,
        peer: Peer,
        *,
        client: bool,
        settings: WireSettings,
        budget: Budget,
        metrics: TransportMetrics,
        direction: str,
    ) -> None:
        """Prepare a connection to a peer whose certificate was verified."""
        self.peer = peer
        self.chain = [peer.certificate]
        """The peer's certificates as they were validated, leaf first."""
        self.ready = asyncio.get_running_loop().create_future()
        """Set when the peer speaks HTTP/2; an OSError in it says why it never did."""
        self.gone = asyncio.Event()
        """The connection is lost or closed."""
        self.reason = ""
        """Why the connection is gone."""
        self.silent = False
        """Whether it was given up because nothing came from the peer."""
        self.on_gone: Callable[[], None] | None = None
        self._finishing: asyncio.Event | None = None
        self._settings = settings
        self._metrics = metrics
        self._direction = direction
        self._loop = asyncio.get_running_loop()
        self._http2 = Http2(client=client, limits=settings.limits, budget=budget, authority=peer.name.id)
        self._transport: asyncio.Transport | None = None
        self._keepalive = Keepalive(settings.keepalive, self._loop.time())
        self._began = self._loop.time()
        self._paused = False
        self._flush_due = False
        self._closing = False
        self._pinged: float | None = None
        """When a PING left that was not answered yet."""
        self._round_trips: deque[float] = deque(maxlen=_ROUND_TRIPS)
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self.ready.add_done_callback(_seen)

    @property
    def under_way(self) -> int:
        """Exchanges that are not over."""
        return self._http2.under_way

    @property
    def round_trip(self) -> float | None:
        """Seconds to the peer and back, by the fastest of the last PINGs; None before the first answer."""
        return min(self._round_trips, default=None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin HTTP/2; called by the event loop after the handshake."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_WRITE_BUFFER)
        self._metrics.connections.labels(self._direction, self.peer.name.role.value).inc()
        self._http2.begin()
        self._flush()
        self._schedule()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the peer; called by the event loop."""
        now = self._loop.time()
        self._keepalive.heard(now)
        self._act(self._http2.receive(data, now))
        self._flush()

    def handle(self, event: Event) -> None:
        """Act on what the peer sent."""
        raise NotImplementedError

    def abandon(self, reason: str) -> None:
        """The connection is gone: end what depended on it."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """The peer reads too slowly; called by the event loop."""
        self._paused = True
        self._write_timer = self._loop.call_later(self._settings.write, self.abort, "the peer does not read")

    def resume_writing(self) -> None:
        """The peer has caught up; called by the event loop."""
        self._paused = False
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone; called by the event loop."""
        self._over("the connection was lost" if error is None else f"the connection was lost: {type(error).__name__}")

    def drain(self) -> None:
        """Refuse further requests of the peer, let the present ones finish."""
        self._http2.stop_intake()
        self._flush()

    async def finished(self) -> None:
        """Wait until nothing is under way, or the connection is gone."""
        self._finishing = self._finishing or asyncio.Event()
        self._flush()
        await self._finishing.wait()

    def finished_now(self) -> bool:
        """Whether no exchange is under way and all that was to be sent is with the transport."""
        return not self._http2.under_way and not self._http2.receiving and not self._http2.unsent

    def close(self) -> None:
        """Say goodbye and close; exchanges under way are lost."""
        if not self._closing and self._transport is not None:
            self._closing = True
            self._http2.close()
            self._flush()
            self._part()

    def abort(self, reason: str) -> None:
        """Close at once, without goodbye."""
        if self._transport is not None and not self.gone.is_set():
            log.warning("connection aborted", peer=self.peer.name.id, reason=reason)
            self._transport.abort()
            self._over(reason)

    def schedule_flush(self) -> None:
        """Write in this turn of the loop, together with what else comes up in it."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def expect_answer(self) -> None:
        """The peer owes an answer from now on, and owed none before."""
        if self._keepalive.asked(self._loop.time()):
            self._schedule()

    def _act(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, PeerReady):
                if not self.ready.done():
                    self.ready.set_result(None)
            elif isinstance(event, PingAnswered):
                if self._pinged is not None:
                    self._round_trips.append(time.monotonic() - self._pinged)
                    self._pinged = None
            elif isinstance(event, ConnectionFailed):
                self._fail(event.reason)
            else:
                self.handle(event)

    def _flush(self) -> None:
        self._flush_due = False
        if self._transport is None:
            return
        while not self._paused and (data := self._http2.take()):
            self._transport.write(data)
        if self._finishing is not None and self.finished_now():
            self._finishing.set()

    def _fail(self, reason: str) -> None:
        self._metrics.floods.labels(reason).inc()
        log.warning("connection closed: the peer breaks the rules", peer=self.peer.name.id, rule=reason)
        self._flush()
        self._closing = True
        self._part()
        self._over(f"HTTP/2: {reason}")

    def _part(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._loop.call_later(_LINGER, self._transport.abort)

    def _over(self, reason: str) -> None:
        if self.gone.is_set():
            return
        self.reason = reason
        self.gone.set()
        if self._finishing is not None:
            self._finishing.set()
        self._http2.release()
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._metrics.connections.labels(self._direction, self.peer.name.role.value).dec()
        if not self.ready.done():
            self.ready.set_exception(ConnectionResetError(reason))
        self.abandon(reason)
        if self.on_gone is not None:
            self.on_gone()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._keepalive.due
        if not self.ready.done():
            due = min(due, self._began + self._settings.ready)
        if self._http2.receiving:
            due = min(due, self._loop.time() + self._settings.body / 2)
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if not self.ready.done() and now >= self._began + self._settings.ready:
            self.abort("the peer does not speak HTTP/2")
            return
        self._act(self._http2.expire(now - self._settings.body))
        if self.gone.is_set():
            return
        if now >= self._keepalive.due:
            ping, dead = self._keepalive.check(now, waiting=self.owed())
            if dead:
                self.silent = True
                self.abort("the peer is silent")
                return
            if ping:
                self._http2.ping()
                # Not the loop's time, which stands still while it is busy.
                self._pinged = self._pinged or time.monotonic()
        self._flush()
        self._schedule()

    def owed(self) -> bool:
        """Whether the peer owes an answer."""
        return False


def _seen(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
