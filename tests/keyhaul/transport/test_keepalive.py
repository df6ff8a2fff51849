"""The watch over a silent peer, with time as a number."""

from __future__ import annotations

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
    assert found_dead(keepalive, 104.0, waiting=True) <= 1.0


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


def test_our_own_standstill_is_not_taken_for_the_peers() -> None:
    keepalive = Keepalive(KeepaliveTimes(), 0.0)
    keepalive.asked(0.0)
    assert keepalive.check(0.2, waiting=True) == (True, False)
    assert keepalive.check(30.0, waiting=True) == (False, False)
    assert keepalive.check(keepalive.due, waiting=True)[1] or keepalive.due > 30


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
