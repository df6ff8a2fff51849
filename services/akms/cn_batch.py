"""One batch of CN bits: its states, the check by which both ends confirm it, and which of its bytes are still free.

The check is a digest of all bits, cut to half its length, and the first `CHECK_KEY_BYTES` of a batch, which are never
handed out, hide in it what the others are. A one-time MAC would not do: a relay has seen the bits, key included, and
could make others with the same MAC; a second preimage it cannot find. Offsets count from the batch's first byte.
Sans-IO.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from keyhaul.keys.material import KeyMaterial

CHECK_KEY_BYTES = 32
CHECK_BYTES = 16
_CHECK_PREFIX = b"keyhaul cn check v1\0"


class CnState(StrEnum):
    """Where a batch of CN bits is in its life at one AKMS."""

    ANNOUNCED = "announced"
    """The two AKMSs know its name; the carrier does not have it yet."""
    SUBMITTED = "submitted"
    """Maker only: its CKMS has taken it."""
    DELIVERED = "delivered"
    """It arrived at the consumer; whether the bits are the same is open."""
    CONFIRMED = "confirmed"
    """Both ends hold the same bits: they may be used, each once."""
    BURNED = "burned"
    """Wiped: never used, or not any more."""


class CnEvent(StrEnum):
    """What can happen to a batch of CN bits."""

    SUBMIT = "submit"
    DELIVER = "deliver"
    CONFIRM = "confirm"
    BURN = "burn"


TRANSITIONS: dict[tuple[CnState, CnEvent], CnState] = {
    (CnState.ANNOUNCED, CnEvent.SUBMIT): CnState.SUBMITTED,
    (CnState.ANNOUNCED, CnEvent.DELIVER): CnState.DELIVERED,
    (CnState.ANNOUNCED, CnEvent.CONFIRM): CnState.CONFIRMED,
    (CnState.ANNOUNCED, CnEvent.BURN): CnState.BURNED,
    (CnState.SUBMITTED, CnEvent.DELIVER): CnState.DELIVERED,
    (CnState.SUBMITTED, CnEvent.CONFIRM): CnState.CONFIRMED,
    (CnState.SUBMITTED, CnEvent.BURN): CnState.BURNED,
    (CnState.DELIVERED, CnEvent.SUBMIT): CnState.DELIVERED,
    (CnState.DELIVERED, CnEvent.CONFIRM): CnState.CONFIRMED,
    (CnState.DELIVERED, CnEvent.BURN): CnState.BURNED,
    (CnState.CONFIRMED, CnEvent.SUBMIT): CnState.CONFIRMED,
    (CnState.CONFIRMED, CnEvent.DELIVER): CnState.CONFIRMED,
    (CnState.CONFIRMED, CnEvent.BURN): CnState.BURNED,
}
"""Every legal step. The news of submission, arrival and confirmation may overtake one another."""


NEWS = {
    CnEvent.SUBMIT: CnState.SUBMITTED,
    CnEvent.DELIVER: CnState.DELIVERED,
    CnEvent.CONFIRM: CnState.CONFIRMED,
}
"""The state that each piece of news leads to."""


def check_of(bits: bytes) -> bytes:
    """What both ends compare: tells nothing of the bits that are handed out, and belongs to these bits alone."""
    return hashlib.sha256(_CHECK_PREFIX + bits).digest()[:CHECK_BYTES]


class UsedBits(Exception):
    """Bytes of a CN batch that were used before, lie outside it, or are not confirmed."""


@dataclass(slots=True, eq=False)
class CnBatch:
    """The bits of one batch and what is left of them."""

    name: str
    service_class: str
    bits: KeyMaterial
    made: float
    state: CnState = CnState.ANNOUNCED
    check: bytes = field(default=b"", repr=False)
    free: list[tuple[int, int]] = field(default_factory=list)
    """Byte ranges (start, stop) that nobody has taken, in order."""

    def __post_init__(self) -> None:
        self.check = check_of(self.bits.reveal())
        self.free = [(CHECK_KEY_BYTES, len(self.bits))]

    @property
    def usable(self) -> int:
        """Bytes of CN key in the batch, taken or not."""
        return len(self.bits) - CHECK_KEY_BYTES

    @property
    def left(self) -> int:
        """Bytes that nobody has taken."""
        return sum(stop - start for start, stop in self.free)

    def apply(self, event: CnEvent) -> None:
        """Take one step of the table; a burned batch stays burned.

        Raises:
            UsedBits: the table has no such step.
        """
        if self.state is CnState.BURNED and event is CnEvent.BURN:
            return
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise UsedBits(f"a CN batch that is {self.state} cannot {event}") from None
        if self.state is CnState.BURNED:
            self.bits.wipe()
            self.free = []

    def is_free(self, offset: int, length: int) -> bool:
        """Whether the batch is confirmed and these bytes lie in it and were never taken."""
        inside = any(start <= offset and offset + length <= stop for start, stop in self.free)
        return self.state is CnState.CONFIRMED and length > 0 and inside

    def take(self, offset: int, length: int) -> bytes:
        """Return bytes and wipe them here: they are never returned again.

        Raises:
            UsedBits: they are not free.
        """
        if not self.is_free(offset, length):
            raise UsedBits("CN bytes that are used, unconfirmed or outside their batch")
        left = []
        for start, stop in self.free:
            if start <= offset and offset + length <= stop:
                left += [(low, high) for low, high in ((start, offset), (offset + length, stop)) if low < high]
            else:
                left.append((start, stop))
        self.free = left
        taken = self.bits.reveal(offset, offset + length)
        self.bits.wipe(offset, offset + length)
        return taken
