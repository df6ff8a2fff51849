"""Batches whose outcome is not known yet: where they came from, and from whom it is awaited."""

from __future__ import annotations

from dataclasses import dataclass

from services.ckms.forwarding import Path

OWN_AKMS = ""
"""Where a batch came from that this node's AKMS submitted."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch came from this node's AKMS; `path` is the one it took, None where there was none."""

    batch: str
    path: Path | None


@dataclass(frozen=True, slots=True)
class Upstream:
    """A batch came from a neighbour, under the neighbour's reference."""

    neighbour: str
    reference: str


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch whose outcome is not known yet."""

    origin: Submission | Upstream
    next: str | None
    """The neighbour whose acknowledgement is awaited; None: the AKMS of this node."""
    since: float
    deadline: float

    @property
    def source(self) -> str:
        """From whom the batch came: a neighbour, or `OWN_AKMS`."""
        return self.origin.neighbour if isinstance(self.origin, Upstream) else OWN_AKMS
