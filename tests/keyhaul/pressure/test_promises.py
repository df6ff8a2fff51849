"""What is promised to one is nobody else's, is taken up once when it is due, lapses, and is bounded."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from keyhaul.pressure.promises import EARLY, GRACE, MAXIMUM, Promises


def test_a_promise_is_taken_up_once_by_its_holder_when_it_is_due() -> None:
    promises = Promises()
    promises.add("a", 2.0, 7.0)
    promises.add("a", 3.0, 5.0)
    assert not promises.redeem("a", 3.0, 4.0)
    assert not promises.redeem("a", 2.0, 5.0)
    assert promises.redeem("a", 3.0, 5.0 - EARLY / 2)
    assert promises.redeem("a", 2.0, 7.0)
    assert not promises.redeem("a", 2.0, 7.0)
    assert promises.total(7.0) == 0.0


@pytest.mark.parametrize("early", [0.0, 0.5, 0.999])
def test_nobody_takes_up_what_was_promised_to_another(early: float) -> None:
    promises = Promises()
    promises.add("a", 2.0, 5.0)
    promises.add("b", 2.0, 6.0)
    assert not promises.redeem("b", 2.0, 6.0 - early - 2 * EARLY)
    assert not promises.redeem("c", 2.0, 5.0)
    assert promises.total(5.0) == 4.0
    assert promises.redeem("a", 2.0, 6.0)
    assert promises.redeem("b", 2.0, 6.0)


def test_what_nobody_takes_up_lapses_and_makes_room() -> None:
    promises = Promises()
    for number in range(2 * MAXIMUM):
        promises.add(number, 1.0, 1.0)
    assert (len(promises), promises.total(1.0 + GRACE)) == (MAXIMUM, MAXIMUM)
    assert promises.total(1.1 + GRACE) == 0.0
    assert not promises.redeem(0, 1.0, 1.1 + GRACE)
    promises.add("late", 1.0, 10.0)
    assert promises.redeem("late", 1.0, 10.0)


def test_a_holder_who_heeds_no_time_leaves_room_for_others() -> None:
    promises = Promises()
    for number in range(2 * MAXIMUM):
        promises.add("greedy", 1.0, 10.0 + number / MAXIMUM)
    assert len(promises) == MAXIMUM / 2
    promises.add("modest", 1.0, 10.0)
    assert promises.redeem("modest", 1.0, 10.0)


def test_totals_are_those_of_the_promises_that_stand() -> None:
    chance, promises = random.Random(3), Promises()
    standing: Counter[tuple[str, float, float]] = Counter()
    now = 0.0
    for _ in range(3000):
        now += chance.random() / 20
        standing = Counter({one: number for one, number in standing.items() if one[2] >= now - GRACE})
        holder, amount = chance.choice("abc"), float(chance.randrange(1, 4))
        if chance.random() < 0.5:
            due = now + chance.random() * 10
            promises.add(holder, amount, due)
            standing[holder, amount, due] += 1
        else:
            due_now = [one for one in standing if one[:2] == (holder, amount) and one[2] <= now + EARLY]
            assert promises.redeem(holder, amount, now) == bool(due_now)
            if due_now:
                first = min(due_now, key=lambda one: one[2])
                standing[first] -= 1
                standing = +standing
        soon = sum(number * one[1] for one, number in standing.items() if one[2] <= now + 2)
        assert promises.total(now, now + 2) == pytest.approx(soon)
        assert promises.total(now) == pytest.approx(sum(number * one[1] for one, number in standing.items()))
    assert sum(standing.values()) == len(promises)
