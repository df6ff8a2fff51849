"""What was said in the TLS sessions that a tap recorded: HTTP/2 and HTTP/1.1 messages out of plain bytes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hpack import Decoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame

from tests.privacy.tap import Record

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(slots=True)
class Said:
    """One HTTP message, or bytes that belong to none."""

    service: str
    peer: str
    incoming: bool
    path: str
    """E.g. ``/v1/relay.forward``; of an answer that of its request; empty for what belongs to no message."""
    request: bool
    at: float = 0.0
    """When its first byte passed."""
    head: bytes = b""
    body: bytes = b""

    @property
    def everything(self) -> bytes:
        """Head and body."""
        return self.head + b"\n" + self.body

    @property
    def place(self) -> str:
        """Where it was heard."""
        kind = "request" if self.request else "answer"
        return f"{'from' if self.incoming else 'to'} {self.peer}: {kind} {self.path}"


@dataclass(slots=True)
class _Stream:
    data: bytearray = field(default_factory=bytearray)
    times: list[tuple[int, float]] = field(default_factory=list)
    """From which byte on, when."""

    def at(self, place: int) -> float:
        return next((at for start, at in reversed(self.times) if start <= place), 0.0)


def conversations(service: str, records: Iterable[Record]) -> Iterator[Said]:
    """All messages of a service, connection by connection."""
    streams: dict[tuple[str, bool], _Stream] = defaultdict(_Stream)
    about: dict[str, tuple[str, bool]] = {}
    for record in records:
        if record.kind == "tls":
            stream = streams[record.connection, record.incoming]
            stream.times.append((len(stream.data), record.at))
            stream.data += record.data
            about[record.connection] = record.peer, record.server
    for connection, (peer, server) in about.items():
        both = {incoming: streams[connection, incoming] for incoming in (True, False)}
        if any(stream.data.startswith(_PREFACE) for stream in both.values()):
            yield from _http2(service, peer, both)
        else:
            yield from _http1(service, peer, server, both)


def _http2(service: str, peer: str, both: dict[bool, _Stream]) -> Iterator[Said]:
    paths: dict[int, str] = {}
    asking = next(incoming for incoming, stream in both.items() if stream.data.startswith(_PREFACE))
    for incoming in (asking, not asking):
        stream = both[incoming]
        data = bytes(stream.data)
        place = len(_PREFACE) if incoming == asking else 0
        decoder = Decoder(max_header_list_size=1 << 20)
        open_messages: dict[int, Said] = {}
        block = b""
        rest = Said(service, peer, incoming, "", incoming == asking)
        while place + 9 <= len(data):
            frame, length = Frame.parse_frame_header(memoryview(data)[place : place + 9])
            payload = data[place + 9 : place + 9 + length]
            if len(payload) < length:
                break
            frame.parse_body(memoryview(payload))
            if isinstance(frame, HeadersFrame | ContinuationFrame):
                said = open_messages.setdefault(
                    frame.stream_id, Said(service, peer, incoming, "", incoming == asking, stream.at(place))
                )
                block += frame.data
                if "END_HEADERS" in frame.flags:
                    fields = decoder.decode(block, raw=True)
                    block = b""
                    said.head += b"\n".join(name + b": " + value for name, value in fields)
                    names = dict(fields)
                    if b":path" in names:
                        paths[frame.stream_id] = names[b":path"].decode()
                    said.path = paths.get(frame.stream_id, "")
            elif isinstance(frame, DataFrame) and frame.stream_id in open_messages:
                open_messages[frame.stream_id].body += frame.data
            else:
                rest.body += payload
            place += 9 + length
        rest.body += data[place:]
        yield from open_messages.values()
        yield rest


_LENGTH = re.compile(rb"^content-length: *([0-9]+)", re.IGNORECASE | re.MULTILINE)


def _http1(service: str, peer: str, server: bool, both: dict[bool, _Stream]) -> Iterator[Said]:
    paths: list[str] = []
    for incoming in (server, not server):
        stream = both[incoming]
        data, place, number = bytes(stream.data), 0, 0
        while place < len(data):
            end = data.find(b"\r\n\r\n", place)
            head = data[place:] if end < 0 else data[place : end + 4]
            found = _LENGTH.search(head)
            length = int(found.group(1)) if found else 0
            said = Said(service, peer, incoming, "", incoming == server, stream.at(place), head)
            place += len(head)
            said.body = data[place : place + length]
            place += length
            if incoming == server:
                words = head.split(b" ", 2)
                paths.append(words[1].decode(errors="replace") if len(words) == 3 else "")
            if b" 100 Continue" not in head[:30]:
                said.path = paths[number] if number < len(paths) else ""
                number += 1
            yield said
