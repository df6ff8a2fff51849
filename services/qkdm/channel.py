"""The channel between the two ends of a pair: frames over a Unix socket that only this user may open.

It stands for the quantum and the sifting channel; being no network socket, it carries bits past nobody.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from services.qkdm.messages import MAXIMUM_FRAME, MalformedFrame, Message, decode, encode

MAXIMUM_PATH = 107
"""Bytes of a Unix socket's path."""
WRITE_SECONDS = 10.0
SHORTEST_WAIT, LONGEST_WAIT = 0.05, 1.0
"""Seconds between attempts to connect."""


class ChannelLost(Exception):
    """The connection ended."""


class UnusablePath(ValueError):
    """The channel's socket cannot be where the configuration puts it."""


class Connection:
    """Whole messages over one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *messages: Message) -> None:
        """Send messages in order.

        Raises:
            ChannelLost: the other end is gone, or has not read for `WRITE_SECONDS`.
        """
        self.post(*messages)
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise ChannelLost("the other end does not read") from error

    def post(self, *messages: Message) -> None:
        """Send short messages without waiting until the other end has room for them."""
        for message in messages:
            self._writer.write(encode(message))

    @property
    def congested(self) -> bool:
        """Whether much already waits to be read by the other end."""
        transport = self._writer.transport
        return transport.get_write_buffer_size() > MAXIMUM_FRAME

    async def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            ChannelLost: the connection ended, or what came is no message.
        """
        try:
            length = int.from_bytes(await self._reader.readexactly(4), "big")
            if length > MAXIMUM_FRAME:
                raise ChannelLost(f"a frame of {length} bytes is announced")
            return decode(await self._reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise ChannelLost("the other end closed") from error
        except MalformedFrame as error:
            raise ChannelLost(str(error)) from error

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


class Listening:
    """The transmitter's side: the socket, and who connects."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: asyncio.Queue[Connection] = asyncio.Queue(maxsize=2)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Open the socket, mode 0600.

        Raises:
            UnusablePath: the path is too long, or something else listens or lies there.
            OSError: the directory is missing or not writable.
        """
        path = _short(self._path)
        _remove_stale(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        mask = os.umask(0o177)
        try:
            listening.bind(path)
        except OSError:
            listening.close()
            raise
        finally:
            os.umask(mask)
        self._server = await asyncio.start_unix_server(self._accept, sock=listening)

    async def accept(self) -> Connection:
        """Wait for the other end to connect."""
        return await self._waiting.get()

    async def close(self) -> None:
        """Close and remove the socket."""
        if self._server is not None:
            server, self._server = self._server, None
            server.close()
            await server.wait_closed()
            with suppress(FileNotFoundError):
                os.unlink(_short(self._path))
        while not self._waiting.empty():
            self._waiting.get_nowait().close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        if self._server is None or self._waiting.full() or not _same_user(writer):
            connection.close()
        else:
            self._waiting.put_nowait(connection)


async def connections(path: Path) -> AsyncIterator[Connection]:
    """The receiver's side: connect, and once that connection is used up connect again, for ever."""
    wait = SHORTEST_WAIT
    while True:
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                reader, writer = await asyncio.open_unix_connection(_short(path))
        except (OSError, TimeoutError):
            await asyncio.sleep(wait * random.uniform(0.75, 1.25))  # noqa: S311 - spreads attempts, decides nothing
            wait = min(LONGEST_WAIT, 2 * wait)
            continue
        connection = Connection(reader, writer)
        if _same_user(writer):
            began = asyncio.get_running_loop().time()
            yield connection
            wait = (
                SHORTEST_WAIT
                if asyncio.get_running_loop().time() - began > LONGEST_WAIT
                else min(LONGEST_WAIT, 2 * wait)
            )
        connection.close()
        await asyncio.sleep(wait)


def _short(path: Path) -> str:
    """The path as the kernel can take it: relative to where we are, if only that is short enough."""
    for candidate in (str(path), os.path.relpath(path)):
        if len(os.fsencode(candidate)) <= MAXIMUM_PATH:
            return candidate
    raise UnusablePath(f"{path} is longer than the {MAXIMUM_PATH} bytes that a Unix socket's path may have")


def _remove_stale(path: str) -> None:
    if not os.path.lexists(path):
        return
    if not Path(path).is_socket():
        raise UnusablePath(f"{path} is there already and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise UnusablePath(f"{path} is used by another process that listens there")


def _same_user(writer: asyncio.StreamWriter) -> bool:
    credentials = writer.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _, user, _ = struct.unpack("3i", credentials)
    return bool(user == os.geteuid())
