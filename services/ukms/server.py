"""ETSI GS QKD 014 over HTTPS: requests of SAEs, known by the common name of their certificates."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from keyhaul.config.loader import parse_address
from keyhaul.identity.names import MalformedName, SaeId, sae_id
from keyhaul.keys.etsi014 import KeyContainer, Status
from keyhaul.runtime.interface import StartError
from keyhaul.store.interface import StoreError
from keyhaul.transport.tls import peer_common_name, session_of
from services.ukms import etsi014
from services.ukms.connections import Answer, Connection, Server, error_answer
from services.ukms.etsi014 import Method, Refusal, Target
from services.ukms.kme import Kme
from services.ukms.metrics import Metrics

log = structlog.get_logger(__name__)

BODY_SECONDS = 10.0
"""For a request's body to arrive."""

HANDSHAKE_SECONDS = 5.0

BACKLOG = 256

CLOSING = frozenset({408, 413, 415, 417})
"""After these the connection is closed: the rest of the body is not waited for."""

_encode = msgspec.json.Encoder().encode

CommonName = Callable[[asyncio.BaseTransport], str]


class SaeServer:
    """Serves the SAEs of a site."""

    def __init__(
        self,
        kme: Kme,
        metrics: Metrics,
        tls: ssl.SSLContext,
        address: str,
        *,
        maximum_connections: int,
        common_name: CommonName = peer_common_name,
    ) -> None:
        """Prepare; nothing listens before `start`.

        Args:
            kme: answers.
            metrics: what is counted.
            tls: a server's context that demands client certificates.
            address: ``HOST:PORT``; port 0: the system picks one.
            maximum_connections: that stand at a time.
            common_name: the common name of a transport's verified peer.
        """
        self._kme = kme
        self._metrics = metrics
        self._tls = tls
        self._wanted_address = address
        self._common_name = common_name
        self._server = Server(self._serve, maximum_connections, metrics)
        self._listener: asyncio.Server | None = None
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def address(self) -> str:
        """Where it listens."""
        assert self._listener is not None
        host, port = self._listener.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            StartError: the address cannot be used.
        """
        host, port = parse_address(self._wanted_address)
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._server,
                host,
                port,
                ssl=self._tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=1.0,
            )
        except OSError as error:
            raise StartError(f"cannot listen for SAEs on {self._wanted_address}: {error.strerror}") from None

    async def drain(self, seconds: float) -> None:
        """Take no new connection or request, and give those that run some time to finish."""
        if self._listener is not None:
            self._listener.close()
        self._server.pre_shutdown()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.info("requests still run at the end of the time to finish", running=self._running)

    async def close(self) -> None:
        """Close every connection."""
        await self._server.shutdown(0.5)
        if self._listener is not None:
            self._listener.close()
            await self._listener.wait_closed()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        began = time.perf_counter()
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.began()
        self._running += 1
        self._idle.clear()
        method = "other"
        try:
            target = etsi014.target(request.rel_url.raw_path)
            method = target.method.value
            answer = await self._answer(request, connection, target)
        except Refusal as refusal:
            answer = _refused(refusal)
        except StoreError as error:
            log.error("the store failed", error=str(error))
            answer = _refused(etsi014.unavailable())
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
        if connection.old or answer.status in CLOSING:
            answer.force_close()
        self._metrics.answered(method, answer.status, time.perf_counter() - began)
        return answer

    async def _answer(self, request: web.BaseRequest, connection: Connection, target: Target) -> Answer:
        etsi014.check_method(target, request.method)
        caller = connection.caller or self._caller(connection)
        query = request.rel_url.raw_query_string
        result: Status | KeyContainer
        if target.method is Method.STATUS:
            etsi014.no_parameters(query)
            result = await self._kme.status(caller, target.sae)
        elif request.method == "GET":
            if target.method is Method.ENC_KEYS:
                result = await self._kme.enc_keys(caller, target.sae, etsi014.get_enc_keys(query), connection.program)
            else:
                result = await self._kme.dec_keys(caller, target.sae, etsi014.get_dec_keys(query))
        else:
            etsi014.no_parameters(query)
            body = await _body(request)
            if target.method is Method.ENC_KEYS:
                result = await self._kme.enc_keys(caller, target.sae, etsi014.post_enc_keys(body), connection.program)
            else:
                result = await self._kme.dec_keys(caller, target.sae, etsi014.post_dec_keys(body))
        return Answer(200, _encode(result))

    def _caller(self, connection: Connection) -> SaeId:
        if connection.transport is None:
            raise ConnectionResetError("the SAE is gone")
        try:
            caller = sae_id(self._common_name(connection.transport))
            connection.program = _program(connection.transport)
        except (MalformedName, ssl.SSLError):
            raise Refusal(401, "the certificate's common name is no SAE ID") from None
        connection.caller = caller
        return caller


def _program(transport: asyncio.Transport) -> str:
    """Which of an SAE's programs a connection belongs to: from where it comes, and by which certificate."""
    certificate = session_of(transport).verified_chain()[0]
    return f"{transport.get_extra_info('peername')[0]} {certificate.serial_number:x}"


def _refused(refusal: Refusal) -> Answer:
    headers = {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.allow:
        headers["Allow"] = ", ".join(refusal.allow)
    return error_answer(refusal.status, refusal.error, headers)


Body = TypeVar("Body", bytes, bytearray)


async def _body(request: web.BaseRequest) -> bytes:
    """Read a request's body.

    Raises:
        Refusal: 400, 408, 413, 415 or 417.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refusal(415, "the body shall not be compressed")
    if request.content_length is not None and request.content_length > etsi014.MAXIMUM_BODY:
        raise _too_large()
    await _continue(request)
    if request.content.is_eof() and request.content.exception() is None:
        return _checked(request.content.read_nowait())
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while chunk := await request.content.readany():
                body += chunk
                _checked(body)
    except TimeoutError:
        raise Refusal(408, "the body did not arrive in time") from None
    except (web.RequestPayloadError, HttpProcessingError):
        raise Refusal(400, "the body cannot be read") from None
    return bytes(body)


def _checked(body: Body) -> Body:
    if len(body) > etsi014.MAXIMUM_BODY:
        raise _too_large()
    return body


def _too_large() -> Refusal:
    return Refusal(413, f"a request's body has at most {etsi014.MAXIMUM_BODY} bytes")


async def _continue(request: web.BaseRequest) -> None:
    expected = request.headers.get("Expect")
    if expected is None:
        return
    if expected.lower() != "100-continue":
        raise Refusal(417, "the only expectation that can be met is 100-continue")
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
