"""Promises to those who were told to come back at a certain time.

Nobody has to say who he is: who comes for as much as was promised for this time takes the promise up. One that nobody
takes up lapses some seconds after it was due. Sans-IO.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from itertools import count

GRACE = 3.0
"""Seconds after its time for which a promise is kept."""

EARLY = 0.001
"""Seconds by which somebody may come too early: times are told in whole milliseconds or seconds."""

MAXIMUM = 1024
"""Promises at a time; who comes on top is told a time, but nothing is kept for him."""


class Promises:
    """Amounts that are kept for people who will come."""

    def __init__(self, grace: float = GRACE) -> None:
        """Keep each promise for `grace` seconds after it was due."""
        self._grace = grace
        self._due: list[tuple[float, int, float]] = []
        self._number = count()
        self._total = 0.0

    def __len__(self) -> int:
        """How many stand."""
        return len(self._due)

    def add(self, amount: float, due: float) -> None:
        """Promise an amount for a time."""
        if len(self._due) < MAXIMUM:
            insort(self._due, (due, next(self._number), amount))
            self._total += amount

    def redeem(self, amount: float, now: float) -> bool:
        """Somebody came for an amount: whether as much was promised for this time or before."""
        self._lapse(now)
        for place, (due, _, promised) in enumerate(self._due):
            if due > now + EARLY:
                return False
            if promised == amount:
                del self._due[place]
                self._total -= amount
                return True
        return False

    def total(self, now: float, until: float = math.inf) -> float:
        """All that is promised, for `until` or before, and not taken up."""
        self._lapse(now)
        if until == math.inf:
            return self._total
        return sum(amount for due, _, amount in self._due if due <= until)

    def _lapse(self, now: float) -> None:
        lapsed = bisect_left(self._due, (now - self._grace, -1, 0.0))
        if lapsed:
            self._total -= sum(amount for _, _, amount in self._due[:lapsed])
            del self._due[:lapsed]
        if not self._due:
            self._total = 0.0
