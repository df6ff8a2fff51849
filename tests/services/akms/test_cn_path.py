"""What is on its way at a time follows what the carrier brings: full rate, short queues, next to nothing in vain."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from keyhaul.config.services import PoolSection
from services.akms.cn_batch import CHECK_KEY_BYTES
from services.akms.cn_path import FIRST_BATCHES, FIRST_PATIENCE, LEAST_BATCHES, LONGEST_PATIENCE, CnPath
from tests.services.akms.lines import DISTANCE, Line, Rate, line, steady, stocked

SMALL = 512


def press(on: Line, seconds: float, waiting: int, each: float = 0.25) -> None:
    """Somebody always waits for so many bytes more."""
    end = on.now + seconds
    while on.now < end:
        while on.pool.waiting < waiting:
            on.ask(max(64, waiting // 16))
        on.run(on.now + each)


def brought(on: Line, begin: float) -> float:
    """Bytes per second confirmed since then, those of the checks included."""
    return sum(size + CHECK_KEY_BYTES for _, at, size in on.arrived if at >= begin) / (on.now - begin)


def in_vain(on: Line, begin: float) -> float:
    """The share of what was sent since then that did not arrive in time."""
    sent = sum(size for at, size in on.sent if at >= begin)
    pending = on.pool.in_flight
    return 1 - (sum(size for made, _, size in on.arrived if made >= begin) + pending) / sent


@pytest.mark.parametrize("hops", [1, 3])
@pytest.mark.parametrize("rate", [250.0, 2_500.0, 25_000.0, 250_000.0])
def test_a_slow_path_is_used_whole_and_nothing_is_sent_in_vain(rate: float, hops: int) -> None:
    path = line(*[steady(rate)] * hops)
    press(path, 40.0, int(max(4_096, 3 * rate)))
    begin = path.now
    press(path, max(60.0, 25_000 / rate), int(max(4_096, 3 * rate)))
    assert brought(path, begin) > 0.97 * rate
    assert in_vain(path, begin) < 0.01
    idle = hops * ((SMALL + CHECK_KEY_BYTES) / rate + DISTANCE)
    queues = sorted(at - made for made, at, _ in path.arrived if made >= begin)
    assert queues[len(queues) // 2] < 2 * idle + 1.5


def test_a_path_that_slows_down_wastes_little_and_recovers() -> None:
    """A link's stock of pad is used up, and then only what its modules make is there."""
    path = line(stocked(200_000, 2_500.0), stocked(1e9, 1.0))
    press(path, 30.0, 16_384)
    assert sum(size for _, size in path.wasted) <= 16_384
    begin = path.now
    press(path, 120.0, 16_384)
    assert brought(path, begin) > 0.97 * 2_500
    assert in_vain(path, begin) < 0.01


def test_a_path_that_becomes_fast_is_used_whole() -> None:
    rate: Callable[[float], Rate] = lambda switch: lambda now: 2_500.0 if now < switch else 250_000.0  # noqa: E731
    path = line(rate(60.0))
    press(path, 90.0, 500_000)
    begin = path.now
    press(path, 30.0, 500_000)
    assert brought(path, begin) > 0.9 * 250_000


def test_a_fast_path_is_not_slowed() -> None:
    """A first request goes at once, and eight batches with it; a pool is full after a few round trips."""
    path = line(steady(1e8), steady(1e8))
    path.ask(32)
    assert path.sent[0] == (0.0, SMALL)
    path.run(1.0)
    assert path.served[0][1] < 0.021
    greedy = line(steady(1e8), steady(1e8))
    greedy.ask(FIRST_BATCHES * SMALL)
    assert [at for at, _ in greedy.sent] == [0.0] * FIRST_BATCHES
    greedy.ask(131_072)
    greedy.run(1.0)
    assert max(done for _, done in greedy.served) < 0.2


def test_a_path_as_slow_as_a_batch_in_many_seconds_works() -> None:
    """Patience grows until a batch arrives within it."""
    path = line(steady(60.0), settings=PoolSection(minimum=0, maximum=0))
    press(path, 600.0, 512)
    begin = path.now
    press(path, 600.0, 512)
    assert brought(path, begin) > 0.9 * 60
    assert in_vain(path, begin) < 0.01


def test_patience_follows_the_round_trips() -> None:
    path = CnPath([SMALL])
    assert path.patience == FIRST_PATIENCE
    for number in range(40):
        path.sent(str(number), SMALL, float(number))
        path.confirmed(str(number), number + 0.02)
    assert 3.0 < path.patience < 3.1
    for number in range(40, 80):
        path.sent(str(number), SMALL, number * 10.0)
        path.confirmed(str(number), number * 10.0 + 4.0)
    assert 6.9 < path.patience < 7.1
    before = path.patience
    path.sent("lost", SMALL, 1000.0)
    assert path.late(1000.0 + before - 0.1) == []
    assert path.late(1000.0 + before) == ["lost"]
    path.miss("lost", 1000.0 + before)
    assert path.patience == pytest.approx(2 * before)
    for number in itertools.count(80):
        if path.patience == LONGEST_PATIENCE:
            break
        path.sent(str(number), SMALL, number * 1e3)
        path.miss(str(number), number * 1e3 + path.patience)


def test_what_was_on_its_way_together_is_lost_once() -> None:
    path = CnPath([SMALL])
    for number in range(FIRST_BATCHES):
        path.sent(str(number), SMALL, 0.0)
    assert not path.open(0.0)
    assert [path.miss(str(number), 0.1) for number in range(FIRST_BATCHES)] == [True] + [False] * (FIRST_BATCHES - 1)
    assert room(path, 0.1) == FIRST_BATCHES // 2
    for number in range(20, 40):
        path.sent(str(number), SMALL, number)
        path.miss(str(number), number + 0.1)
    assert room(path, 50.0) == LEAST_BATCHES


def room(path: CnPath, now: float) -> int:
    """How many batches may be sent; they are not."""
    names: list[str] = []
    while path.open(now):
        names.append(f"tried {len(names)}")
        path.sent(names[-1], SMALL, now)
    for name in names:
        path.forget(name)
    return len(names)


def test_a_window_that_is_not_filled_goes_back() -> None:
    path = CnPath([SMALL, 4_096])
    now = 0.0
    for round_trip in range(6):
        names: list[str] = []
        while path.open(now):
            names.append(f"{round_trip}-{len(names)}")
            path.sent(names[-1], SMALL, now)
        now += 0.02
        for name in names:
            path.confirmed(name, now)
    assert path.largest > 4_096
    path.open(now + 2.0)
    assert path.largest > 4_096
    assert room(path, now + 60.0) == FIRST_BATCHES
