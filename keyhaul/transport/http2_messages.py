"""Parts of whole messages on an HTTP/2 connection: header fields, bodies on their way out, messages that arrive."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from h2.connection import H2Connection
from hpack import NeverIndexedHeaderTuple

from keyhaul.transport.limits import Budget

_OUTGOING = 262_144
"""Bytes that are framed ahead of what the transport has taken."""

Header = tuple[bytes, bytes]


class Fields:
    """The header fields of what one end sends."""

    def __init__(self, authority: str) -> None:
        self._authority = authority.encode()
        self._named: set[bytes] = set()
        self._templates: dict[str, list[Header]] = {}

    def of_request(self, path: str, further: Iterable[Header]) -> list[Header]:
        """Fields of a POST; values of `further` change from request to request."""
        fields = self._templates.get(path)
        if fields is None:
            fields = self._templates[path] = [
                (b":method", b"POST"),
                (b":scheme", b"https"),
                (b":authority", self._authority),
                (b":path", path.encode()),
                (b"content-type", b"application/json"),
            ]
        return [*fields, *map(self._varying, further)]

    def of_answer(self, status: int, *, body: bool) -> list[Header]:
        """Fields of an answer, with a body or without one."""
        code = str(status).encode()
        return [(b":status", code), (b"content-type", b"application/json")] if body else [(b":status", code)]

    def _varying(self, header: Header) -> Header:
        """Let a field's name, but no value after the first, into the compression tables of both ends."""
        if header[0] in self._named:
            return NeverIndexedHeaderTuple(*header)
        self._named.add(header[0])
        return header


class Sending:
    """Bodies that wait for the peer's flow control windows, or for the transport; streams take turns."""

    def __init__(self, h2: H2Connection) -> None:
        self._h2 = h2
        self._bodies: deque[tuple[int, memoryview]] = deque()

    def __bool__(self) -> bool:
        """Whether any does."""
        return bool(self._bodies)

    def add(self, stream: int, body: bytes) -> None:
        """Send the body of a stream, and end it: at once where it fits into one frame and the windows."""
        h2 = self._h2
        size = len(body)
        if size <= h2.max_outbound_frame_size and size <= h2.local_flow_control_window(stream):
            h2.send_data(stream, body, True)
        else:
            self._bodies.append((stream, memoryview(body)))

    def pump(self) -> None:
        """Frame what may go out now, within bounds."""
        h2 = self._h2
        framed = 0
        for _ in range(len(self._bodies)):
            stream, body = self._bodies.popleft()
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
                self._bodies.append((stream, body))

    def clear(self) -> None:
        """Nothing is sent any more."""
        self._bodies.clear()


class Message:
    """What has arrived of one message."""

    __slots__ = ("began", "fields", "parts", "size")

    def __init__(self, fields: list[Header], began: float) -> None:
        self.fields = fields
        self.began = began
        self.parts: list[bytes] = []
        self.size = 0

    @property
    def body(self) -> bytes:
        """Its body, as far as it has arrived."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    @property
    def status(self) -> int:
        """The HTTP status of an answer; 0 where it says none."""
        for name, value in self.fields:
            if name == b":status":
                return int(value) if value.isdigit() and len(value) == 3 else 0
        return 0


class Arriving:
    """Messages of the peer that have begun and are not whole, by stream; their bodies are within a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._messages: dict[int, Message] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._messages)

    def begin(self, stream: int, fields: list[Header], now: float) -> None:
        """The header block of a message has arrived."""
        self._messages[stream] = Message(fields, now)

    def size(self, stream: int) -> int | None:
        """Bytes that have arrived of a message's body; None where none is arriving."""
        message = self._messages.get(stream)
        return None if message is None else message.size

    def add(self, stream: int, data: bytes) -> bool:
        """Keep more of a message's body; False where the budget is used up."""
        if not self._budget.take(len(data)):
            return False
        message = self._messages[stream]
        message.size += len(data)
        message.parts.append(data)
        return True

    def begun(self, before: float) -> list[int]:
        """The streams of those that began before a time."""
        return [stream for stream, message in self._messages.items() if message.began < before]

    def drop(self, stream: int) -> Message | None:
        """Let go of a message, and of its share of the budget; return it, None where none is arriving."""
        message = self._messages.pop(stream, None)
        if message is not None and message.size:
            self._budget.give(message.size)
        return message

    def clear(self) -> None:
        """Let go of all."""
        for stream in list(self._messages):
            self.drop(stream)
