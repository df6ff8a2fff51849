"""How much new key material a pair of QKD modules yields, from what one end sees of it.

Sans-IO: time (`now`, seconds of a monotonic clock) is an argument. A module of ETSI GS QKD 014 says how many keys it
has in store, not how fast it makes them: what its store gained and what was taken out of it tell. A store that is full
tells nothing; then what was found before stands. A module that says by itself what it yields is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1

SETTLES = 60.0
"""Seconds over which what was seen is averaged: modules yield keys in bursts that may be many seconds apart."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What a module has in store, and what was taken out of it; bits."""

    stored: int
    taken: int
    """By either end, since the process started."""
    full: bool
    """Whether what is made beside it is thrown away."""


class KeyRate:
    """The rate of one link.

    Args:
        expected: bits per second, by the configuration; counts until something was seen.
        now: seconds.
    """

    def __init__(self, expected: float, now: float) -> None:
        self._rate = expected
        self._before: Stock | None = None
        self._at = now

    @property
    def value(self) -> float:
        """Bits per second."""
        return self._rate

    def seen(self, stock: Stock, now: float) -> None:
        """The module was asked how it stands."""
        before, elapsed = self._before, now - self._at
        if before is not None and elapsed <= 0:
            return
        self._before, self._at = stock, now
        if before is None or stock.full:
            return
        gained = stock.stored - before.stored + stock.taken - before.taken
        # Less than nothing is gained where the module lost its store.
        if gained >= 0:
            self._towards(gained / elapsed, elapsed)

    def told(self, rate: float, now: float) -> None:
        """The module says what it yields, bits per second."""
        self._rate, self._before, self._at = rate, None, now

    def away(self, now: float) -> None:
        """The module does not answer: whoever cannot reach it gets nothing of what it makes."""
        self._towards(0.0, max(0.0, now - self._at))
        self._before, self._at = None, now

    def _towards(self, rate: float, elapsed: float) -> None:
        self._rate -= (rate - self._rate) * expm1(-elapsed / SETTLES)
