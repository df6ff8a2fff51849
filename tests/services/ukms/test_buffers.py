"""Buffers: who gets which keys, and what is asked of the AKMS."""

import random
import uuid

import pytest

from keyhaul.identity.names import SaeId
from keyhaul.transport.messages.access import Purpose
from services.ukms import buffers
from services.ukms.buffers import Buffer, BufferFull, BufferKey, Buffers, Policy, Taken
from services.ukms.leases import Stored

KEY = BufferKey(SaeId("a"), frozenset({SaeId("b")}), 256, "silver")
SLAVES = (SaeId("b"),)
NONE_AHEAD = Policy(minimum=0, maximum=0, horizon=4.0)
AHEAD = Policy(minimum=8, maximum=64, horizon=4.0)
SOURCE = random.Random(5).randbytes


def make(policy: Policy = NONE_AHEAD, limit: int = 1000) -> Buffer:
    buffer = Buffers(policy).buffer(KEY, SLAVES, 0.0)
    buffer.stored_limit = limit
    return buffer


def keys(number: int, expires: float = 1000.0) -> list[Stored]:
    return [Stored(uuid.uuid4(), expires, "1" * 32, position) for position in range(number)]


def amounts(buffer: Buffer, now: float) -> list[tuple[int, Purpose]]:
    return [(ask.number, ask.purpose) for ask in buffer.plan(now, SOURCE)]


def test_keys_leave_in_order_all_or_none() -> None:
    buffer = make()
    three = keys(3)
    buffer.put(three)
    assert buffer.take(4, 0.0) is None
    assert buffer.take(2, 0.0) == Taken((), tuple(three[:2]))
    assert buffer.stored == 1


def test_an_expired_key_is_not_taken() -> None:
    buffer = make()
    buffer.put(keys(1, expires=10.0))
    assert buffer.take(1, 10.0) is None


def test_nobody_overtakes_those_who_wait() -> None:
    buffer = make()
    buffer.wait(5, 10.0)
    buffer.put(keys(2))
    assert buffer.take(1, 0.0) is None


def test_arriving_keys_go_to_the_first_who_waits_together_with_what_is_there() -> None:
    buffer = make()
    old, new = keys(1), keys(3)
    buffer.put(old)
    first, second = buffer.wait(2, 10.0), buffer.wait(5, 10.0)
    allotments, rest = buffer.allot(new, 0.0)
    assert [(one.waiting, one.keys) for one in allotments] == [(first, (old[0], new[0]))]
    assert rest == new[1:]
    assert buffer.fail_all() == [second]


def test_without_prefetch_just_what_is_wanted_is_asked_for() -> None:
    buffer = make()
    buffer.put(keys(1))
    buffer.demand.count(5, 0.0)
    buffer.wait(5, 10.0)
    assert amounts(buffer, 0.0) == [(4, Purpose.DEMAND)]
    assert amounts(buffer, 0.0) == []


def test_large_wants_are_asked_for_in_pieces() -> None:
    buffer = make()
    for _ in range(20):
        buffer.wait(128, 10.0)
    assert amounts(buffer, 0.0) == [(1024, Purpose.DEMAND), (1024, Purpose.DEMAND), (512, Purpose.DEMAND)]


def test_the_minimum_is_kept_once_somebody_asked() -> None:
    buffer = make(AHEAD)
    assert amounts(buffer, 0.0) == []
    buffer.demand.count(1, 0.0)
    assert amounts(buffer, 0.0) == [(8, Purpose.PREFETCH)]
    assert buffer.target(buffers.IDLE + 1.0) == 0


def test_prefetch_follows_demand_up_to_the_maximum_and_the_contract() -> None:
    buffer = make(AHEAD)
    for tick in range(200):
        buffer.demand.count(1, tick / 10)
    assert 35 <= buffer.target(20.0) <= 42
    buffer.demand.count(1000, 20.0)
    assert buffer.target(20.0) == 64
    buffer.stored_limit = 30
    assert buffer.target(20.0) == 30
    assert buffer.target(60.0) == 8


def test_prefetch_waits_until_a_quarter_is_missing() -> None:
    buffer = make(Policy(minimum=8, maximum=8, horizon=4.0))
    buffer.demand.count(1, 0.0)
    buffer.put(keys(7))
    assert amounts(buffer, 0.0) == []
    buffer.take(1, 0.0)
    assert amounts(buffer, 0.0) == [(2, Purpose.PREFETCH)]


def test_demand_does_not_wait_for_prefetch() -> None:
    buffer = make(AHEAD)
    buffer.demand.count(1, 0.0)
    buffer.plan(0.0, SOURCE)
    buffer.wait(1, 10.0)
    assert amounts(buffer, 0.0) == [(1, Purpose.DEMAND)]


def test_what_does_not_come_in_time_is_asked_for_again() -> None:
    buffer = make()
    buffer.wait(1, 10.0)
    (ask,) = buffer.plan(0.0, SOURCE)
    buffer.wait(1, 30.0)
    assert amounts(buffer, ask.until) == [(2, Purpose.DEMAND)]


def test_after_a_failure_nothing_is_asked_for_a_while() -> None:
    buffer = make()
    buffer.wait(1, 10.0)
    (ask,) = buffer.plan(0.0, SOURCE)
    pause = buffer.failed(ask.request, 0.0, 0.0)
    assert pause == buffers.FIRST_PAUSE
    assert amounts(buffer, 0.05) == []
    (again,) = buffer.plan(pause, SOURCE)
    assert buffer.failed(again.request, 2.5, pause) == 2.5
    assert buffer.failed(again.request, 2.5, pause) is None


def test_a_new_session_asks_again_at_once() -> None:
    buffer = make()
    buffer.wait(1, 10.0)
    (ask,) = buffer.plan(0.0, SOURCE)
    buffer.failed(ask.request, 5.0, 0.0)
    buffer.ask_again()
    assert amounts(buffer, 0.1) == [(1, Purpose.DEMAND)]


def test_the_last_come_fail_when_less_comes_than_was_wanted() -> None:
    buffer = make()
    first, second = buffer.wait(2, 10.0), buffer.wait(2, 10.0)
    buffer.put(keys(3))
    assert buffer.fail_unserved() == [second]
    assert buffer.fail_all() == [first]


def test_waiting_requests_and_buffers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "MAXIMUM_WAITING", 2)
    monkeypatch.setattr(buffers, "MAXIMUM_BUFFERS", 2)
    several = Buffers(NONE_AHEAD)
    buffer = several.buffer(KEY, SLAVES, 0.0)
    buffer.wait(1, 1.0)
    buffer.wait(1, 1.0)
    with pytest.raises(BufferFull):
        buffer.wait(1, 1.0)
    other = BufferKey(SaeId("a"), frozenset({SaeId("c")}), 256, "silver")
    third = BufferKey(SaeId("a"), frozenset({SaeId("c")}), 128, "silver")
    several.buffer(other, SLAVES, 0.0)
    with pytest.raises(BufferFull):
        several.buffer(third, SLAVES, 1.0)
    assert several.buffer(third, SLAVES, 100.0).key == third
    assert several.find(other) is None


def test_buffers_are_found_by_any_of_their_slaves() -> None:
    several = Buffers(NONE_AHEAD)
    both = BufferKey(SaeId("a"), frozenset({SaeId("b"), SaeId("c")}), 256, "silver")
    several.buffer(KEY, SLAVES, 0.0)
    several.buffer(both, SLAVES, 0.0)
    several.buffer(BufferKey(SaeId("z"), frozenset({SaeId("c")}), 256, "silver"), SLAVES, 0.0)
    assert [one.key for one in several.of(SaeId("a"), frozenset({SaeId("c")}))] == [both]
    assert [one.key for one in several.of(SaeId("a"), frozenset())] == [KEY, both]
