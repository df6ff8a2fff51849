"""Promises to those who were told to come back at a certain time.

A promise is its holder's: nobody else takes it up, however early or late either comes. A holder may have several, but
never more than are left free, so that one who heeds no time leaves room for others. One that nobody takes up lapses
some seconds after it was due. Sans-IO.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Hashable
from itertools import count

from keyhaul.pressure.fair import Shares

GRACE = 3.0
"""Seconds after its time for which a promise is kept."""

EARLY = 0.001
"""Seconds by which somebody may come too early: times are told in whole milliseconds or seconds."""

MAXIMUM = 1024
"""Promises at a time; who comes on top is told a time, but nothing is kept for him."""

_Promise = tuple[float, int, float, Hashable]
"""When it is due, its number, the amount, whose it is."""


class Promises:
    """Amounts that are kept for those who will come."""

    def __init__(self, grace: float = GRACE) -> None:
        """Keep each promise for `grace` seconds after it was due."""
        self._grace = grace
        self._due: list[_Promise] = []
        self._shares = Shares(MAXIMUM)
        self._number = count()
        self._total = 0.0

    def __len__(self) -> int:
        """How many stand."""
        return len(self._due)

    def add(self, holder: Hashable, amount: float, due: float) -> None:
        """Promise a holder an amount for a time."""
        if self._shares.take(holder):
            insort(self._due, (due, next(self._number), amount, holder))
            self._total += amount

    def redeem(self, holder: Hashable, amount: float, now: float) -> bool:
        """A holder came for an amount: whether as much was promised to him for this time or before."""
        self._lapse(now)
        for place, (due, _, promised, one) in enumerate(self._due):
            if due > now + EARLY:
                return False
            if one == holder and promised == amount:
                del self._due[place]
                self._ended(promised, one)
                return True
        return False

    def total(self, now: float, until: float = math.inf) -> float:
        """All that is promised, for `until` or before, and not taken up."""
        self._lapse(now)
        if until == math.inf:
            return self._total
        return sum(amount for _, _, amount, _ in self._due[: self._place(until)])

    def _lapse(self, now: float) -> None:
        if not self._due or self._due[0][0] >= now - self._grace:
            return
        lapsed = self._place(now - self._grace)
        for _, _, amount, holder in self._due[:lapsed]:
            self._ended(amount, holder)
        del self._due[:lapsed]

    def _place(self, until: float) -> int:
        """How many are due at a time or before."""
        return bisect_right(self._due, until, key=lambda promise: promise[0])

    def _ended(self, amount: float, holder: Hashable) -> None:
        self._total -= amount
        self._shares.give_back(holder)
        if not self._shares.held:
            self._total = 0.0
