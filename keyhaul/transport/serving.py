"""The serving role: the one place where a request meets the table of operations, before anything reads its body."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import structlog

from keyhaul.identity.names import ServiceName
from keyhaul.randomness import Source, identifier, random_bytes
from keyhaul.transport import codec
from keyhaul.transport.caller import DEADLINE_HEADER, Answer
from keyhaul.transport.http2_events import Event, RequestArrived, RequestTooLarge, StreamFailed
from keyhaul.transport.interface import Peer, Route, Routes
from keyhaul.transport.limits import Budget
from keyhaul.transport.messages.base import STATUS_OF_ERROR, ErrorCode, ErrorReply, ServiceError
from keyhaul.transport.metrics import TransportMetrics
from keyhaul.transport.operations import OPERATIONS, permitted
from keyhaul.transport.wire import Wire, WireSettings

log = structlog.get_logger(__name__)

LONGEST_DEADLINE = 60.0
"""Seconds: no handler runs longer, whatever its caller says."""

_BY_PATH = {operation.path.encode(): operation for operation in OPERATIONS.values()}

Alarm = Callable[..., None]
"""`runtime.interface.Runtime.alarm`."""


class Service:
    """What is served to whoever is connected, on listeners and on connections that serve in reverse."""

    def __init__(
        self,
        own: ServiceName,
        routes: Routes,
        *,
        metrics: TransportMetrics,
        alarm: Alarm | None = None,
        source: Source = random_bytes,
    ) -> None:
        """Bind handlers to a name.

        Args:
            own: the server, whose role the table of operations is asked about.
            routes: the handlers.
            metrics: where requests are counted.
            alarm: told when a role calls what it must not.
            source: of error ids.
        """
        self._own = own
        self._routes = routes
        self._metrics = metrics
        self._alarm = alarm
        self._source = source

    async def answer(self, peer: Peer, request: RequestArrived) -> Answer:
        """Serve one request; whatever goes wrong becomes an answer."""
        operation = _BY_PATH.get(request.path)
        name = "unknown" if operation is None else operation.name
        try:
            status, body = await self._serve(peer, request)
        except ServiceError as refusal:
            status, body = refused(refusal)
            self._metrics.requests.labels(name, refusal.code.value).inc()
        except Exception as error:
            status, body = refused(ServiceError(ErrorCode.INTERNAL, self._report(name, peer, error)))
            self._metrics.requests.labels(name, ErrorCode.INTERNAL.value).inc()
        else:
            self._metrics.requests.labels(name, "ok").inc()
        return status, body

    async def _serve(self, peer: Peer, request: RequestArrived) -> Answer:
        route = self._admit(peer, request)
        deadline = _deadline(request.headers.get(DEADLINE_HEADER))
        message = codec.decode(request.body, route.request)
        request.body = b""
        try:
            async with asyncio.timeout(deadline) as limit:
                reply = await route.handler(peer, message)
        except TimeoutError:
            if not limit.expired():
                raise
            raise ServiceError(ErrorCode.DEADLINE, "the caller's time is over") from None
        if reply is None:
            return 204, b""
        reply.id = message.id
        return 200, codec.encode(reply)

    def _admit(self, peer: Peer, request: RequestArrived) -> Route:
        operation = _BY_PATH.get(request.path)
        if operation is None or request.method != b"POST":
            self._metrics.refused.labels("unknown").inc()
            raise ServiceError(ErrorCode.NOT_FOUND, "there is no such operation")
        if not permitted(operation, peer.name.role, self._own.role):
            self._metrics.refused.labels("role").inc()
            log.warning("operation refused to this role", peer=peer.name.id, operation=operation.name)
            if self._alarm is not None:
                self._alarm("wrong-role", peer=peer.name.id, operation=operation.name)
            raise ServiceError(ErrorCode.FORBIDDEN, f"{peer.name.role} may not call {operation.name}")
        route = self._routes.find(operation.path)
        if route is None:
            self._metrics.refused.labels("not-served").inc()
            raise ServiceError(ErrorCode.NOT_FOUND, f"{operation.name} is not served here")
        return route

    def _report(self, operation: str, peer: Peer, error: Exception) -> str:
        number = identifier(self._source)[:12]
        frames = traceback.extract_tb(error.__traceback__)[-8:]
        log.error(
            "handler failed",
            error_id=number,
            operation=operation,
            peer=peer.name.id,
            error=type(error).__qualname__,
            at=[f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames],
        )
        return f"error {number}"


class ServingWire(Wire):
    """A connection whose requests are served."""

    def __init__(
        self,
        peer: Peer,
        service: Service,
        *,
        settings: WireSettings,
        budget: Budget,
        metrics: TransportMetrics,
        direction: str,
    ) -> None:
        """Prepare the connection."""
        super().__init__(peer, client=False, settings=settings, budget=budget, metrics=metrics, direction=direction)
        self._service = service
        self._handlers: dict[int, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()

    def handle(self, event: Event) -> None:
        """Start a handler, or stop one whose caller has given up."""
        if isinstance(event, RequestArrived):
            if len(self._running) >= self._settings.limits.streams:
                self._refuse(event.stream, ServiceError(ErrorCode.BUSY, "too many requests under way"))
                return
            task = self._loop.create_task(self._run(event))
            self._handlers[event.stream] = task
            self._running.add(task)
            task.add_done_callback(self._ended)
        elif isinstance(event, StreamFailed):
            stopped = self._handlers.pop(event.stream, None)
            if stopped is not None:
                stopped.cancel()
        elif isinstance(event, RequestTooLarge):
            self._metrics.refused.labels("size").inc()
            limit = self._settings.limits.body
            self._refuse(event.stream, ServiceError(ErrorCode.MALFORMED, f"a message has at most {limit} bytes"))

    def abandon(self, reason: str) -> None:
        """Stop the handlers: nobody is there for their answers."""
        for task in self._handlers.values():
            task.cancel()
        self._handlers.clear()

    def finished_now(self) -> bool:
        """Whether no handler runs and no request is on its way in or answer on its way out."""
        return not self._running and super().finished_now()

    def _refuse(self, stream: int, refusal: ServiceError) -> None:
        self._http2.respond(stream, *refused(refusal))
        self.schedule_flush()

    async def _run(self, request: RequestArrived) -> None:
        status, body = await self._service.answer(self.peer, request)
        self._handlers.pop(request.stream, None)
        self._http2.respond(request.stream, status, b"" if request.method == b"HEAD" else body)
        self.schedule_flush()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("answer could not be sent", peer=self.peer.name.id, error=type(error).__qualname__)
            self.abort("an answer could not be sent")
        elif self._finishing is not None:
            self.schedule_flush()


def refused(refusal: ServiceError) -> Answer:
    """Return the HTTP answer for a refusal."""
    reply = ErrorReply(code=refusal.code, message=refusal.message, retry_after_ms=refusal.retry_after_ms)
    return STATUS_OF_ERROR[refusal.code], codec.encode(reply)


def _deadline(value: Any) -> float:
    if value is None:
        return LONGEST_DEADLINE
    if not value.isdigit() or len(value) > 9 or int(value) < 1:
        raise ServiceError(ErrorCode.MALFORMED, "keyhaul-deadline-ms is a number of milliseconds from 1")
    return min(LONGEST_DEADLINE, int(value) / 1000)
