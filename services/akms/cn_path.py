"""How much of one pool may be on its way over the carrier at a time, and how long to wait for news of it.

The window, in bytes, is that of congestion control. It is led to where round trips are `QUEUE_SECONDS` longer than the
shortest (as in RFC 6817): while they are shorter it grows, up to twofold a round trip, and it shrinks where they are
longer. A loss halves it, once for all that was on its way; from there it grows slowly (as in RFC 5681). A window that
was not filled for a while goes back to where it began (as in RFC 7661).

The patience with a batch follows the round trips (as in RFC 6298) and what is on its way before it; what arrives
renews the patience with all that was sent after it. A batch with which patience is at its end is *missed*: others may
go in its place, and if it arrives after all, it counts. Sans-IO: time is an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from services.akms.cn_demand import Demand

FIRST_BATCHES = 8
"""Batches of the smallest size that may be on their way over a carrier of which nothing is known."""

LEAST_BATCHES = 2
"""Batches of the smallest size that always may: one arrives while the next is on its way."""

BATCHES_IN_WINDOW = 2
"""A window has room for at least so many batches of any greater size: fewer batches need fewer tags and checks."""

MOST_HOPS = 16
"""So many hops of a path may be as slow as the slowest."""

QUEUE_SECONDS = 1.25
"""How much longer than the shortest a round trip may be, or half as long again where that is more."""

FIRST_PATIENCE = 5.0
"""Seconds after which a batch is missed while no round trip is known. Nodes on the way always try for so long."""

LEAST_MARGIN = 3.0
"""Seconds for which a batch may be later than expected, at least."""

LONGEST_PATIENCE = 55.0
_SHORTEST_TRIP = 0.001
_MOST_DOUBLINGS = 6
_CAREFUL = 16
_UNUSED_SECONDS = 3.0
_GREATEST_WINDOW = 1_048_576
_GREATEST_BATCHES = 64


@dataclass(slots=True)
class _Flight:
    size: int
    at: float
    ahead: int
    """Bytes on their way when it was sent, its own included."""
    due: float
    """When patience with it ends."""


class CnPath:
    """What is on its way of one pool's batches."""

    def __init__(self, sizes: list[int]) -> None:
        """`sizes`: of batches, in bytes of CN key, ascending."""
        self._smallest = sizes[0]
        self._least = float(LEAST_BATCHES * sizes[0])
        self._first = float(FIRST_BATCHES * sizes[0])
        self._greatest = max(self._first, float(min(_GREATEST_WINDOW, _GREATEST_BATCHES * sizes[-1])))
        self._window = self._first
        self._threshold = math.inf
        self._filled_at = -math.inf
        self._cut_at = -math.inf
        self._flights: dict[str, _Flight] = {}
        self._missed: dict[str, _Flight] = {}
        self._in_flight = 0
        self._shortest = math.inf
        self._smoothed = 0.0
        self._variation = 0.0
        self._pace = 0.0
        self._doublings = 0
        self._came = Demand()
        self._came_at = -math.inf

    @property
    def in_flight(self) -> int:
        """Bytes on their way, without what is missed."""
        return self._in_flight

    def open(self, now: float) -> bool:
        """Whether another batch may be sent now."""
        while self._window > self._first and now - self._filled_at > _UNUSED_SECONDS:
            self._window = max(self._first, self._window / 2)
            self._filled_at += _UNUSED_SECONDS
        return self._in_flight < int(self._window)

    @property
    def largest(self) -> int:
        """Bytes of the greatest batch that is right now: several are on their way, and none adds much to a round trip.

        A batch twice as long takes at most twice as long, and at most what each of `MOST_HOPS` as slow as all takes.
        Where nothing is known, one begins with the smallest.
        """
        if not self._smoothed:
            return self._smallest
        added = self._queue / 2
        bound = max(self._smallest * (1 + added / self._shortest), added / (MOST_HOPS * self._pace))
        return int(min(self._window / BATCHES_IN_WINDOW, bound))

    @property
    def patience(self) -> float:
        """Seconds after which the batch that was sent last, after all that is on its way, counts as missed."""
        usual = FIRST_PATIENCE
        if self._smoothed:
            usual = max(self._smoothed, self._pace * self._in_flight) + self._margin
        return min(LONGEST_PATIENCE, usual * 2.0**self._doublings)

    def sent(self, name: str, size: int, now: float) -> None:
        """A batch goes on its way."""
        self._in_flight += size
        self._flights[name] = _Flight(size, now, self._in_flight, now + self.patience)
        if self._in_flight >= self._window / 2:
            self._filled_at = now

    def confirmed(self, name: str, now: float) -> None:
        """A batch arrived, be it missed or not."""
        in_flight = self._in_flight
        flight = self._land(name) or self._missed.pop(name, None)
        if flight is None:
            return
        self._came.add(flight.size, now)
        self._came_at = now
        trip = max(_SHORTEST_TRIP, now - flight.at)
        self._measure(trip, trip / flight.ahead)
        for later in self._flights.values():
            if later.at >= flight.at:
                later.due = max(later.due, now + self._margin)
        growth = max(-0.5, 1 - (trip - self._shortest) / self._queue)
        if growth > 0 and self._window >= self._threshold:
            growth /= _CAREFUL
        if growth < 0 or in_flight >= self._window / 2:
            self._resize(flight.size * growth)

    def rate(self, now: float) -> float:
        """Bytes that come per second of late; 0 where none came for longer than one would wait for a batch."""
        return self._came.rate(now) if now - self._came_at <= self.patience else 0.0

    def miss(self, name: str, now: float) -> bool:
        """A batch failed, or patience with it ends; whether this is news: the first of what was on its way."""
        flight = self._land(name)
        if flight is None:
            return False
        self._missed[name] = flight
        if flight.at < self._cut_at:
            return False
        self._cut_at = now
        self._resize(-self._window / 2)
        self._threshold = self._window
        if flight.due <= now:
            self._doublings = min(self._doublings + 1, _MOST_DOUBLINGS)
        return True

    def forget(self, name: str) -> None:
        """A batch was burned; that says nothing about the carrier."""
        self._land(name)
        self._missed.pop(name, None)

    def waits_for(self, name: str) -> bool:
        """Whether a batch is on its way: there is no news of it, and patience with it is not at its end."""
        return name in self._flights

    @property
    def on_their_way(self) -> list[str]:
        """All such batches."""
        return list(self._flights)

    def late(self, now: float) -> list[str]:
        """Batches with which patience is at its end."""
        return [name for name, flight in self._flights.items() if flight.due <= now]

    def useful(self, name: str, now: float) -> float:
        """Seconds for which nodes on the way should try to bring a batch; 0 where it is not on its way."""
        flight = self._flights.get(name)
        return 0.0 if flight is None else max(0.0, max(flight.due, flight.at + FIRST_PATIENCE) - now)

    def next_due(self) -> float:
        """When patience with some batch ends; infinite where none is on its way."""
        return min((flight.due for flight in self._flights.values()), default=math.inf)

    @property
    def _queue(self) -> float:
        return max(QUEUE_SECONDS, self._shortest / 2)

    @property
    def _margin(self) -> float:
        """Seconds to wait beyond the time at which a batch is expected."""
        return max(LEAST_MARGIN, 1.5 * self._shortest, 4 * self._variation)

    def _land(self, name: str) -> _Flight | None:
        flight = self._flights.pop(name, None)
        if flight is not None:
            self._in_flight -= flight.size
        return flight

    def _measure(self, trip: float, pace: float) -> None:
        """Take in a round trip, and its seconds per byte that was on its way when it began."""
        self._doublings = 0
        self._shortest = min(self._shortest, trip)
        if not self._smoothed:
            self._smoothed, self._variation, self._pace = trip, trip / 2, pace
            return
        self._variation += (abs(trip - self._smoothed) - self._variation) / 4
        self._smoothed += (trip - self._smoothed) / 8
        self._pace += (pace - self._pace) / 8

    def _resize(self, change: float) -> None:
        self._window = min(self._greatest, max(self._least, self._window + change))
