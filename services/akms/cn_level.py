"""How many CN bytes to keep ahead of demand, and when to look whether they are there.

Looks come at the instants of a random clock of its own, more often where a pool does not last for long. Sans-IO.
"""

from __future__ import annotations

import math

from keyhaul.config.services import PoolSection
from keyhaul.randomness import Source, fraction
from services.akms.cn_demand import Demand

LOOK_SECONDS = 2.0
"""Mean time between two looks at a pool's level; each is drawn from half as long to half as long again."""

SHORTEST_LOOK_SECONDS = 0.05
"""The mean where so much is used that a pool at its level lasts only a fraction of a second."""

_LOOKS_PER_POOL = 4
"""How many looks there are at least while a pool at its level is used up."""


class Level:
    """The level of one pool: `horizon` seconds of what was used of late, between `minimum` and `maximum`."""

    def __init__(self, settings: PoolSection, source: Source, now: float) -> None:
        self._settings = settings
        self._source = source
        self._demand = Demand()
        self.look_at = now + self._interval(now) if settings.maximum else math.inf
        """When to look next; never where nothing is kept."""

    def use(self, count: int, now: float) -> None:
        """Somebody asks for bytes."""
        self._demand.add(count, now)

    def target(self, now: float) -> int:
        """Bytes to keep."""
        wanted = max(float(self._settings.minimum), self._settings.horizon * self._demand.rate(now))
        return int(min(wanted, float(self._settings.maximum)))

    def due(self, now: float) -> bool:
        """Whether the clock's next instant has come; the one after it is drawn then."""
        if now < self.look_at:
            return False
        self.look_at = now + self._interval(now)
        return True

    def _interval(self, now: float) -> float:
        rate = self._demand.rate(now)
        lasting = self.target(now) / rate if rate else math.inf
        mean = max(SHORTEST_LOOK_SECONDS, min(LOOK_SECONDS, lasting / _LOOKS_PER_POOL))
        return mean * (0.5 + fraction(self._source))
