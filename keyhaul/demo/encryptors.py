"""Two network encryptors over a loopback socket: AES-256-GCM traffic under keys from their two UKMSs.

Each frame names its key by `key_ID`. The sender fetches a new key every second (`enc_keys`) and announces it; the
receiver fetches its copy (`dec_keys`) before the sender changes over, so that traffic never stops for a key.
"""

from __future__ import annotations

import asyncio
import struct
import time
from dataclasses import dataclass, field
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyhaul.transport.etsi014 import Client014, Etsi014Error, Etsi014Unreachable

_FRAME = struct.Struct(">B16sQI")
"""Kind, key ID, frame number (the nonce), length of what follows in bytes."""
_DATA, _NEW_KEY, _READY = range(3)
_LARGEST_FRAME = 65_536
_KEY_BITS = 256
_REQUEST_DEADLINE = 10.0
PAYLOAD_BYTES = 1_024


class TrafficBroken(Exception):
    """The other encryptor sent what no encryptor sends."""


@dataclass
class Traffic:
    """What the pair saw so far."""

    frames_sent: int = 0
    frames_opened: int = 0
    frames_refused: int = 0
    keys_used: int = 0
    keys_late: int = 0
    t_key_ms: list[float] = field(default_factory=list)
    """From asking for a key at one site until the other site has it, milliseconds."""
    last_key_id: UUID | None = None


class SendingEncryptor:
    """The master's side: sends traffic, and changes its key at an interval."""

    def __init__(self, client: Client014, slave: str, traffic: Traffic, *, interval: float = 1.0) -> None:
        self._client = client
        self._slave = slave
        self._traffic = traffic
        self._interval = interval
        self._ready: asyncio.Queue[UUID] = asyncio.Queue(maxsize=4)

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stop: asyncio.Event) -> None:
        """Send until `stop` is set; traffic waits only for the very first key."""
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(reader))
            try:
                await self._send(writer, stop)
            finally:
                listening.cancel()
                writer.close()

    async def _send(self, writer: asyncio.StreamWriter, stop: asyncio.Event) -> None:
        current = await self._change(writer)
        while current is None and not stop.is_set():
            current = await self._change(writer)
        changed = time.monotonic()
        number = 0
        changing: asyncio.Task[tuple[UUID, AESGCM] | None] | None = None
        while current is not None and not stop.is_set():
            identifier, cipher = current
            number += 1
            nonce = number.to_bytes(12, "big")
            head = _FRAME.pack(_DATA, identifier.bytes, number, PAYLOAD_BYTES + 16)
            writer.write(head + cipher.encrypt(nonce, number.to_bytes(8, "big") * (PAYLOAD_BYTES // 8), head))
            await writer.drain()
            self._traffic.frames_sent += 1
            if changing is None and time.monotonic() - changed >= self._interval:
                changing = asyncio.create_task(self._change(writer))
            if changing is not None and changing.done():
                fresh = changing.result()
                changing, changed = None, time.monotonic()
                if fresh is not None:
                    current, number = fresh, 0
            await asyncio.sleep(0.005)
        if changing is not None:
            changing.cancel()

    async def _change(self, writer: asyncio.StreamWriter) -> tuple[UUID, AESGCM] | None:
        start = time.perf_counter()
        try:
            container = await self._client.get_key(self._slave, number=1, size=_KEY_BITS, deadline=_REQUEST_DEADLINE)
            key = container.keys[0]
            writer.write(_FRAME.pack(_NEW_KEY, key.key_ID.bytes, 0, 0))
            async with asyncio.timeout(_REQUEST_DEADLINE):
                while await self._ready.get() != key.key_ID:
                    pass
        except (Etsi014Error, Etsi014Unreachable, TimeoutError):
            self._traffic.keys_late += 1
            await asyncio.sleep(0.2)
            return None
        self._traffic.t_key_ms.append(1e3 * (time.perf_counter() - start))
        self._traffic.keys_used += 1
        self._traffic.last_key_id = key.key_ID
        return key.key_ID, AESGCM(key.key)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                kind, identifier, _, _ = _FRAME.unpack(await reader.readexactly(_FRAME.size))
                if kind != _READY:
                    raise TrafficBroken(f"frame of kind {kind} from a receiver")
                await self._ready.put(UUID(bytes=identifier))
        except (asyncio.IncompleteReadError, ConnectionError):
            return


class ReceivingEncryptor:
    """The slave's side: opens traffic; fetches each announced key at its own UKMS."""

    def __init__(self, client: Client014, master: str, traffic: Traffic) -> None:
        self._client = client
        self._master = master
        self._traffic = traffic
        self._ciphers: dict[bytes, AESGCM] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Open frames until the sender closes."""
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    head = await reader.readexactly(_FRAME.size)
                    kind, identifier, number, length = _FRAME.unpack(head)
                    if length > _LARGEST_FRAME:
                        raise TrafficBroken(f"a frame of {length} bytes")
                    body = await reader.readexactly(length)
                    if kind == _NEW_KEY:
                        group.create_task(self._fetch(identifier, writer))
                    else:
                        self._open(identifier, number, head, body)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

    def _open(self, identifier: bytes, number: int, head: bytes, body: bytes) -> None:
        cipher = self._ciphers.get(identifier)
        try:
            if cipher is None:
                self._traffic.frames_refused += 1
                return
            cipher.decrypt(number.to_bytes(12, "big"), body, head)
            self._traffic.frames_opened += 1
        except InvalidTag:
            self._traffic.frames_refused += 1

    async def _fetch(self, identifier: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            container = await self._client.get_key_with_ids(
                self._master, [UUID(bytes=identifier)], deadline=_REQUEST_DEADLINE
            )
        except (Etsi014Error, Etsi014Unreachable):
            self._traffic.keys_late += 1
            return
        while len(self._ciphers) >= 4:
            self._ciphers.pop(next(iter(self._ciphers)))
        self._ciphers[identifier] = AESGCM(container.keys[0].key)
        writer.write(_FRAME.pack(_READY, identifier, 0, 0))


async def exchange(
    master: Client014, slave: Client014, names: tuple[str, str], traffic: Traffic, stop: asyncio.Event
) -> None:
    """Run both encryptors over a loopback connection until `stop` is set.

    Args:
        master: a client of ETSI GS QKD 014 that is the sending SAE.
        slave: likewise the receiving one.
        names: SAE IDs of master and slave.
        traffic: counted into as it goes.
        stop: ends the traffic.
    """
    receiver = ReceivingEncryptor(slave, names[0], traffic)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(host, port)
        await SendingEncryptor(master, names[1], traffic).run(reader, writer, stop)
