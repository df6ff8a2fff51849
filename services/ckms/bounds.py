"""What a batch may be: its name, its length, and the time that it has. Sans-IO."""

from __future__ import annotations

import re

from keyhaul.transport.messages.base import ErrorCode, ServiceError

MAXIMUM_BATCH = 1 << 20
"""Bytes of one batch."""

MAXIMUM_REMAINING_MS = 60_000
"""A deadline further away is shortened to this."""

HOP_MARGIN_MS = 10
"""How much earlier the next hop gives up, so that its failure is back before this hop's own deadline."""

_BATCH = re.compile(r"[0-9a-f]{32}")


def fits(name: str, length: int) -> bool:
    """Whether a batch may have this name and length (bytes)."""
    return _BATCH.fullmatch(name) is not None and 0 < length <= MAXIMUM_BATCH


def check(name: str, length: int) -> None:
    """Refuse a batch of this node's AKMS that does not fit.

    Raises:
        ServiceError: malformed.
    """
    if not fits(name, length):
        raise ServiceError(
            ErrorCode.MALFORMED, f"a batch has a name of 32 hexadecimal digits and 1 to {MAXIMUM_BATCH} bytes"
        )


def deadline_of(remaining_ms: int, now: float) -> float:
    """When a batch is given up that came with so much time."""
    return now + min(max(remaining_ms, 0), MAXIMUM_REMAINING_MS) / 1000


def onward_ms(now: float, deadline: float) -> int:
    """How much time the next hop has; 0 or less: none."""
    return int(1000 * (deadline - now)) - HOP_MARGIN_MS
