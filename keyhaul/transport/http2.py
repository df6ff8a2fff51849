"""HTTP/2 (RFC 9113) for whole messages, without sockets or clocks: bytes and times in, bytes and events out.

A request or an answer is one header block and one body. The class serves both roles; which end is the TLS server
does not matter to it. What the peer may send, how much of it and how often, is bounded by `Limits`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from h2 import events as h2_events
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import Event as H2Event
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import NeverIndexedHeaderTuple

from keyhaul.transport.http2_events import (
    AnswerArrived,
    ConnectionFailed,
    Event,
    PeerLeaves,
    PeerReady,
    RequestArrived,
    RequestTooLarge,
    StreamFailed,
)
from keyhaul.transport.http2_frames import CountedConnection, Excess
from keyhaul.transport.limits import MIB, Budget, Limits

_CONNECTION_WINDOW = 64 * MIB
_INITIAL_WINDOW = 65_535
_OUTGOING = 262_144
"""Bytes that are framed ahead of what the transport has taken."""
_LAST_STREAM = 2**31 - 1 - 2**16
"""A client leaves a connection whose stream identifiers are nearly used up (RFC 9113 section 5.1.1)."""

Header = tuple[bytes, bytes]


class TooManyRequests(Exception):
    """The peer takes no more requests at once, or none at all."""


class _NoLog:
    """h2 describes each step to a logger; nobody listens."""

    def debug(self, *_arguments: object) -> None:
        """Say nothing."""

    def trace(self, *_arguments: object) -> None:
        """Say nothing."""


class _Incoming:
    """What has arrived of one message."""

    __slots__ = ("began", "fields", "parts", "size")

    def __init__(self, fields: list[Header], began: float) -> None:
        self.fields = fields
        self.began = began
        self.parts: list[bytes] = []
        self.size = 0


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
        self._budget = budget
        self._authority = authority.encode()
        config = H2Configuration(
            client_side=client,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            logger=_NoLog(),  # type: ignore[arg-type]
        )
        h2 = CountedConnection(config, limits)
        values = {
            SettingCodes.HEADER_TABLE_SIZE: 4_096,
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.body + limits.frame,
            SettingCodes.MAX_FRAME_SIZE: limits.frame,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_bytes,
        }
        h2.local_settings = Settings(client=client, initial_values=values)
        h2.max_inbound_frame_size = limits.frame
        h2.decoder.max_header_list_size = limits.header_bytes
        self._h2 = h2
        self._incoming: dict[int, _Incoming] = {}
        self._outgoing: deque[tuple[int, memoryview]] = deque()
        self._open: set[int] = set()
        """Exchanges under way: of a client those without answer yet, of a server those not answered."""
        self._consumed = 0
        self._ready = False
        self._last_served: int | None = None
        self._named: set[bytes] = set()
        self._templates: dict[str, list[Header]] = {}

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
        return bool(self._outgoing)

    @property
    def receiving(self) -> bool:
        """Whether a message of the peer has begun and is not whole."""
        return bool(self._incoming)

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
        fields = self._templates.get(path)
        if fields is None:
            fields = self._templates[path] = [
                (b":method", b"POST"),
                (b":scheme", b"https"),
                (b":authority", self._authority),
                (b":path", path.encode()),
                (b"content-type", b"application/json"),
            ]
        stream = h2.get_next_available_stream_id()
        h2.send_headers(stream, [*fields, *map(self._varying, headers)], not body)
        self._open.add(stream)
        if body:
            self._send(stream, body)
        if stream >= _LAST_STREAM:
            self.leaving = True
        return stream

    def respond(self, stream: int, status: int, body: bytes) -> None:
        """Queue the answer to a request; nothing happens if the peer has given it up."""
        if stream not in self._open or self.closed:
            return
        self._open.discard(stream)
        code = str(status).encode()
        fields: list[Header] = (
            [(b":status", code), (b"content-type", b"application/json")] if body else [(b":status", code)]
        )
        self._h2.send_headers(stream, fields, not body)
        if body:
            self._send(stream, body)

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
        for stream in [stream for stream, message in self._incoming.items() if message.began < before]:
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
        for stream in list(self._incoming):
            self._forget(stream)
        self._outgoing.clear()
        self._open.clear()

    def take(self) -> bytes:
        """Return the next bytes for the peer; empty when there are none now. Call again after writing them."""
        if self._outgoing:
            self._pump()
        return self._h2.data_to_send()

    def _varying(self, header: Header) -> Header:
        """Let a field's name, but no value after the first, into the compression tables of both ends."""
        if header[0] in self._named:
            return NeverIndexedHeaderTuple(*header)
        self._named.add(header[0])
        return header

    def _send(self, stream: int, body: bytes) -> None:
        h2 = self._h2
        size = len(body)
        if size <= h2.max_outbound_frame_size and size <= h2.local_flow_control_window(stream):
            h2.send_data(stream, body, True)
        else:
            self._outgoing.append((stream, memoryview(body)))

    def _pump(self) -> None:
        h2 = self._h2
        framed = 0
        for _ in range(len(self._outgoing)):
            stream, body = self._outgoing.popleft()
            if stream not in h2.streams or h2.streams[stream].closed:
                continue
            while framed < _OUTGOING:
                size = min(len(body), h2.max_outbound_frame_size, h2.local_flow_control_window(stream))
                if size <= 0:
                    break
                h2.send_data(stream, body[:size], size == len(body))
                body = body[size:]
                framed += size
            if body:
                self._outgoing.append((stream, body))

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
        self._incoming[stream] = _Incoming(fields, self._h2.now)

    def _take_data(self, event: h2_events.DataReceived, found: list[Event]) -> None:
        stream = event.stream_id
        self._consumed += event.flow_controlled_length
        if self._consumed >= _CONNECTION_WINDOW // 2:
            self._h2.increment_flow_control_window(self._consumed)
            self._consumed = 0
        message = self._incoming.get(stream)
        if message is None:
            return
        size = len(event.data)
        if message.size + size > self.limits.body:
            self._drop(stream)
            if self.client:
                self.reset(stream)
                found.append(StreamFailed(stream, False, ErrorCodes.CANCEL))
            else:
                found.append(RequestTooLarge(stream))
            return
        if not self._budget.take(size):
            self._drop(stream)
            self.reset(stream, ErrorCodes.REFUSED_STREAM)
            if self.client:
                found.append(StreamFailed(stream, False, ErrorCodes.REFUSED_STREAM))
            return
        message.size += size
        message.parts.append(event.data)

    def _take_end(self, stream: int, found: list[Event]) -> None:
        message = self._drop(stream)
        if message is None:
            return
        parts = message.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if self.client:
            self._forget(stream)
            if stream in self._h2.streams and not self._h2.streams[stream].closed:
                self.reset(stream, ErrorCodes.NO_ERROR)
            found.append(AnswerArrived(stream, _status(message.fields), body))
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

    def _drop(self, stream: int) -> _Incoming | None:
        message = self._incoming.pop(stream, None)
        if message is not None and message.size:
            self._budget.give(message.size)
        return message

    def _forget(self, stream: int) -> None:
        self._drop(stream)
        self._open.discard(stream)

    def _failed(self, reason: str) -> ConnectionFailed:
        self.release()
        return ConnectionFailed(reason)


def _status(fields: list[Header]) -> int:
    for name, value in fields:
        if name == b":status":
            return int(value) if value.isdigit() and len(value) == 3 else 0
    return 0
