"""The pools of a simulated link: they fill at the rate of its pair of modules, demands use them up, a cut stops both.

Whoever simulates the same link with the same seed and the same beginning sees the same link, but for when he looks:
so both ends may be simulated in different processes. Sans-IO; time is an argument.
"""

from __future__ import annotations

import random
from typing import Any

from keyhaul.config.carrier import CarrierLink

CHANGES_EVERY = 20.0
"""Seconds in the mean between two changes of what demands use of a direction, and of what the modules yield."""

LONGEST_STEP = 1.0
"""Seconds that are reckoned as one."""

RESERVE = 4_096
"""Bytes of a pool that payload may not use."""

KM_PER_SECOND = 204_000.0
EQUIPMENT_US = 200
"""Of a round trip: what is not fibre."""


class SimulatedLink:
    """One link with the pools of both its directions.

    Args:
        link: as it was planned.
        now: seconds; the simulation begins.
        seed: of what happens on it.
    """

    def __init__(self, link: CarrierLink, now: float, seed: int) -> None:
        self.plan = link
        self.up = True
        self._now = now
        self._chance = random.Random(f"{seed} {link.id}")
        self._capacity = link.capacity // 8
        self._pools = [self._capacity * self._chance.random() for _ in range(2)]
        self._added = [0.0, 0.0]
        self._used = [0.0, 0.0]
        self._rate = float(link.rate)
        self._use = [0.0, 0.0]
        self._next = now
        self._latency = EQUIPMENT_US + round(2e6 * link.km / KM_PER_SECOND)

    def cut(self, now: float, *, cut: bool) -> None:
        """Cut it, or mend it."""
        self._until(now)
        self.up = not cut

    def told(self, end: str, now: float) -> dict[str, Any]:
        """What one end tells of it now, as the YANG module has it."""
        self._until(now)
        plan = self.plan
        outgoing = int(end == plan.b)
        return {
            "neighbour": plan.a if outgoing else plan.b,
            "id": plan.id,
            "up": self.up,
            "enabled": True,
            "quantum": True,
            "suite": plan.suites[0] if self.up else None,
            "suites": plan.suites,
            "rate": int(self._rate),
            "qber": 0.02,
            "latency": self._latency,
            "pool": [self._pool("outgoing", outgoing), self._pool("incoming", 1 - outgoing)],
        }

    def _pool(self, direction: str, number: int) -> dict[str, Any]:
        return {
            "direction": direction,
            "available": int(self._pools[number]),
            "capacity": self._capacity,
            "reserve": RESERVE,
            "bytes-in": int(self._added[number]),
            "bytes-used": int(self._used[number]),
            "bytes-burned": 0,
        }

    def _until(self, now: float) -> None:
        while self._now < now:
            if self._now >= self._next:
                self._change()
            step = min(now, self._next, self._now + LONGEST_STEP) - self._now
            if self.up:
                self._step(step)
            self._now += step

    def _change(self) -> None:
        chance = self._chance
        self._rate = self.plan.rate * (0.9 + 0.1 * chance.random())
        self._use = [chance.random() * self.plan.rate / 16 for _ in range(2)]
        self._next += max(LONGEST_STEP, chance.expovariate(1 / CHANGES_EVERY))

    def _step(self, seconds: float) -> None:
        """One stream of key fills both pools, whichever has room; what has none is thrown away."""
        yielded = seconds * self._rate / 8
        for number in range(2):
            used = min(self._pools[number], seconds * self._use[number])
            self._pools[number] -= used
            self._used[number] += used
        room = [self._capacity - pool for pool in self._pools]
        least = min(min(room), yielded / 2)
        for number in range(2):
            added = min(room[number], least if room[number] <= room[1 - number] else yielded - least)
            self._pools[number] += added
            self._added[number] += added
