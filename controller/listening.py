"""A clock for the age of what nodes told: it counts only the time in which the controller listened.

A controller that was frozen, or has more to do than it can, hears late what nodes told in time. Were that their
silence, it would give them up, dial them again and ask them what they have, and so have still more to do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

TURN = 0.5
"""Seconds that count at most of one turn of the loop."""

MARK = 0.1
"""Seconds between two marks; a turn of the loop that is longer is what lies between two."""

LOOK = 10.0
"""Seconds after which it is seen how much was missed."""

BUSY = 0.5
"""Part of the time that did not count, from which on the controller is overloaded."""


class Listening:
    """The clock. Call it for its time in seconds; `run` keeps it going.

    Args:
        overloaded: told of the part of the time, up to 1, that did not count, if it is `BUSY` or more.
        clock: seconds, monotonic.
    """

    def __init__(self, overloaded: Callable[[float], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._overloaded = overloaded
        self._clock = clock
        self._mark = self._time = self._begin = clock()
        self.missed = self._missed_before = 0.0
        """Seconds that did not count, up to the last mark."""

    def __call__(self) -> float:
        """Seconds."""
        return self._time + min(self._clock() - self._mark, TURN)

    def mark(self) -> None:
        """Another turn of the loop has come."""
        now = self._clock()
        passed = now - self._mark
        counted = min(passed, TURN)
        self._mark = now
        self._time += counted
        self.missed += passed - counted
        if now - self._begin >= LOOK:
            part = (self.missed - self._missed_before) / (now - self._begin)
            self._begin, self._missed_before = now, self.missed
            if part >= BUSY:
                self._overloaded(part)

    async def run(self) -> None:
        """Mark the turns of the loop until cancelled."""
        while True:
            await asyncio.sleep(MARK)
            self.mark()
