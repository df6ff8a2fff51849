"""Which of the two ends gives a fresh key out by enc_keys: the rule that keeps both from giving out the same one.

The transmitter decides for each key when it is made, from both directions' levels and demand, and the decision
travels with the key. Sans-IO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

MEMORY_SECONDS = 120.0
"""Time constant of the demand seen of late."""
HUNGER_SECONDS = 20.0
"""How long a refusal marks a direction as wanting more than it gets."""
BASE = 64
"""Keys that a direction gets in any case: while it has fewer, ..."""
BASE_SHARE = 8
"""... one in so many keys is for it, whatever the other's demand."""


class Master(IntEnum):
    """Whose enc_keys gives a key out."""

    TRANSMITTER = 0
    RECEIVER = 1

    @property
    def other(self) -> Master:
        """The other end."""
        return Master(1 - self)


@dataclass(slots=True)
class Demand:
    """What one direction's KMS took and asked for, as its end counts it."""

    given: int = 0
    """Keys given out by enc_keys since the end started."""
    refused: int = 0
    """Requests refused since then because there were too few keys."""


@dataclass(slots=True)
class _Direction:
    capacity: int
    demand: Demand
    rate: float = 0.0
    observed_at: float = 0.0
    hungry_until: float = -math.inf


class Allotment:
    """Gives each key to the direction whose level covers its demand for the shorter time."""

    def __init__(self, capacity: int) -> None:
        self._directions = {master: _Direction(capacity, Demand()) for master in Master}
        self._last = Master.RECEIVER
        self._turn = 0

    def restart(self, master: Master, capacity: int, demand: Demand) -> None:
        """The end of that direction is there (again), with its own capacity in keys and counters."""
        direction = self._directions[master]
        direction.capacity = capacity
        direction.demand = demand

    def observe(self, master: Master, demand: Demand, now: float) -> None:
        """Take in a direction's counters."""
        direction = self._directions[master]
        taken = max(0, demand.given - direction.demand.given)
        elapsed = max(0.0, now - direction.observed_at)
        direction.rate = direction.rate * math.exp(-elapsed / MEMORY_SECONDS) + taken / MEMORY_SECONDS
        if demand.refused > direction.demand.refused:
            direction.hungry_until = now + HUNGER_SECONDS
        direction.demand = demand
        direction.observed_at = now

    def allot(self, count: int, levels: dict[Master, int], now: float) -> list[Master]:
        """Decide for `count` keys, given how many keys each direction has to give out now."""
        level = dict(levels)
        weights = self._weights(now)
        decisions: list[Master] = []
        for _ in range(count):
            master = self._next(level, weights)
            level[master] += 1
            self._last = master
            decisions.append(master)
        return decisions

    def _next(self, level: dict[Master, int], weights: dict[Master, float]) -> Master:
        full = [master for master in Master if level[master] >= self._directions[master].capacity]
        if len(full) == 1:
            return full[0].other
        if len(full) == 2:
            return self._last.other
        cover = {master: level[master] / weights[master] for master in Master}
        if cover[Master.TRANSMITTER] == cover[Master.RECEIVER]:
            return self._last.other
        chosen = min(Master, key=lambda master: cover[master])
        if level[chosen.other] < BASE:
            self._turn = (self._turn + 1) % BASE_SHARE
            if self._turn == 0:
                return chosen.other
        return chosen

    def _weights(self, now: float) -> dict[Master, float]:
        """Demand of late, in keys per second; a direction that is refused counts as much as the other at least."""
        rates = {
            master: direction.rate * math.exp(-max(0.0, now - direction.observed_at) / MEMORY_SECONDS)
            for master, direction in self._directions.items()
        }
        least = 0.01 * max(rates.values()) + 1e-6
        most = max(rates.values()) + least
        return {
            master: most if self._directions[master].hungry_until > now else rates[master] + least for master in Master
        }
