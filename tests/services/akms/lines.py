"""A pool of CN bits over a simulated carrier: hops that bring so many bytes a second, one batch after the other."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from keyhaul.config.services import PoolSection
from services.akms.cn_batch import CnBatch
from services.akms.cn_pool import MakerPool

DISTANCE = 0.01
"""Seconds that a hop takes beyond what its rate says."""

TAG_BYTES = 16
"""Bytes of pad that a hop uses for a batch beside its bits."""

Rate = Callable[[float], float]
"""Bytes per second at a time."""


def steady(rate: float) -> Rate:
    return lambda now: rate


def stocked(stock: float, rate: float) -> Rate:
    """A link that has a stock of pad and then only what its modules make."""
    spent = [0.0]

    def at(now: float) -> float:
        spent[0] += 1
        return 1e9 if spent[0] * 544 < stock else rate

    return at


@dataclass
class Line:
    """One pool, whose batches go hop by hop; each is dropped where it would come too late."""

    hops: list[Rate]
    pool: MakerPool
    losses: Callable[[float], bool] = lambda now: False
    """Whether what is sent at a time is lost at the far end, and news of it comes back."""
    silence: Callable[[float], bool] = lambda now: False
    """Whether what would arrive at a time is lost, and nobody hears of it."""
    now: float = 0.0
    sent: list[tuple[float, int]] = field(default_factory=list)
    """When each batch was sent, and its bytes of CN key."""
    arrived: list[tuple[float, float, int]] = field(default_factory=list)
    """When each batch was sent and confirmed, and its bytes."""
    wasted: list[tuple[float, int]] = field(default_factory=list)
    """What went over a hop and was of no use: when it was sent, and its bytes."""
    served: list[tuple[float, float]] = field(default_factory=list)
    """When bits were asked for and handed out."""
    waited: list[float] = field(default_factory=list)
    """When bits were asked for that the pool did not have."""
    _free: list[float] = field(default_factory=list)
    _events: list[tuple[float, int, CnBatch, bool]] = field(default_factory=list)
    _asked: dict[int, float] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        self._free = [0.0] * len(self.hops)

    def ask(self, count: int) -> None:
        """Ask for bytes now."""
        ticket = self.pool.ask(count, self.now)
        self._asked[ticket] = self.now
        self._serve()
        if ticket in self._asked:
            self.waited.append(self.now)
        self._send(self.pool.plan(self.now))

    def doubt(self) -> None:
        """The peer's connection is gone."""
        self.pool.doubt(self.now)
        self._send(self.pool.plan(self.now))

    def run(self, until: float) -> None:
        """Let time pass."""
        while (at := min(self.pool.wake_at(self.now), self._events[0][0] if self._events else until)) < until:
            self.now = max(self.now, at)
            if self._events and self._events[0][0] <= self.now:
                _, _, batch, arrived = heapq.heappop(self._events)
                self._news(batch, arrived)
            self.pool.expire(self.now)
            self._send(self.pool.look(self.now))
            self._serve()
            self._send(self.pool.plan(self.now))
        self.now = until

    def _news(self, batch: CnBatch, arrived: bool) -> None:
        if not arrived:
            self.pool.failed(batch.name, self.now)
        elif self.pool.confirm(batch.name, batch.check, self.now):
            self.arrived.append((batch.made, self.now, batch.usable))
        else:
            self.wasted.append((batch.made, batch.usable))

    def _serve(self) -> None:
        for ticket, _ in self.pool.serve(self.now):
            self.served.append((self._asked.pop(ticket), self.now))

    def _send(self, batches: list[CnBatch]) -> None:
        for batch in batches:
            self.sent.append((self.now, batch.usable))
            deadline = self.now + self.pool.useful(batch.name, self.now)
            at, arrived = self.now, not self.losses(self.now)
            for number, rate in enumerate(self.hops):
                begin = max(at, self._free[number])
                end = begin + (len(batch.bits) + TAG_BYTES) / rate(begin)
                if end + DISTANCE > deadline:
                    if number:
                        self.wasted.append((self.now, batch.usable))
                    at, arrived = deadline, False
                    break
                self._free[number], at = end, end + DISTANCE
            if arrived and self.silence(at):
                continue
            self._count += 1
            heapq.heappush(self._events, (at, self._count, batch, arrived))


def line(*hops: Rate, settings: PoolSection | None = None, seed: int = 1) -> Line:
    source = random.Random(seed).randbytes
    return Line(list(hops), MakerPool("gold", settings or PoolSection(), source, 0.0))
