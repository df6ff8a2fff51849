"""The local socket: how an operator on the machine asks a service. One JSON object a line, request and reply.

The socket has mode 0600, and the kernel says who is at the other end: the service's own user or root, nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import structlog

from keyhaul.runtime.interface import LocalCommand, StartError

LARGEST_REQUEST = 1_048_576
LARGEST_REPLY = 16_777_216
"""Bytes of one line."""

PATIENCE = 10.0
"""Seconds for a request to arrive, and for its reply to be taken."""

LONGEST_COMMAND = 60.0
"""Seconds that a command may take."""

CONNECTIONS = 32

_log = structlog.get_logger(__name__)


class LocalSocketError(Exception):
    """A service could not be asked, or refused."""


class LocalRefusal(LocalSocketError):
    """The service answered a command with an error."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """``unknown``, ``invalid``, ``failed`` or ``late``."""


class LocalUnreachable(LocalSocketError):
    """No service answers on a socket."""


class LocalServer:
    """Answers commands on a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._commands: dict[str, LocalCommand] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._inode = 0

    def command(self, name: str, answer: LocalCommand) -> None:
        """Answer a command.

        Raises:
            ValueError: somebody answers it already.
        """
        if name in self._commands:
            raise ValueError(f"the local command {name} is answered already")
        self._commands[name] = answer

    async def start(self) -> None:
        """Listen. What a dead service left is removed, if nobody answers there.

        Raises:
            StartError: another process answers there, or the directory is not fit for it.
        """
        _check_directory(self._path.parent)
        if _occupied(self._path):
            await _remove_stale(self._path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            with _short(self._path) as short:
                listening.bind(short)
            self._path.chmod(0o600)
            self._inode = self._path.stat().st_ino
            self._server = await asyncio.start_unix_server(self._accept, sock=listening, limit=LARGEST_REQUEST)
        except OSError as error:
            listening.close()
            raise StartError(f"cannot make the socket {self._path}: {error.strerror}") from error

    async def close(self) -> None:
        """Stop listening, end what is under way, remove the socket."""
        if self._server is None:
            return
        self._server.close()
        connections = tuple(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio reports one that it made and that `close` cancels as an error.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name=f"local {self._path.name}")
        self._connections.add(task)
        task.add_done_callback(lambda _: self._over(task, writer))

    def _over(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        self._connections.discard(task)
        writer.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("local connection failed", exc_info=error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._connections) <= CONNECTIONS and _permitted(writer):
                await self._converse(reader, writer)
        except (TimeoutError, OSError, asyncio.LimitOverrunError, ValueError, asyncio.IncompleteReadError) as error:
            _log.debug("local connection dropped", error=error)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(PATIENCE):
                line = await reader.readline()
            if not line.endswith(b"\n"):
                return
            reply = json.dumps(await self._answer(line)).encode()
            if len(reply) >= LARGEST_REPLY:
                reply = json.dumps(_refusal("failed", "the answer is too long")).encode()
            writer.write(reply + b"\n")
            async with asyncio.timeout(PATIENCE):
                await writer.drain()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return _refusal("invalid", "the request is not JSON")
        if not isinstance(request, dict) or not isinstance(request.get("command"), str):
            return _refusal("invalid", 'a request is {"command": NAME, "args": {...}}')
        arguments = request.get("args", {})
        if not isinstance(arguments, dict):
            return _refusal("invalid", "args is not an object")
        answer = self._commands.get(request["command"])
        if answer is None:
            known = ", ".join(sorted(self._commands))
            return _refusal("unknown", f"this service has no such command; it knows {known}")
        try:
            async with asyncio.timeout(LONGEST_COMMAND):
                return {"ok": True, "result": await answer(arguments)}
        except LookupError as error:
            return _refusal("unknown", str(error.args[0]) if error.args else "not found")
        except ValueError as error:
            return _refusal("invalid", str(error))
        except TimeoutError:
            return _refusal("late", f"the command took longer than {LONGEST_COMMAND:g} s")
        except Exception as error:  # a command that fails does not take the service with it
            _log.exception("local command failed", command=request["command"])
            return _refusal("failed", f"{type(error).__name__}: the service's log has more")


async def ask(
    path: Path, command: str, arguments: dict[str, Any] | None = None, deadline: float = 5.0
) -> dict[str, Any]:
    """Ask the service that listens on `path`, and return its answer.

    Raises:
        LocalUnreachable: nobody answers, or not within `deadline` seconds.
        LocalRefusal: the service refused.
    """
    request = json.dumps({"command": command, "args": arguments or {}}).encode() + b"\n"
    try:
        async with asyncio.timeout(deadline), _connection(path) as (reader, writer):
            writer.write(request)
            await writer.drain()
            line = await reader.readline()
    except TimeoutError as error:
        raise LocalUnreachable(f"the service at {path} did not answer within {deadline:g} s") from error
    except (OSError, ValueError) as error:
        raise LocalUnreachable(f"no service answers at {path} ({error}); does it run?") from error
    if not line.endswith(b"\n"):
        raise LocalUnreachable(f"the service at {path} closed the connection")
    reply = json.loads(line)
    if not reply["ok"]:
        raise LocalRefusal(reply["error"]["kind"], reply["error"]["message"])
    result: dict[str, Any] = reply["result"]
    return result


@contextlib.asynccontextmanager
async def _connection(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    calling = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    calling.setblocking(False)
    try:
        with _short(path) as short:
            await asyncio.get_running_loop().sock_connect(calling, short)
        reader, writer = await asyncio.open_unix_connection(sock=calling, limit=LARGEST_REPLY)
    except BaseException:
        calling.close()
        raise
    try:
        yield reader, writer
    finally:
        writer.close()


def _refusal(kind: str, message: str) -> dict[str, Any]:
    return {"ok": False, "error": {"kind": kind, "message": message}}


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for `path` that fits into a socket address, however deep its directory is."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _check_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = directory.stat().st_mode
    except OSError as error:
        raise StartError(f"cannot make {directory} for the local socket: {error.strerror}") from error
    if mode & 0o022:
        raise StartError(
            f"{directory} has mode {stat.S_IMODE(mode):04o}: others could replace the local socket in it; "
            f"chmod 700 {directory}, or set [operations] socket to another directory"
        )


def _occupied(path: Path) -> bool:
    if not os.path.lexists(path):
        return False
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise StartError(f"{path} is in the way of the local socket and is no socket: move it")
    return True


async def _remove_stale(path: Path) -> None:
    try:
        async with asyncio.timeout(2.0), _connection(path):
            pass
    except (ConnectionRefusedError, FileNotFoundError):
        os.unlink(path)
    except (OSError, TimeoutError) as error:
        raise StartError(f"cannot tell who listens on {path}: {error}") from error
    else:
        raise StartError(f"another process answers on {path}: is this service running already?")


def _permitted(writer: asyncio.StreamWriter) -> bool:
    peer: socket.socket = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    if user in (0, os.geteuid()):
        return True
    _log.warning("local connection refused", user=user)
    return False
