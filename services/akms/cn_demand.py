"""How many bytes of CN key are used, or come, of late. Sans-IO: time is an argument."""

from __future__ import annotations

import math

_DEMAND_SECONDS = 8.0


class Demand:
    """Bytes per second of late: an exponentially weighted average."""

    def __init__(self) -> None:
        self._weighted = 0.0
        self._since = 0.0

    def add(self, count: int, now: float) -> None:
        """Count bytes."""
        self._weighted = self._decayed(now) + count
        self._since = now

    def rate(self, now: float) -> float:
        """Bytes per second."""
        return self._decayed(now) / _DEMAND_SECONDS

    def _decayed(self, now: float) -> float:
        return self._weighted * math.exp(-max(0.0, now - self._since) / _DEMAND_SECONDS)
