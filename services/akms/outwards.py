"""Outwards only: what UKMSs call, with key material from a user refused before any handler sees the message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from keyhaul.identity.names import ServiceName
from keyhaul.link.interface import SealedHandler
from keyhaul.runtime.interface import Runtime
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import Reply, Request

UpwardHandler = Callable[[ServiceName, Request], Awaitable[Reply]]
"""Serves a UKMS's message, which has no secret; nor has its reply."""


def without_secret(handler: UpwardHandler[Request, Reply], runtime: Runtime) -> SealedHandler[Request, Reply]:
    """Make a link handler that refuses and alarms every message with a secret."""

    async def guarded(neighbour: ServiceName, request: Request, secret: bytes) -> tuple[Reply | None, bytes]:
        if secret:
            runtime.alarm("key-material-from-user", ukms=neighbour.id)
            raise ServiceError(ErrorCode.FORBIDDEN, "no key material is taken from users")
        return await handler(neighbour, request), b""

    return guarded
