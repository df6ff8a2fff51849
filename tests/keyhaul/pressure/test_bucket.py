"""Token buckets hold a rate, and the times at which they tell to come back are right."""

from __future__ import annotations

import random
from heapq import heappop, heappush
from itertools import pairwise

import pytest

from keyhaul.pressure.bucket import LONGEST_WAIT, Meter, TokenBucket
from keyhaul.pressure.promises import GRACE, MAXIMUM


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(10.0, 5.0, 0.0)
    assert [bucket.take(1, 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert bucket.wait(1, 0.0) == pytest.approx(0.1)
    assert bucket.take(1, 0.1)
    taken = sum(bucket.take(1, 0.1 + step / 100) for step in range(1000))
    assert 98 <= taken <= 101


def test_more_than_a_burst_waits_for_a_full_bucket_and_leaves_a_debt() -> None:
    bucket = TokenBucket(10.0, 5.0, 0.0)
    assert bucket.take(25, 0.0)
    assert not bucket.take(1, 2.0)
    assert bucket.wait(1, 2.0) == pytest.approx(0.1)
    assert bucket.wait(100, 2.0) == pytest.approx(0.5)


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(10.0, 1.0, 5.0)
    assert bucket.take(1, 5.0)
    assert not bucket.take(1, 4.0)
    assert not bucket.take(1, 5.0)
    assert bucket.take(1, 5.1)


def test_what_is_given_back_never_exceeds_the_burst_and_a_lower_rate_takes_effect() -> None:
    bucket = TokenBucket(10.0, 5.0, 0.0)
    bucket.give_back(100)
    assert bucket.take(5, 0.0)
    assert not bucket.take(1, 0.0)
    bucket.change(1.0, 2.0, 0.0)
    assert bucket.wait(1, 0.0) == pytest.approx(1.0)


class Crowd:
    """Customers that ask for amounts, come back when they are told to, and start again when they are served."""

    def __init__(self, seed: int, *, keep_promises: bool) -> None:
        self.random = random.Random(seed)
        self.keep_promises = keep_promises

    def run(self, customers: int, seconds: float) -> tuple[float, int, int]:
        """Keys a second that were served, returns as told, and how many of those were served at once."""
        meter, plain = Meter(50.0, 50.0, 0.0), TokenBucket(50.0, 50.0, 0.0)
        coming: list[tuple[float, int, int]] = []
        for customer in range(customers):
            heappush(coming, (self.random.random(), customer, 0))
        served = returned = kept = 0
        while coming and coming[0][0] < seconds:
            now, customer, back = heappop(coming)
            amount = back or self.random.choice([1, 5, 20])
            if self.keep_promises:
                wait = meter.take(customer, amount, now)
            else:
                wait = 0.0 if plain.take(amount, now) else plain.wait(amount, now)
            returned += back > 0
            if wait:
                heappush(coming, (now + wait + self.random.random() * 0.01, customer, amount))
            else:
                served += amount
                kept += back > 0
                heappush(coming, (now + self.random.expovariate(1.0), customer, 0))
        return served / seconds, returned, kept


@pytest.mark.parametrize("seed", range(5))
def test_who_comes_back_when_told_is_served_and_the_rate_holds(seed: int) -> None:
    rate, returned, kept = Crowd(seed, keep_promises=True).run(100, 300.0)
    assert 45 <= rate <= 51
    assert returned > 500
    assert kept / returned >= 0.9


def test_a_bucket_that_tells_everybody_the_same_time_keeps_few_of_its_promises() -> None:
    """What the promises are for: without them the same crowd is refused again and again."""
    _, returned, kept = Crowd(0, keep_promises=False).run(100, 300.0)
    assert kept / returned < 0.5


def test_who_ignores_the_time_neither_exceeds_the_rate_nor_breaks_others_promises() -> None:
    meter = Meter(10.0, 10.0, 0.0)
    assert meter.take("a", 10, 0.0) == 0.0
    due = meter.take("b", 10, 0.0)
    assert due == pytest.approx(1.0)
    pestering = [meter.take("c", 1, step / 1000) for step in range(1, 970)]
    assert min(pestering) > 0
    assert meter.take("b", 10, due) == 0.0


def test_what_a_holder_asks_for_meanwhile_is_for_the_same_time() -> None:
    meter = Meter(10.0, 10.0, 0.0)
    meter.take("a", 10, 0.0)
    assert [meter.take("a", 5, 0.1 * step) for step in range(4)] == pytest.approx([0.5, 0.4, 0.3, 0.2])
    assert [bool(meter.take("a", 5, 0.5)) for _ in range(3)] == [False, True, True]
    assert meter.take("a", 5, 1.0) == 0.0


def test_promises_that_nobody_takes_up_lapse() -> None:
    meter = Meter(10.0, 10.0, 0.0)
    for number in range(6):
        meter.take(number, 10, 0.0)
    assert meter.take("late", 10, 5.0 + GRACE + 0.1) == 0.0


def test_nothing_is_promised_for_later_than_the_longest_wait_and_to_a_bounded_number() -> None:
    meter = Meter(1.0, 10.0, 0.0)
    waits = [meter.take(number, 10, 0.0) for number in range(50)]
    assert waits[0] == 0.0
    assert max(waits) == LONGEST_WAIT
    assert all(later >= earlier for earlier, later in pairwise(waits))
    many = Meter(1e6, 1.0, 0.0)
    for number in range(2 * MAXIMUM):
        many.take(number, 1, 0.0)
    assert len(many._promised) == MAXIMUM


def test_who_comes_early_cannot_take_what_is_kept_for_another() -> None:
    meter = Meter(10.0, 10.0, 0.0)
    meter.take("empties it", 10, 0.0)
    first = meter.take("first", 10, 0.0)
    second = meter.take("second", 10, 0.0)
    assert (first, second) == pytest.approx((1.0, 2.0))
    assert meter.take("second", 10, 1.0) == pytest.approx(1.0)
    assert meter.take("a third", 10, 1.0) == pytest.approx(2.0)
    assert meter.take("first", 10, 1.0) == 0.0
    assert meter.take("a fourth", 5, 1.9) > 0
    assert meter.take("second", 10, 2.0) == 0.0
