"""What every message carries: protocol version, identifier, and the names of the fields it insists on."""

from __future__ import annotations

from enum import StrEnum

import msgspec

PROTOCOL_VERSION = 1
"""The version that this release writes."""

SUPPORTED_VERSIONS = range(1, 2)
"""The versions that this release reads: its own and, once there is one, the one before."""


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The common head of all messages between services.

    Unknown fields are ignored unless their names stand in `critical`: then the message is refused.
    """

    v: int = PROTOCOL_VERSION
    id: str = ""
    """Set by the sending channel: unique within a connection's process, without meaning elsewhere."""
    critical: tuple[str, ...] = ()


class Accepted(Message, kw_only=True):
    """The request was understood and taken on; its outcome comes as a message of its own."""


class ErrorCode(StrEnum):
    """The closed list of reasons for which one service refuses another's request."""

    MALFORMED = "malformed"
    VERSION = "version"
    FORBIDDEN = "forbidden"
    NOT_PERMITTED = "not-permitted"
    UNKNOWN_SESSION = "unknown-session"
    AUTHENTICATION = "authentication"
    REPLAYED = "replayed"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    BUSY = "busy"
    EXHAUSTED = "exhausted"
    UNREACHABLE = "unreachable"
    DEADLINE = "deadline"
    INTERNAL = "internal"


STATUS_OF_ERROR: dict[ErrorCode, int] = {
    ErrorCode.MALFORMED: 400,
    ErrorCode.VERSION: 400,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_PERMITTED: 403,
    ErrorCode.UNKNOWN_SESSION: 409,
    ErrorCode.AUTHENTICATION: 403,
    ErrorCode.REPLAYED: 409,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.CONFLICT: 409,
    ErrorCode.BUSY: 429,
    ErrorCode.EXHAUSTED: 503,
    ErrorCode.UNREACHABLE: 503,
    ErrorCode.DEADLINE: 504,
    ErrorCode.INTERNAL: 500,
}


class ErrorReply(Message, kw_only=True):
    """The body of every answer between services that is not a success."""

    code: ErrorCode
    message: str = ""
    retry_after_ms: int = 0


class ServiceError(Exception):
    """A request that was refused, here or by the peer, with its reason from the closed list."""

    def __init__(self, code: ErrorCode, message: str = "", *, retry_after_ms: int = 0) -> None:
        super().__init__(message or code.value)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms
