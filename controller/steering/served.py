"""What is known of one demand between inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from controller.admission.admit import Demand
from controller.admission.classes import CLASSES
from controller.admission.refusal import Refusal
from controller.admission.reoptimise import Standing
from controller.paths.compute import Path
from controller.steering.laying import Laying
from controller.steering.routes import Generation
from controller.steering.talks import DRAIN

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds before a demand without paths is looked at again, if nothing that concerns it changes; they double."""

SHUNNED = 30.0
"""Seconds for which what failed is kept out of a demand's paths where there are others."""


@dataclass(slots=True, eq=False)
class Served:
    """A demand with the paths that it has and those that it is about to get."""

    demand: Demand
    expires: float
    """When it ends if it is not asked for again."""
    standing: Standing
    current: Generation | None = None
    """In force."""
    laying: Laying | None = None
    drains: list[tuple[Generation, float]] = field(default_factory=list)
    """What was in force before and still serves what is on its way, and until when at least."""
    adopting: bool = False
    """Whether what an earlier leader installed of it was not read back yet."""
    recorded: bool = False
    """Whether the record tells of it."""
    broken: bool = False
    """Whether a node does not have all that it is told to."""
    shunned: dict[str, float] = field(default_factory=dict)
    """Nodes and links that failed it, and until when that counts."""
    failures: int = 0
    """Layings that failed one after the other."""
    refusal: Refusal | None = None
    """Why there are no paths, or not those that its class demands."""
    unmet: int = 0
    """A higher rate that it asked for in vain, bits per second."""
    urgent: bool | None = None
    """Whether it is to be looked at as soon as can be, and then renewed; None: it is not."""
    retry_at: float = math.inf
    pause: float = FIRST_PAUSE

    @property
    def reserves(self) -> bool:
        """Whether its class has what it sends reserved."""
        return CLASSES[self.demand.service_class].reserves

    @property
    def weakened(self) -> bool:
        """Whether it is in force without the backup that its class demands."""
        return CLASSES[self.demand.service_class].needs_backup and len(self.paths) == 1

    @property
    def paths(self) -> tuple[Path, ...]:
        """In force, by rank."""
        return self.current.paths if self.current else ()

    @property
    def ways(self) -> tuple[Path, ...]:
        """In force: paths by rank, then detours."""
        return self.current.ways if self.current else ()

    @property
    def generations(self) -> tuple[Generation, ...]:
        """Those of which something is installed or about to be."""
        laying = self.laying.generation if self.laying else None
        return tuple(one for one in (self.current, laying) if one is not None)

    def owns(self, node: str, serial: int) -> bool:
        """Whether a statement is part of it, and to stay."""
        return any(one.has(self.demand.source, node, serial) for one in self.generations)

    def retire(self, generation: Generation, now: float) -> None:
        """Something is in force no more, and drains."""
        self.drains = [(one, until) for one, until in self.drains if until > now]
        self.drains.append((generation, now + DRAIN))

    def shun(self, what: str, now: float) -> None:
        """Keep a node or link out of its paths for a while."""
        self.shunned[what] = now + SHUNNED

    def shuns(self, now: float) -> frozenset[str]:
        """What is kept out of its paths now."""
        self.shunned = {what: until for what, until in self.shunned.items() if until > now}
        return frozenset(self.shunned)

    def later(self, now: float) -> None:
        """Look at it again after a pause that grows."""
        self.retry_at = now + self.pause
        self.pause = min(LONGEST_PAUSE, 2 * self.pause)

    def settled(self) -> None:
        """It has what it is to have."""
        if not self.weakened:
            self.refusal = None
        self.failures, self.broken = 0, False
        self.retry_at, self.pause = math.inf, FIRST_PAUSE
