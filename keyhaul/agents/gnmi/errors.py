"""What a target refuses, by the codes of the gNMI specification (section 2.5)."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """The gRPC status codes that a target answers with."""

    INVALID_ARGUMENT = 3
    """Malformed: a path, value or message that no target could serve."""
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    """A path that the schema knows and that has no data (Get)."""
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    """Part of a Set failed, and all of it was taken back."""
    UNIMPLEMENTED = 12
    """A path, encoding or feature that this target does not have."""
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Refused(Exception):
    """A request that ends with a status; nothing of it took effect."""

    def __init__(self, code: Code, message: str) -> None:
        """Keep code and message; the message goes to the client as it is."""
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


def malformed(message: str) -> Refused:
    """INVALID_ARGUMENT."""
    return Refused(Code.INVALID_ARGUMENT, message)


def unimplemented(message: str) -> Refused:
    """UNIMPLEMENTED."""
    return Refused(Code.UNIMPLEMENTED, message)
