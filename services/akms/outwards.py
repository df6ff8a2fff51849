"""The border to users: key material from them is refused before any handler sees the message, and errors say nothing.

What other services say of a failure names them; a UKMS gets the code alone, with the few texts that are about itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from keyhaul.identity.names import ServiceName
from keyhaul.link.interface import SealedHandler
from keyhaul.runtime.interface import Runtime
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import Reply, Request

OWN_FAULTS = frozenset({ErrorCode.MALFORMED, ErrorCode.NOT_PERMITTED})
"""What is wrong with the request itself: the texts are this service's own."""

UpwardHandler = Callable[[ServiceName, Request], Awaitable[Reply]]
"""Serves a UKMS's message, which has no secret; nor has its reply."""


def without_secret(handler: UpwardHandler[Request, Reply], runtime: Runtime) -> SealedHandler[Request, Reply]:
    """Make a link handler that refuses and alarms every message with a secret."""

    async def guarded(neighbour: ServiceName, request: Request, secret: bytes) -> tuple[Reply | None, bytes]:
        if secret:
            runtime.alarm("key-material-from-user", ukms=neighbour.id)
            raise ServiceError(ErrorCode.FORBIDDEN, "no key material is taken from users")
        try:
            return await handler(neighbour, request), b""
        except ServiceError as error:
            text = error.message if error.code in OWN_FAULTS else ""
            raise ServiceError(error.code, text, retry_after_ms=error.retry_after_ms) from None

    return guarded
