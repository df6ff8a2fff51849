"""Serves what CKMSs ask for: paths to another CKMS, in a class; and which of their keys are exposed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from math import isfinite

import msgspec
from prometheus_client import CollectorRegistry, Counter

from controller.northbound.reading import of_database
from keyhaul.keys.grants import SERVICE_CLASSES
from keyhaul.pressure.bucket import TokenBucket
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.path import AskExposures, Exposures, PathRefusal, PathReply, PathRequest
from keyhaul.transport.messages.relay import Exposure
from keyhaul.transport.operations import PATH_EXPOSURES, PATH_REQUEST

RATE = 50.0
BURST = 1_024.0
"""Requests of one CKMS, a second and at once: after a fault it may ask for all its demands together."""

Wanted = Callable[[str, str, str, float, str | None], PathReply | None]
"""Takes on what a CKMS wants: source, destination, class, bytes a second, the neighbour that fails. None: another
controller leads, or this one does not know yet what was promised before."""

Exposed = Callable[[str], Awaitable[Sequence[Exposure] | None]]
"""What is exposed of the keys that a CKMS sent or got. None: likewise."""


class PathRequests:
    """The operations `path.request` and `path.exposures`."""

    def __init__(
        self,
        wanted: Wanted,
        exposed: Exposed,
        registry: CollectorRegistry,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wanted = wanted
        self._exposed = exposed
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}
        self._answers = Counter(
            "keyhaul_controller_path_requests", "Path requests by their answer.", ("answer",), registry=registry
        )

    def serve(self, routes: Routes) -> None:
        """Serve them."""
        routes.add(PATH_REQUEST, self._request)
        routes.add(PATH_EXPOSURES, self._exposures)

    async def _request(self, peer: Peer, request: PathRequest) -> PathReply:
        if request.service_class not in SERVICE_CLASSES:
            raise ServiceError(ErrorCode.MALFORMED, "there is no such service class")
        if not (isfinite(request.rate) and request.rate > 0):
            raise ServiceError(ErrorCode.MALFORMED, "a rate is finite and more than 0")
        self._admit(peer.name.id)
        reply = self._wanted(
            peer.name.id, request.destination, request.service_class, request.rate, request.failed
        ) or PathReply(refusal=PathRefusal.NOT_LEADER)
        self._answers.labels("taken-on" if reply.refusal is None else reply.refusal.value).inc()
        return reply

    async def _exposures(self, peer: Peer, request: AskExposures) -> Exposures:
        self._admit(peer.name.id)
        found = await of_database(self._exposed(peer.name.id))
        if found is None:
            return Exposures(refusal=PathRefusal.NOT_LEADER)
        mark = hashlib.sha256(msgspec.json.encode(found)).hexdigest()
        return Exposures(mark=mark, exposures=None if mark == request.known else list(found))

    def _admit(self, node: str) -> None:
        now = self._clock()
        bucket = self._buckets.get(node)
        if bucket is None:
            bucket = self._buckets[node] = TokenBucket(RATE, BURST, now)
        if not bucket.take(1, now):
            self._answers.labels("busy").inc()
            wait = round(1_000 * bucket.wait(1, now))
            raise ServiceError(ErrorCode.BUSY, "too many path requests", retry_after_ms=wait)
