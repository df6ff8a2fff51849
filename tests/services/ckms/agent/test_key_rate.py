"""What a link's modules yield, found out from what one end sees."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ckms.agent.key_rate import KeyRate, Stock


def test_before_anything_was_seen_the_configuration_counts() -> None:
    rate = KeyRate(2_000.0, 0.0)
    rate.seen(Stock(1_000_000, 0, full=False), 1.0)
    assert rate.value == 2_000.0


@pytest.mark.parametrize("expected", [0.0, 500.0, 20_000.0])
def test_bursts_come_to_their_mean_whoever_takes_the_keys(expected: float) -> None:
    source, rate = random.Random(5), KeyRate(expected, 0.0)
    stored = taken = 0
    for second in range(1, 900):
        if second % 13 == 0:
            stored += 13 * 3_000
        part = source.randint(0, stored)
        stored, taken = stored - part, taken + part
        rate.seen(Stock(stored, taken, full=False), float(second))
    assert rate.value == pytest.approx(3_000, rel=0.2)


def test_a_full_store_says_nothing() -> None:
    rate = KeyRate(2_000.0, 0.0)
    for second in range(600):
        rate.seen(Stock(1_000_000, 0, full=True), float(second))
    assert rate.value == 2_000.0


def test_a_module_that_lost_its_store_says_nothing_once() -> None:
    rate = KeyRate(2_000.0, 0.0)
    rate.seen(Stock(1_000_000, 0, full=False), 1.0)
    rate.seen(Stock(0, 0, full=False), 2.0)
    assert rate.value == 2_000.0
    rate.seen(Stock(1_000, 0, full=False), 3.0)
    assert 1_900 < rate.value < 2_000


def test_what_cannot_be_reached_yields_nothing_in_the_end() -> None:
    rate = KeyRate(2_000.0, 0.0)
    for second in range(600):
        rate.away(float(second))
    assert rate.value < 1.0


def test_a_module_that_tells_is_believed_at_once() -> None:
    rate = KeyRate(2_000.0, 0.0)
    rate.told(0.0, 1.0)
    assert rate.value == 0.0
    rate.seen(Stock(5_000, 0, full=False), 2.0)
    assert rate.value == 0.0


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.booleans(), st.floats(-5, 50))))
def test_whatever_is_seen_it_is_a_rate(looks: list[tuple[int, int, bool, float]]) -> None:
    rate, now = KeyRate(1_000.0, 0.0), 0.0
    for stored, taken, full, later in looks:
        now += later
        rate.seen(Stock(stored, taken, full), now)
        assert rate.value >= 0
