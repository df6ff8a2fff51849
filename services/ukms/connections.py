"""Connections of SAEs: limits on their number and on slow clients, and JSON bodies for every error of HTTP itself."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from aiohttp import ClientConnectionResetError, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_protocol import RequestHandler

from keyhaul.identity.names import SaeId
from keyhaul.keys.etsi014 import Error
from services.ukms.metrics import Metrics

log = structlog.get_logger(__name__)

HEAD_SECONDS = 10.0
"""From the first byte of a request to the last of its head."""

WRITE_SECONDS = 10.0
"""For the SAE to take an answer."""

LIFE_SECONDS = 600.0
"""An older connection is closed after the next answer: the client's certificate is then verified anew."""

IDLE_SECONDS = 75.0
"""A connection without a request is closed after this."""

LINGER_SECONDS = 2.0
"""For reading, and dropping, what is left of the body of a refused request."""

MAXIMUM_LINE = 4_096
MAXIMUM_FIELD = 8_190
MAXIMUM_FIELDS = 64


class Answer(web.StreamResponse):
    """An answer in JSON that does not tell what software wrote it; its head and body leave in one piece."""

    def __init__(self, status: int, content: bytes, fields: dict[str, str] | None = None) -> None:
        super().__init__(status=status)
        self._content = content
        self._fields = fields or {}
        self._connection: Connection | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write the answer, once.

        Raises:
            ConnectionError: the SAE is gone.
        """
        connection = request.protocol
        transport, writer = connection.transport, request.writer
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("the SAE is gone")
        assert isinstance(connection, Connection)
        self._connection = connection
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        lines = [_head(self.status, request.version[1], int(time.time()))]
        lines += [f"{name}: {value}\r\n" for name, value in self._fields.items()]
        if not self._keep_alive:
            lines.append("Connection: close\r\n")
        elif request.version < (1, 1):
            lines.append("Connection: keep-alive\r\n")
        lines.append(f"Content-Length: {len(self._content)}\r\n\r\n")
        message = "".join(lines).encode("ascii")
        if request.method != "HEAD":
            message += self._content
        writer.output_size += len(message)
        transport.write(message)
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Wait until the SAE takes more, where it does not.

        Raises:
            TimeoutError: it did not in `WRITE_SECONDS`.
        """
        if self._connection is not None:
            await self._connection.taken()


@lru_cache(maxsize=16)
def _head(status: int, minor_version: int, second: int) -> str:
    return (
        f"HTTP/1.{minor_version} {status} {HTTPStatus(status).phrase}\r\n"
        "Content-Type: application/json\r\n"
        "Cache-Control: no-store\r\n"
        f"Date: {formatdate(second, usegmt=True)}\r\n"
    )


def error_answer(status: int, error: Error, fields: dict[str, str] | None = None) -> Answer:
    """An Error body (ETSI GS QKD 014 clause 6.5) under an HTTP status."""
    return Answer(status, msgspec.json.encode(error), fields)


class Connection(RequestHandler):
    """One connection of an SAE."""

    def __init__(self, server: Server, **arguments: Any) -> None:
        super().__init__(server, **arguments)
        self._server = server
        self._slow: asyncio.TimerHandle | None = None
        self._serving = False
        self.caller: SaeId | None = None
        """Whom the certificate names, once a request was looked at: it is the same for a connection's whole life."""
        self.program = ""
        """Which of the caller's programs this is: its address and its certificate."""
        self._ends = asyncio.get_running_loop().time() + LIFE_SECONDS

    @property
    def old(self) -> bool:
        """Whether the connection should end with the next answer."""
        return asyncio.get_running_loop().time() >= self._ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection whose TLS handshake is over."""
        super().connection_made(transport)
        if not self._server.admit(self):
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        self._stop_timer()
        self._server.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Give the client `HEAD_SECONDS` from here on to finish the head of its request."""
        if self._slow is None and not self._serving:
            self._slow = asyncio.get_running_loop().call_later(HEAD_SECONDS, self.force_close)
        super().data_received(data)

    def began(self) -> None:
        """The head of a request is complete."""
        self._serving = True
        self._stop_timer()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; a client that does not take it in time is dropped."""
        try:
            return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self.force_close()
            return resp, True
        finally:
            self._serving = False

    async def taken(self) -> None:
        """Wait until the SAE has taken enough of what was written.

        Raises:
            TimeoutError: it did not in `WRITE_SECONDS`.
        """
        if self._paused:
            async with asyncio.timeout(WRITE_SECONDS):
                await self._drain_helper()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is not HTTP, or that failed unexpectedly, and close the connection."""
        self._stop_timer()
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was being sent already")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("a request failed", exc_info=exc)
            answer = error_answer(status, Error("the KME failed"))
        else:
            answer = error_answer(status, Error("the request is not HTTP as this KME understands it"))
        answer.force_close()
        return answer

    def _stop_timer(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None


class Server(web.Server):
    """Makes connections and counts them."""

    def __init__(self, handler: Any, maximum: int, metrics: Metrics) -> None:
        """Prepare: `maximum` connections stand at a time, the next is closed."""
        super().__init__(handler, handler_cancellation=True)
        self._maximum = maximum
        self._metrics = metrics
        self._admitted: set[Connection] = set()

    def __call__(self) -> RequestHandler:
        """Make the protocol of a new connection."""
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAXIMUM_LINE,
            max_field_size=MAXIMUM_FIELD,
            max_headers=MAXIMUM_FIELDS,
            access_log=None,
            auto_decompress=False,
        )

    def admit(self, connection: Connection) -> bool:
        """Whether one more connection may stand."""
        if len(self._admitted) >= self._maximum:
            self._metrics.connections_refused.inc()
            return False
        self._admitted.add(connection)
        self._metrics.connections.set(len(self._admitted))
        return True

    def leave(self, connection: Connection) -> None:
        """A connection is gone."""
        self._admitted.discard(connection)
        self._metrics.connections.set(len(self._admitted))
