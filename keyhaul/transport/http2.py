"""HTTP/2 (RFC 9113) for whole messages, without sockets or clocks: bytes and times in, bytes and events out.

A request or an answer is one header block and one body. The class serves both roles; which end is the TLS server
does not matter to it. What the peer may send, how much of it and how often, is bounded by `Limits`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from h2 import events as h2_events
from h2.errors import ErrorCodes
from h2.events import Event as H2Event
from h2.exceptions import H2Error, ProtocolError

from keyhaul.transport.http2_events import (
    AnswerArrived,
    ConnectionFailed,
    Event,
    PeerLeaves,
    PeerReady,
    PingAnswered,
    RequestArrived,
    RequestTooLarge,
    StreamFailed,
)
from keyhaul.transport.http2_frames import Excess, connection
from keyhaul.transport.http2_messages import Arriving, Fields, Header, Sending
from keyhaul.transport.limits import MIB, Budget, Limits

_CONNECTION_WINDOW = 64 * MIB
_INITIAL_WINDOW = 65_535
_LAST_STREAM = 2**31 - 1 - 2**16
"""A client leaves a connection whose stream identifiers are nearly used up (RFC 9113 section 5.1.1)."""


class TooManyRequests(Exception):
    """The peer takes no more requests at once, or none at all."""


class Http2:
    """One end of an HTTP/2 connection."""

    def __init__(self, *, client: bool, limits: Limits, budget: Budget, authority: str = "keyhaul") -> None:
        """Prepare the connection; nothing is sent before `begin`.

        Args:
            client: whether this end sends requests.
            limits: what the peer may send.
            budget: bytes of unfinished bodies, shared with other connections.
            authority: a client's ``:authority``.
        """
        self.client = client
        self.limits = limits
        self.closed = False
        """Whether nothing more can be sent or received."""
        self.leaving = False
        """Whether no further requests can be sent."""
        self._h2 = h2 = connection(limits, client=client)
        self._fields = Fields(authority)
        self._arriving = Arriving(budget)
        self._sending = Sending(h2)
        self._open: set[int] = set()
        """Exchanges under way: of a client those without answer yet, of a server those not answered."""
        self._consumed = 0
        self._ready = False
        self._last_served: int | None = None

    def begin(self) -> None:
        """Queue the connection preface (RFC 9113 section 3.4)."""
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW - _INITIAL_WINDOW)

    @property
    def under_way(self) -> int:
        """Exchanges that are not over."""
        return len(self._open)

    @property
    def unsent(self) -> bool:
        """Whether bodies wait for the peer's flow control windows, or for `take`."""
        return bool(self._sending)

    @property
    def receiving(self) -> bool:
        """Whether a message of the peer has begun and is not whole."""
        return bool(self._arriving)

    @property
    def room(self) -> int:
        """How many more requests the peer takes at this moment."""
        if self.leaving or self.closed:
            return 0
        return self._h2.remote_settings.max_concurrent_streams - len(self._open)

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the peer; return what they mean.

        Args:
            data: as they came, in any pieces.
            now: seconds of any clock that only goes forward.
        """
        if self.closed:
            return []
        h2 = self._h2
        h2.now = now
        found: list[Event] = []
        try:
            for event in h2.receive_data(data):
                self._take(event, found)
        except Excess as error:
            found.append(self._failed(error.reason))
        except ProtocolError:
            found.append(self._failed("protocol"))
        return found

    def request(self, path: str, headers: Iterable[Header], body: bytes) -> int:
        """Queue a POST; returns its stream.

        Args:
            path: e.g. ``/v1/relay.forward``.
            headers: further fields with lower-case names and values that change from request to request.
            body: the whole body.

        Raises:
            TooManyRequests: see `room`.
        """
        if self.room < 1:
            raise TooManyRequests
        h2 = self._h2
        stream = h2.get_next_available_stream_id()
        h2.send_headers(stream, self._fields.of_request(path, headers), not body)
        self._open.add(stream)
        if body:
            self._sending.add(stream, body)
        if stream >= _LAST_STREAM:
            self.leaving = True
        return stream

    def respond(self, stream: int, status: int, body: bytes) -> None:
        """Queue the answer to a request; nothing happens if the peer has given it up."""
        if stream not in self._open or self.closed:
            return
        self._open.discard(stream)
        self._h2.send_headers(stream, self._fields.of_answer(status, body=bool(body)), not body)
        if body:
            self._sending.add(stream, body)

    def reset(self, stream: int, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Give up an exchange."""
        self._forget(stream)
        if self.closed or stream not in self._h2.streams:
            return
        try:
            self._h2.reset_stream(stream, code)
        except H2Error:
            return

    def expire(self, before: float) -> list[Event]:
        """Give up messages of the peer that began before that time and are still not whole."""
        found: list[Event] = []
        if self._h2.block_began is not None and self._h2.block_began < before:
            self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            return [self._failed("headers")]
        for stream in self._arriving.begun(before):
            self.reset(stream)
            if self.client:
                found.append(StreamFailed(stream, False, ErrorCodes.CANCEL))
        return found

    def ping(self) -> None:
        """Queue a PING; whatever the peer sends next proves that it lives."""
        if not self.closed:
            self._h2.ping(b"keyhaul\0")

    def stop_intake(self) -> None:
        """Queue a GOAWAY: requests that come from now on are refused as unprocessed, the others go on."""
        if not self.closed and self._last_served is None:
            self._last_served = self._h2.highest_inbound_stream_id
            self._h2.end_intake(self._last_served)

    def close(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Queue a last GOAWAY; nothing but `take` is of use afterwards."""
        if not self.closed:
            self._h2.close_connection(code)
            self.release()

    def release(self) -> None:
        """Let go of what unfinished messages hold; the connection is over."""
        self.closed = True
        self._arriving.clear()
        self._sending.clear()
        self._open.clear()

    def take(self) -> bytes:
        """Return the next bytes for the peer; empty when there are none now. Call again after writing them."""
        self._sending.pump()
        return self._h2.data_to_send()

    def _take(self, event: H2Event, found: list[Event]) -> None:
        kind = type(event)
        if kind is h2_events.DataReceived:
            self._take_data(event, found)  # type: ignore[arg-type]
        elif kind is h2_events.StreamEnded:
            self._take_end(event.stream_id, found)  # type: ignore[attr-defined]
        elif kind is h2_events.RequestReceived or kind is h2_events.ResponseReceived:
            self._take_headers(event, found)  # type: ignore[arg-type]
        elif kind is h2_events.StreamReset:
            self._take_reset(event, found)  # type: ignore[arg-type]
        elif kind is h2_events.RemoteSettingsChanged:
            if not self._ready:
                self._ready = True
                found.append(PeerReady())
        elif kind is h2_events.PingAckReceived:
            found.append(PingAnswered())
        elif kind is h2_events.ConnectionTerminated:
            self._take_goaway(event, found)  # type: ignore[arg-type]

    def _take_headers(self, event: h2_events.RequestReceived | h2_events.ResponseReceived, found: list[Event]) -> None:
        stream = event.stream_id
        fields: Any = event.headers
        if self.client:
            if stream not in self._open:
                return
        elif self._last_served is not None and stream > self._last_served:
            self.reset(stream, ErrorCodes.REFUSED_STREAM)
            return
        else:
            self._open.add(stream)
        if len(fields) > self.limits.header_fields:
            self._h2.charge("resets")
            self.reset(stream, ErrorCodes.ENHANCE_YOUR_CALM)
            return
        self._arriving.begin(stream, fields, self._h2.now)

    def _take_data(self, event: h2_events.DataReceived, found: list[Event]) -> None:
        stream = event.stream_id
        self._consumed += event.flow_controlled_length
        if self._consumed >= _CONNECTION_WINDOW // 2:
            self._h2.increment_flow_control_window(self._consumed)
            self._consumed = 0
        size = self._arriving.size(stream)
        if size is None:
            return
        if size + len(event.data) > self.limits.body:
            self._arriving.drop(stream)
            if self.client:
                self.reset(stream)
                found.append(StreamFailed(stream, False, ErrorCodes.CANCEL))
            else:
                found.append(RequestTooLarge(stream))
            return
        if not self._arriving.add(stream, event.data):
            self._arriving.drop(stream)
            self.reset(stream, ErrorCodes.REFUSED_STREAM)
            if self.client:
                found.append(StreamFailed(stream, False, ErrorCodes.REFUSED_STREAM))

    def _take_end(self, stream: int, found: list[Event]) -> None:
        message = self._arriving.drop(stream)
        if message is None:
            return
        body = message.body
        if self.client:
            self._forget(stream)
            if stream in self._h2.streams and not self._h2.streams[stream].closed:
                self.reset(stream, ErrorCodes.NO_ERROR)
            found.append(AnswerArrived(stream, message.status, body))
            return
        headers = dict(message.fields)
        found.append(RequestArrived(stream, headers.get(b":method", b""), headers.get(b":path", b""), headers, body))

    def _take_reset(self, event: h2_events.StreamReset, found: list[Event]) -> None:
        stream = event.stream_id
        if not event.remote_reset:
            self._h2.charge("resets")
        if stream in self._open:
            self._forget(stream)
            code = int(event.error_code or 0)
            found.append(StreamFailed(stream, code == ErrorCodes.REFUSED_STREAM, code))

    def _take_goaway(self, event: h2_events.ConnectionTerminated, found: list[Event]) -> None:
        self.leaving = True
        last = event.last_stream_id or 0
        if self.client:
            for stream in sorted(stream for stream in self._open if stream > last):
                self._forget(stream)
                found.append(StreamFailed(stream, True, int(event.error_code or 0)))
        found.append(PeerLeaves(int(event.error_code or 0)))

    def _forget(self, stream: int) -> None:
        self._arriving.drop(stream)
        self._open.discard(stream)

    def _failed(self, reason: str) -> ConnectionFailed:
        self.release()
        return ConnectionFailed(reason)
