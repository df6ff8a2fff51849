"""The watch over a silent peer, with time as a number."""

from __future__ import annotations

import pytest

from keyhaul.transport.keepalive import Backoff, Keepalive, KeepaliveTimes
from keyhaul.transport.limits import Allowance, Bucket, Budget


def found_dead(keepalive: Keepalive, since: float, *, waiting: bool) -> float:
    """Follow the schedule until the peer is given up."""
    now = since
    for _ in range(100):
        now = max(now, keepalive.due)
        _, dead = keepalive.check(now, waiting=waiting)
        if dead:
            return now - since
    raise AssertionError("never given up")


def test_a_peer_that_owes_an_answer_is_given_up_within_a_second() -> None:
    keepalive = Keepalive(KeepaliveTimes(), 100.0)
    keepalive.heard(103.0)
    assert keepalive.asked(104.0) or keepalive.due <= 104.2
    assert found_dead(keepalive, 104.0, waiting=True) <= 0.7


def test_an_idle_peer_is_given_up_within_five_seconds() -> None:
    keepalive = Keepalive(KeepaliveTimes(), 100.0)
    assert found_dead(keepalive, 100.0, waiting=False) <= 5.0


def test_a_long_silence_before_the_call_is_not_held_against_the_peer() -> None:
    keepalive = Keepalive(KeepaliveTimes(), 100.0)
    keepalive.check(102.0, waiting=False)
    keepalive.asked(104.4)
    _, dead = keepalive.check(104.6, waiting=True)
    assert not dead


def test_a_peer_that_answers_pings_lives() -> None:
    keepalive = Keepalive(KeepaliveTimes(), 0.0)
    now = 0.0
    keepalive.asked(now)
    for _ in range(50):
        now = max(now, keepalive.due)
        ping, dead = keepalive.check(now, waiting=True)
        assert not dead
        if ping:
            keepalive.heard(now + 0.05)
    assert now > 5


def test_a_process_that_is_busy_for_half_a_second_lives_whenever_that_begins() -> None:
    for began in range(120):
        begin, end = began / 100, began / 100 + 0.49
        keepalive = Keepalive(KeepaliveTimes(), 0.0)
        keepalive.asked(0.0)
        unread = False
        while keepalive.due < end + 1.0:
            now = keepalive.due
            if unread and now > end:
                keepalive.heard(end)
                unread = False
            ping, dead = keepalive.check(now, waiting=True)
            assert not dead, began
            if ping and begin <= now < end:
                unread = True
            elif ping:
                keepalive.heard(now)


def test_a_peer_gets_time_to_answer_a_ping_however_long_it_was_silent_before() -> None:
    keepalive = Keepalive(KeepaliveTimes(), 100.0)
    keepalive.asked(100.0)
    assert keepalive.check(100.1, waiting=False) == (False, False)
    assert keepalive.check(102.0, waiting=True) == (True, False)
    assert found_dead(keepalive, 102.0, waiting=True) >= 0.5 - 1e-9


@pytest.mark.parametrize("begin", [0.0, 100.3, 12_345.678, 98_765.4321, 1e6 / 3])
def test_our_own_standstill_is_not_taken_for_the_peers(begin: float) -> None:
    keepalive = Keepalive(KeepaliveTimes(), begin)
    keepalive.asked(begin)
    assert keepalive.check(keepalive.due, waiting=True) == (True, False)
    assert keepalive.check(begin + 30.0, waiting=True) == (False, False)
    assert found_dead(keepalive, begin + 30.0, waiting=True) == pytest.approx(0.5)


def test_a_process_that_is_always_late_finds_a_dead_peer_all_the_same() -> None:
    keepalive = Keepalive(KeepaliveTimes(), 0.0)
    keepalive.asked(0.0)
    looks = 0
    while not keepalive.check(keepalive.due + 0.2, waiting=True)[1]:
        looks += 1
    assert looks <= 3


def test_delays_double_up_to_a_bound_and_vary() -> None:
    least = Backoff(lambda count: b"\0" * count, first=0.1, longest=1.0)
    most = Backoff(lambda count: b"\xff" * count, first=0.1, longest=1.0)
    assert [round(least.next(), 3) for _ in range(6)] == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
    assert [round(most.next(), 3) for _ in range(5)] == [0.1, 0.2, 0.4, 0.8, 1.0]
    most.reset()
    assert round(most.next(), 3) == 0.1


def test_an_allowance_is_a_burst_and_a_rate() -> None:
    bucket = Bucket(Allowance(3, 1))
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.take(11.0)
    assert not bucket.take(11.5)


def test_a_budget_is_never_exceeded() -> None:
    budget = Budget(10)
    assert budget.take(7)
    assert not budget.take(4)
    budget.give(7)
    assert budget.take(10)
