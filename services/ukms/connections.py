"""Connections of SAEs: limits on their number and on slow clients, and JSON bodies for every error of HTTP itself."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

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


class Answer(web.Response):
    """An answer in JSON that does not tell what software wrote it."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        super().__init__(
            status=status,
            body=body,
            headers={"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})},
        )

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall("Server", None)


def error_answer(status: int, error: Error, headers: dict[str, str] | None = None) -> Answer:
    """An Error body (ETSI GS QKD 014 clause 6.5) under an HTTP status."""
    return Answer(status, msgspec.json.encode(error), headers)


class Connection(RequestHandler):
    """One connection of an SAE."""

    def __init__(self, server: Server, **arguments: Any) -> None:
        super().__init__(server, **arguments)
        self._server = server
        self._slow: asyncio.TimerHandle | None = None
        self._serving = False
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
            async with asyncio.timeout(WRITE_SECONDS):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self.force_close()
            return resp, True
        finally:
            self._serving = False

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
