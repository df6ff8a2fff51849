"""What one end refuses of the other's messages, and what a caller may make of a refusal.

A handler's refusal of a call comes sealed, as an answer of a kind of its own. Whatever refuses outside the link's keys
(HTTP, the table of operations, an end that could not open the message) decides nothing.
"""

from __future__ import annotations

from typing import Any

from keyhaul.link.channel import MalformedMessage, UnknownSession
from keyhaul.link.core import Core
from keyhaul.link.pads import PadSpent
from keyhaul.link.protection.interface import AuthenticationFailed
from keyhaul.link.window import Replayed
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import Operation

_REFUSALS: tuple[tuple[type[Exception], str, ErrorCode], ...] = (
    (MalformedMessage, "malformed", ErrorCode.MALFORMED),
    (UnknownSession, "unknown-session", ErrorCode.UNKNOWN_SESSION),
    (Replayed, "replayed", ErrorCode.REPLAYED),
    (PadSpent, "pad-spent", ErrorCode.REPLAYED),
    (AuthenticationFailed, "authentication", ErrorCode.AUTHENTICATION),
)

REFUSED = tuple(kind for kind, _, _ in _REFUSALS)
"""Why a message cannot be opened."""

_FINAL = frozenset(
    {
        ErrorCode.MALFORMED,
        ErrorCode.VERSION,
        ErrorCode.FORBIDDEN,
        ErrorCode.NOT_PERMITTED,
        ErrorCode.NOT_FOUND,
        ErrorCode.CONFLICT,
    }
)
"""Refusals after which a caller does not try again."""


def refused(core: Core, error: Exception) -> ServiceError:
    """Count a message that could not be opened, for one of the reasons `REFUSED`; what its sender is told."""
    for kind, reason, code in _REFUSALS:
        if isinstance(error, kind):
            core.telemetry.refused(reason, str(error))
            return ServiceError(code, str(error))
    raise error


def refusal_of(operation: Operation[Any, Any]) -> str:
    """The kind of a sealed message by which the handler of an operation refuses."""
    return f"{operation.name}.refused"


def undecided(error: ServiceError) -> ServiceError:
    """What did not come under the link's keys decides nothing: as if the neighbour had not been reached."""
    if error.code not in _FINAL:
        return error
    return ServiceError(ErrorCode.UNREACHABLE, f"refused outside the link's keys: {error.message or error.code.value}")
