"""Batches whose outcome is not known yet: where they came from, and from whom it is awaited."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.ckms.forwarding import Path

OWN_AKMS = ""
"""Where a batch came from that this node's AKMS submitted."""


@dataclass(slots=True, eq=False)
class Submission:
    """A batch came from this node's AKMS."""

    batch: str
    open: set[str] = field(default_factory=set)
    """References of what was sent of it, one or (class split) one for each share, while their outcome is not known."""
    failed: bool = False
    """Whether one of them failed: then all have, and the AKMS was told."""


@dataclass(frozen=True, slots=True)
class Own:
    """What was sent of a submission over one path: all of it, or a share."""

    submission: Submission
    path: Path


@dataclass(frozen=True, slots=True)
class Upstream:
    """A batch came from a neighbour, under the neighbour's reference."""

    neighbour: str
    reference: str


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch whose outcome is not known yet."""

    origin: Own | Upstream
    next: str | None
    """The neighbour whose acknowledgement is awaited; None: the AKMS of this node."""
    since: float
    deadline: float

    @property
    def source(self) -> str:
        """From whom the batch came: a neighbour, or `OWN_AKMS`."""
        return self.origin.neighbour if isinstance(self.origin, Upstream) else OWN_AKMS
