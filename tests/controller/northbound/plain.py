"""An HTTP/2 client that sends whatever it is told to, over mutual TLS: how anybody's program meets the controller."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset

from keyhaul.config.addresses import parse_address
from keyhaul.transport.tls import TlsContext


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    body: bytes = b""
    reset: bool = False

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass
class Plain:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    h2: H2Connection = field(default_factory=lambda: H2Connection(H2Configuration()))

    @classmethod
    async def to(cls, address: str, tls: TlsContext) -> Plain:
        """Connect."""
        host, port = parse_address(address)
        plain = cls(*await asyncio.open_connection(host, port, ssl=tls))
        plain.h2.initiate_connection()
        return plain

    async def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Send one request and wait for its answer."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", "controller"), (":path", path)]
        self.h2.send_headers(stream, head, not body)
        answer = Answer()
        left = body
        async with asyncio.timeout(30):
            while True:
                while left and (room := self.h2.local_flow_control_window(stream)):
                    part = left[: min(room, self.h2.max_outbound_frame_size)]
                    left = left[len(part) :]
                    self.h2.send_data(stream, part, not left)
                self.writer.write(self.h2.data_to_send())
                await self.writer.drain()
                data = await self.reader.read(65_536)
                if not data:
                    raise ConnectionResetError
                for event in self.h2.receive_data(data):
                    match event:
                        case ResponseReceived(stream_id=number) if number == stream:
                            answer.status = int(dict(event.headers)[b":status"])
                        case DataReceived(stream_id=number) if number == stream:
                            answer.body += event.data
                            self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                        case StreamEnded(stream_id=number) if number == stream:
                            return answer
                        case StreamReset(stream_id=number) if number == stream:
                            answer.reset = True
                            return answer
                        case ConnectionTerminated():
                            pass

    async def close(self) -> None:
        """Say nothing more."""
        self.writer.transport.abort()
