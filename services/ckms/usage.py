"""How much of a path is used: what a CKMS asks the controller for.

Sans-IO: time (`now`, seconds of a monotonic clock) is an argument. Of a demand that has just begun, what was submitted
counts over the time since then, and over some seconds at least; so its first request asks for what it will need, not
for a share of it. What was used at the most is remembered for minutes, because pools fill in bursts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LATELY = 10.0
"""Seconds over which the rate of late is averaged, and over which what was submitted first counts."""

HALVES = 300.0
"""Seconds in which the rate that was used at the most counts for half."""


@dataclass(slots=True)
class Usage:
    """What one demand submits."""

    since: float
    """When it began."""
    _sum: float = 0.0
    """Bytes, each the less the longer ago it was submitted."""
    _peak: float = 0.0
    _at: float = -math.inf

    def add(self, length: int, now: float) -> None:
        """So many bytes were submitted."""
        self._peak = self.rate(now)
        self._sum = self._sum * math.exp((self._at - now) / LATELY) + length
        self._at = now
        self._peak = max(self._peak, self.lately(now))

    def lately(self, now: float) -> float:
        """Bytes a second of late."""
        observed = max(LATELY, now - self.since)
        return self._sum * math.exp((self._at - now) / LATELY) / (LATELY * -math.expm1(-observed / LATELY))

    def rate(self, now: float) -> float:
        """Bytes a second to ask for: the greatest that was used of late, or longer ago as far as that counts."""
        return max(self.lately(now), self._peak * 2 ** ((self._at - now) / HALVES))
