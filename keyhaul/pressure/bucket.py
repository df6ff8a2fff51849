"""Token buckets: so much a second on average, so much at once.

Sans-IO: time (`now`, seconds of a monotonic clock) is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from keyhaul.pressure.promises import EARLY, GRACE, MAXIMUM

LONGEST_WAIT = 60.0
"""Seconds: for later than this nothing is promised."""


class TokenBucket:
    """A bucket that fills at `rate` tokens a second up to `burst`.

    More than a burst at once is taken from a full bucket and leaves a debt, so that on average the rate holds for
    amounts of any size.
    """

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Start full. `rate` and `burst` are more than 0."""
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self._rate

    @property
    def burst(self) -> float:
        """Tokens at most."""
        return self._burst

    def change(self, rate: float, burst: float, now: float) -> None:
        """Go on at another rate and burst; what is in the bucket stays, as far as it fits."""
        self._fill(now)
        self._rate, self._burst = rate, burst
        self._tokens = min(self._tokens, burst)

    def wait(self, amount: float, now: float, kept: float = 0.0) -> float:
        """Seconds until `amount` can be taken; 0: now. `kept` tokens are somebody else's."""
        self._fill(now)
        short = min(amount, self._burst) - (self._tokens - kept)
        # Less than a millionth is rounding, not want.
        return short / self._rate if short > 1e-6 * self._burst else 0.0

    def take(self, amount: float, now: float) -> bool:
        """Take an amount if it is there."""
        if self.wait(amount, now):
            return False
        self._tokens -= amount
        return True

    def give_back(self, amount: float) -> None:
        """What was taken was not used."""
        self._tokens = min(self._burst, self._tokens + amount)

    def _fill(self, now: float) -> None:
        passed = max(0.0, now - self._at)
        self._tokens = min(self._burst, self._tokens + passed * self._rate)
        self._at = max(self._at, now)


class Meter:
    """A token bucket that tells those whom it refuses when to come back, and keeps that for them.

    All who come back as they were told find what they came for; who comes in between waits behind them. Each holder
    has one promise at a time, and asks for as much again: what it asks for meanwhile is for the same time.
    """

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """As `TokenBucket`."""
        self._bucket = TokenBucket(rate, burst, now)
        self._promised: dict[Hashable, tuple[float, float]] = {}

    def agree(self, rate: float, burst: float, now: float) -> None:
        """Go on at this rate and burst."""
        if (rate, burst) != (self._bucket.rate, self._bucket.burst):
            self._bucket.change(rate, burst, now)

    def take(self, holder: Hashable, amount: float, now: float) -> float:
        """Take an amount: 0, or in how many seconds it will be there for this holder."""
        self._promised = {one: promise for one, promise in self._promised.items() if promise[0] + GRACE > now}
        wanted = min(amount, self._bucket.burst)
        due, promised = self._promised.get(holder, (math.inf, 0.0))
        comes_as_told = due <= now + EARLY and wanted <= promised
        before = due if comes_as_told else math.inf
        kept = sum(kept for one, (time, kept) in self._promised.items() if one != holder and time < before)
        wait = self._bucket.wait(amount, now, kept)
        if not wait or (comes_as_told and wait <= EARLY):
            self._promised.pop(holder, None)
            self._bucket.take(amount, now + wait)
            return 0.0
        if now + EARLY < due < math.inf and wanted <= promised:
            return due - now
        if wait <= LONGEST_WAIT and (holder in self._promised or len(self._promised) < MAXIMUM):
            self._promised[holder] = now + wait, wanted
        return min(wait, LONGEST_WAIT)

    def give_back(self, amount: float) -> None:
        """What was taken was not used."""
        self._bucket.give_back(amount)
