"""Refusals: why a demand is not served, as what it is and in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from controller.paths.constraints import Obstacle


class Reason(StrEnum):
    """Why a demand is refused."""

    UNKNOWN_CLASS = "there is no such service class"
    UNKNOWN_NODE = "there is no such node, or it is no access node"
    NO_PATH = "no path leads there"
    CONSTRAINED = "no path keeps to the constraints"
    NO_BACKUP = "there is no second path"
    TOO_FEW_PATHS = "there are too few paths without a common node"
    SLOW = "the links make less than that rate"
    RATE = "the rate is promised to others"
    POOL = "pools are below the floor of the class"


BARRIERS = {
    Obstacle.DOWN: "links that are down",
    Obstacle.NO_QUANTUM: "links without QKD",
    Obstacle.SUITE: "links without the protection required",
    Obstacle.EXCLUDED_LINK: "excluded links",
    Obstacle.RISK_GROUP: "links in excluded risk groups",
    Obstacle.QUARANTINED: "nodes in quarantine",
    Obstacle.JURISDICTION: "nodes outside the jurisdictions allowed",
    Obstacle.EXCLUDED_NODE: "excluded nodes",
}
"""What bars a path, in the words of a refusal."""

TOO_LONG = "too many hops"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a demand is not served, and when it might be."""

    reason: Reason
    earliest_s: float | None = None
    """In how many seconds it could be served if reservations that end then are not renewed; None: nobody knows, or
    waiting does not help."""
    paths_found: int | None = None
    """For `TOO_FEW_PATHS`: how many there are."""
    barriers: tuple[str, ...] = ()
    """What bars the paths that are wanting: each alone, or where none of them does that, all together."""
    least_rate: int | None = None
    """For `SLOW`: what the links of the best paths make, payload in bits per second, if nothing were promised."""

    @property
    def why(self) -> str:
        """In words."""
        if self.least_rate is not None:
            return f"{self.reason}: {self.least_rate} bit/s of payload at most"
        if not self.barriers:
            return self.reason.value
        others = "every other" if self.reason in (Reason.NO_BACKUP, Reason.TOO_FEW_PATHS) else "every one"
        return f"{self.reason}: {others} has {' or '.join(self.barriers)}"
