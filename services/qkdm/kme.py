"""A module's KME on the network: HTTPS with mutual authentication in front of `requests`."""

from __future__ import annotations

import asyncio
import ssl
import traceback
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from keyhaul.transport.tls import peer_common_name
from services.qkdm.requests import MAXIMUM_BODY, Answer, Refused, Request

HANDSHAKE_SECONDS = 10.0
IDLE_SECONDS = 75.0
BODY_SECONDS = 10.0
"""How long a request's body may take to arrive."""
MAXIMUM_CONNECTIONS = 32
CLOSING_SECONDS = 2.0

log = structlog.get_logger(__name__)


class _Protocol(RequestHandler):
    """Answers what is no HTTP as everything else: in the standard's error format, without repeating what came."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a request that could not be read, or whose handling failed."""
        if request.writer.output_size > 0:
            raise ConnectionError("part of the answer was sent already")
        if status >= 500 and exc is not None:
            place = traceback.extract_tb(exc.__traceback__)[-1]
            log.error("a request failed", error=type(exc).__name__, file=place.filename, line=place.lineno)
        answer = Refused(status, "not a request of HTTP/1.1" if status < 500 else "error on server side").answer()
        response = web.Response(status=status, body=answer.body, content_type="application/json")
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> _Protocol:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class KmeServer:
    """Serves one KME at one address."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext, answer: Callable[[Request], Answer]) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._answer = answer
        self._http: web.Server | None = None
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port where it listens."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._http = _Server(
            self._handle, access_log=None, keepalive_timeout=IDLE_SECONDS, lingering_time=0.0, auto_decompress=False
        )
        self._server = await asyncio.get_running_loop().create_server(
            self._http, self._host, self._port, ssl=self._tls, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )

    async def close(self) -> None:
        """Stop listening, let requests under way finish, and close the connections."""
        if self._server is not None and self._http is not None:
            self._server.close()
            self._http.pre_shutdown()
            await self._http.shutdown(CLOSING_SECONDS)
            await self._server.wait_closed()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        unread = False
        try:
            answer = self._answer(await self._read(request))
        except Refused as refused:
            answer = refused.answer()
            unread = True
        response = web.Response(
            status=answer.status, body=answer.body, headers=answer.headers, content_type="application/json"
        )
        if unread:
            response.force_close()
        return response

    async def _read(self, request: web.BaseRequest) -> Request:
        assert self._http is not None
        if len(self._http.connections) > MAXIMUM_CONNECTIONS:
            raise Refused(503, "too many connections", headers={"Retry-After": "1"})
        return Request(
            caller=peer_common_name(request.transport) if request.transport is not None else None,
            method=request.method,
            path=[unquote(segment) for segment in request.raw_path.partition("?")[0].split("/")[1:]],
            query=parse_qsl(request.raw_path.partition("?")[2], keep_blank_values=True),
            body=await _body(request),
        )


async def _body(request: web.BaseRequest) -> bytes:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Refused(400, "the body shall not be compressed")
    if request.content_length is not None and request.content_length > MAXIMUM_BODY:
        raise Refused(413, f"the body is longer than {MAXIMUM_BODY} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAXIMUM_BODY:
                    raise Refused(413, f"the body is longer than {MAXIMUM_BODY} bytes")
    except TimeoutError:
        raise Refused(408, "the body took too long to arrive") from None
    return bytes(body)
