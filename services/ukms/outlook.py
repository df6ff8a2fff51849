"""When keys will come, where they come more slowly than they are asked for: who waits, and who comes back when.

Nobody is refused while keys come: only once the first of those who wait has waited for long is the supply called
short. Then whoever would wait for longer than `QUEUE` is told when to come back, and keys are kept for him then, and
for nobody else.

Sans-IO: time (`now`, seconds of this node's clock) is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from keyhaul.pressure.promises import Promises

QUEUE = 2.0
"""Seconds that somebody who comes when he was told may expect to wait; others half of it, else they are told a time."""

SOON = 2 * QUEUE
"""Seconds before somebody is to come back, from which on keys are asked for him where their rate is certain."""

SHORT = 2.0
"""Seconds after which keys are called short, if the first who waits has not got his."""

LONGEST = 60.0
"""Seconds after which somebody is told to come back at most; for later than that nothing is kept."""

MEMORY = 5.0
"""Time constant, in seconds, of the rate at which keys come."""

LONGEST_TRIP = 5.0
"""Seconds: a request to the AKMS that takes longer has waited somewhere."""

SATURATED = 0.3
"""Of `QUEUE`: where requests to the AKMS wait for less, more keys may come than are seen to, ..."""

MORE = 1.5
"""... and this many times as many are counted on."""

FIRST_WINDOW = 64.0
"""Keys to have asked for at a time while nothing is known of the rate."""

BELIEVED = 30.0
"""Seconds for which what the AKMS said of a contract's rate is kept to; then it is asked beyond it again."""

LEAST_MEASURED = 0.2
"""Seconds with keys under way from which a rate can be told."""


class Outlook:
    """The supply of one buffer as those who ask find it."""

    def __init__(self) -> None:
        self._promises = Promises()
        self._under_way = False
        self._at = 0.0
        self._time = 0.0
        self._keys = 0.0
        self._window = math.inf
        self._shortest = math.inf
        self._queue = 0.0
        self._limit = math.inf
        self._limited_at = -math.inf
        self._limited_until = -math.inf
        self._spent_at = 0.0

    def look(self, under_way: bool, now: float) -> None:
        """Note whether keys have been asked for that have not come: only then their coming tells a rate."""
        self._pass(now)
        self._under_way = under_way

    def arrived(self, number: int, now: float, trip: float | None = None) -> None:
        """Keys came, `trip` seconds after they were asked for; None: they were not expected any more."""
        self._pass(now)
        self._spent_at += number / self._limit
        if self._under_way:
            self._keys += number
            if trip is not None and self._window < math.inf:
                self._steer(number, trip)

    def rate(self, now: float) -> float | None:
        """Keys a second while some are under way; None while too little was seen."""
        self._pass(now)
        return self._keys / self._time if self._keys and self._time >= LEAST_MEASURED else None

    def limited(self, rate: float, number: int, before: int, retry_after: float, now: float) -> None:
        """The AKMS hands out `rate` keys a second, and `number` at once in `retry_after` seconds.

        `before`: keys that were asked for before those and have not come: the AKMS has counted them.
        """
        self._limit = rate
        self._spent_at = now + retry_after - (number + before) / rate
        self._limited_at = now
        self._limited_until = now + retry_after + SHORT

    def is_limited(self, now: float) -> bool:
        """Whether the AKMS said so of late (a clock that was set back does not make it last)."""
        return now < self._limited_until <= now + LONGEST + SHORT

    def held_back(self, asked: int, number: int, now: float) -> float:
        """Seconds for which the AKMS would refuse `number` keys beside those that were asked for and have not come.

        Who keeps to that goes on knowing the rate without having been refused again, for a while.
        """
        seconds = self._limit_lifts(asked + number, now)
        if seconds > 0:
            believed = min(now + seconds + SHORT, self._limited_at + BELIEVED)
            self._limited_until = max(self._limited_until, believed)
        return seconds

    def queue(self, missing: float, now: float) -> float:
        """Seconds until so many keys will have come for certain; 0 while nothing is known."""
        rate = self.rate(now)
        return max(0.0 if rate is None else missing / rate, self._limit_lifts(missing, now))

    def kept(self, now: float) -> int:
        """Keys that are to be there for those who were told to come back.

        Where the rate is known for certain, the keys of later ones come in time even if they are asked for later.
        """
        return round(self._promises.total(now, now + SOON if self.is_limited(now) else math.inf))

    def kept_now(self, now: float) -> int:
        """Keys at hand that nobody else gets: for those whose time to come back has come."""
        return round(self._promises.total(now, now)) if self._promises else 0

    def short(self, first: float, now: float) -> bool:
        """Whether keys are short; `first`: since when the first waits who does, infinite where nobody does."""
        return now - first >= SHORT or len(self._promises) > 0 or self.is_limited(now)

    def redeem(self, asker: Hashable, number: int, now: float) -> bool:
        """Whether somebody who comes for `number` keys was told to."""
        return self._promises.redeem(asker, number, now)

    def wait(self, number: int, waiting: int, stored: int, now: float, soon: float = math.inf) -> float:
        """Seconds after which `number` keys are there for somebody who comes now.

        Args:
            number: keys.
            waiting: keys that those before him wait for.
            stored: keys at hand.
            now: seconds.
            soon: seconds; what is kept for those who come later than that does not count.
        """
        missing = number + waiting + self._promises.total(now, now + soon) - stored
        if missing <= 0:
            return 0.0
        queue = self.queue(missing, now)
        return queue if self._queue >= SATURATED else max(queue / MORE, self._limit_lifts(missing, now))

    def come_back(self, asker: Hashable, number: int, wait: float, now: float) -> int:
        """Tell somebody to come back for `number` keys: whole seconds (RFC 9110, Retry-After)."""
        seconds = max(1, math.ceil(min(wait, LONGEST)))
        if wait <= LONGEST:
            self._promises.add(asker, number, now + seconds)
        return seconds

    def window(self, now: float) -> float:
        """Keys to have asked for at a time while they are short: more would only wait elsewhere."""
        if self._window == math.inf:
            rate = self.rate(now)
            self._window = FIRST_WINDOW if rate is None else QUEUE * rate
        return max(1.0, min(self._window, QUEUE * self._limit))

    def forget_window(self) -> None:
        """Keys are not short any more."""
        self._window = self._shortest = self._limit = math.inf

    def lost(self) -> None:
        """Keys that were asked for did not come in time."""
        self._window /= 2

    def _limit_lifts(self, number: float, now: float) -> float:
        """Seconds until the AKMS hands so many keys out."""
        return max(0.0, self._spent_at + number / self._limit - now) if self.is_limited(now) else 0.0

    def _steer(self, number: int, trip: float) -> None:
        """Ask for more until requests take `QUEUE` longer than the shortest, for less where they take longer yet."""
        self._shortest = min(self._shortest, trip, LONGEST_TRIP)
        queue = (trip - self._shortest) / QUEUE
        self._queue += (queue - self._queue) / 4
        self._window += number / 2 if queue <= 1 else -number * min(1.0, queue - 1) / 2
        self._window = max(1.0, self._window)

    def _pass(self, now: float) -> None:
        passed = now - self._at
        if passed <= 0:
            return
        if self._under_way:
            fading = math.exp(-passed / MEMORY)
            self._keys *= fading
            self._time = self._time * fading + passed
        self._at = now
