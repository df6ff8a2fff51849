"""What CKMSs tell of themselves and their links: the facts of the YANG module `keyhaul-ckms`, once decoded.

They are what a node says, not what is so: `controller.topology` decides what of them is believed. Numbers may be
anything that a number can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.rhythm import SILENCE


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """Key material of one direction of a link, as one end counts it; bytes."""

    available: float = 0
    """What is there, the reserve included."""
    capacity: float = 0
    reserve: float = 0
    """What payload may not use."""
    bytes_in: float = 0
    """Confirmed since this incarnation began."""
    bytes_used: float = 0
    """Used since this incarnation began."""
    bytes_burned: float = 0
    """Burned since this incarnation began."""


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """One end of a link."""

    id: str
    """As the network description names the link."""
    neighbour: str
    """Service id of the other end."""
    up: bool = False
    enabled: bool = True
    quantum: bool = False
    """Whether this end has QKD modules for it."""
    suite: str = ""
    """Protection in use; none where no session stands."""
    suites: frozenset[str] = frozenset()
    """Protections that this end offers."""
    rate: float = 0
    """New key material, bits per second: what either direction can get while the other takes none."""
    qber: float | None = None
    """Quantum bit error ratio, 0 to 1; none where it is unknown."""
    latency_us: float | None = None
    """Round trip, microseconds; none where it is unknown."""
    outgoing: PoolFacts | None = None
    incoming: PoolFacts | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """An end's facts and when they came, seconds by the controller's own monotonic clock."""

    facts: LinkFacts
    at: float


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one CKMS, known by its certificate, has told."""

    node: str
    """Service id in its certificate."""
    at: float
    """When it last told anything."""
    service_id: str = ""
    """What it calls itself."""
    version: str = ""
    incarnation: str = ""
    """Random, of its process."""
    links: Mapping[str, Received] = field(default_factory=dict)
    """By neighbour; what the node no longer has is not in it."""
    fresh: float = SILENCE
    """Seconds for which what it tells holds; then it is unknown (`left`)."""
    unreadable: bool = False
    """Whether some of what it told since it was dialled last cannot be read."""

    def left(self, at: float, now: float) -> float:
        """Seconds for which what it told then holds yet; negative: it does not."""
        return self.fresh - (now - at)
