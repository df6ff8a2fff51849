"""The statistics find what is there, and not what is not."""

from __future__ import annotations

import random

from tests.privacy.statistic import chance, compare, correlation


def test_equal_samples_are_not_told_apart() -> None:
    apart = 0
    for seed in range(200):
        generator = random.Random(seed)
        apart += compare(*([generator.expovariate(1) for _ in range(100)] for _ in range(2))).apart
    assert apart == 0


def test_a_slower_answer_is_told_apart() -> None:
    generator = random.Random(1)
    first = [generator.gauss(10, 1) for _ in range(100)]
    assert compare([value + 1 for value in first], first).apart
    assert compare(first, [value + 1 for value in first]).share < 0.3


def test_ties_are_no_difference() -> None:
    same = compare([1.0] * 50, [1.0] * 50)
    assert same.share == 0.5
    assert not same.apart


def test_what_follows_correlates_and_what_does_not_does_not() -> None:
    generator = random.Random(2)
    times, now = [], 0.0
    for _ in range(200):
        now += generator.choice((0.005, 0.01, 0.4))
        times.append(now)
    assert correlation(times, [time + 0.05 for time in times], 0, now) > 0.5
    assert correlation(times, [time + 0.15 for time in times[::3]], 0, now) > 0.5
    strangers = [generator.uniform(0, now) for _ in range(100)]
    assert abs(correlation(times, strangers, 0, now)) < 0.35


def test_what_follows_does_so_by_no_chance() -> None:
    generator = random.Random(3)
    times, now = [], 0.0
    for _ in range(200):
        now += generator.choice((0.005, 0.01, 0.4))
        times.append(now)
    assert chance(times, [time + 0.1 for time in times[::4]], 0, now, generator) < 0.05
    found = [chance(times, [generator.uniform(0, now) for _ in range(25)], 0, now, generator) for _ in range(20)]
    assert 0.2 < sum(found) / len(found) < 0.8
