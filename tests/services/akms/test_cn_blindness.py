"""Refills of a warm pool do not show when somebody asked: neither each refill nor all of them together.

The residue: where somebody waits, because the pool is cold or drained, relays follow at once; and over hours the rate
of refills follows the rate of use, of which a look sees the last seconds' a little more.
"""

from __future__ import annotations

import bisect
import random
from dataclasses import dataclass

import pytest

from keyhaul.config.services import PoolSection
from services.akms.cn_batch import CnBatch
from services.akms.cn_level import LOOK_SECONDS
from services.akms.cn_pool import MakerPool
from tests.privacy.statistic import chance, compare, correlation
from tests.services.akms.lines import Line, steady

WARM = 20.0
SECONDS = 300.0


class AtOnce(MakerPool):
    """A pool that is refilled by whichever request lowers it too far."""

    def plan(self, now: float) -> list[CnBatch]:
        lacking = self.target(now) - self._ahead()
        return super().plan(now) or self._fill(lacking if lacking >= self.target(now) / 4 else 0, now)

    def look(self, now: float) -> list[CnBatch]:
        super().look(now)
        return []


@dataclass
class Seen:
    """What a carrier node sees of a user."""

    asked: list[float]
    relayed: list[float]
    sizes: set[int]
    waited: int

    @property
    def since(self) -> list[float]:
        """How long before each refill somebody had asked."""
        return [self.since_asked(at) for at in self.relayed]

    def since_asked(self, at: float) -> float:
        """How long before a time somebody had asked."""
        return at - self.asked[max(0, bisect.bisect_right(self.asked, at) - 1)]


def watched(kind: type[MakerPool], seed: int, count: int) -> Seen:
    """Requests in bursts, after a time in which the pool becomes warm."""
    generator = random.Random(seed)
    path = Line([steady(1e6)], kind("silver", PoolSection(), generator.randbytes, 0.0))
    asked = []
    while path.now < WARM + SECONDS:
        path.run(path.now + generator.choice((0.005, 0.01, 0.01, 0.4)))
        asked.append(path.now)
        path.ask(count)
    relayed = sorted({at for at, _ in path.sent if at >= WARM})
    sizes = {size for _, size in path.sent}
    waited = sum(at >= WARM for at in path.waited)
    return Seen([at for at in asked if at >= WARM], relayed, sizes, waited)


def strangers(seen: Seen, generator: random.Random) -> list[float]:
    """How long before other times, drawn evenly, somebody had asked."""
    return [seen.since_asked(generator.uniform(WARM, WARM + SECONDS)) for _ in range(2000)]


@pytest.mark.parametrize("count", [32, 256])
def test_refills_of_a_warm_pool_show_no_request(count: int) -> None:
    generator = random.Random(2)
    chances = []
    for seed in range(1, 7):
        seen = watched(MakerPool, seed, count)
        assert len(seen.relayed) > 100
        assert seen.waited < len(seen.asked) / 200
        assert seen.sizes <= set(PoolSection().batches)
        assert abs(compare(seen.since, strangers(seen, generator)).z) < 3
        assert correlation(seen.asked, seen.relayed, WARM, WARM + SECONDS) < 0.1
        chances.append(chance(seen.asked, seen.relayed, WARM, WARM + SECONDS, generator))
    assert sum(chances) / len(chances) > 0.1


@pytest.mark.parametrize("count", [32, 256])
def test_refills_at_once_would_be_noticed(count: int) -> None:
    generator = random.Random(2)
    seen = watched(AtOnce, 1, count)
    assert compare(seen.since, strangers(seen, generator)).z < -8
    assert correlation(seen.asked, seen.relayed, WARM, WARM + SECONDS) > 0.12
    assert chance(seen.asked, seen.relayed, WARM, WARM + SECONDS, generator) == 0


def test_instants_do_not_depend_on_requests() -> None:
    """With the same random numbers a pool looks at the same instants, whoever asks when."""
    instants = []
    for gap in (0.013, 0.31):
        clock = random.Random(3)
        bits = random.Random(4)
        # The clock draws seven bytes at a time, nothing else does.
        source = lambda n, clock=clock, bits=bits: (clock if n == 7 else bits).randbytes(n)  # noqa: E731
        pool = MakerPool("silver", PoolSection(), source, 0.0)
        looks: list[float] = []
        now, asked = 0.0, 0.0
        while now < 60.0:
            due = pool.wake_at(now)
            if due <= asked:
                now = due
                looks.append(now)
                for batch in pool.look(now):
                    pool.confirm(batch.name, batch.check, now)
            else:
                now = asked
                asked += gap
                pool.forget(pool.ask(2, now))
                assert not pool.plan(now)
        instants.append(looks)
    assert instants[0] == instants[1]
    gaps = [second - first for first, second in zip(instants[0], instants[0][1:], strict=False)]
    assert min(gaps) >= LOOK_SECONDS / 2
    assert max(gaps) <= 1.5 * LOOK_SECONDS
    assert len({round(gap, 6) for gap in gaps}) == len(gaps)


def test_a_request_that_the_pool_can_serve_causes_nothing() -> None:
    path = Line([steady(1e6)], MakerPool("gold", PoolSection(), random.Random(5).randbytes, 0.0))
    path.ask(32)
    path.run(0.05)
    before = len(path.sent)
    look_at = path.pool.wake_at(path.now)
    while path.pool.available > 64:
        path.ask(64)
        assert len(path.sent) == before
    path.run(look_at)
    assert len(path.sent) == before
    path.run(look_at + 0.05)
    assert len(path.sent) > before
    warm = len(path.sent)
    path.ask(path.pool.available + 1)
    assert len(path.sent) > warm
