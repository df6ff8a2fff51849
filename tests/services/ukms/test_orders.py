"""What a buffer asks the AKMS for: what is wanted, ahead of demand, again, and no more than it may."""

import math
import random
import uuid
from collections.abc import Callable

import pytest

from keyhaul.identity.names import SaeId
from keyhaul.pressure.bucket import Meter
from keyhaul.transport.messages.access import Purpose
from services.ukms.buffer import IDLE, Buffer, BufferKey, Policy
from services.ukms.buffers import Buffers
from services.ukms.leases import Stored
from services.ukms.orders import FIRST_PAUSE, Ask
from services.ukms.outlook import BELIEVED

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
    assert buffer.target(IDLE + 1.0) == 0


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
    pause = buffer.orders.failed(ask.request, 0.0, 0.0)
    assert pause == FIRST_PAUSE
    assert amounts(buffer, 0.05) == []
    (again,) = buffer.plan(pause, SOURCE)
    assert buffer.orders.failed(again.request, 2.5, pause) == 2.5
    assert buffer.orders.failed(again.request, 2.5, pause) is None


def test_a_new_session_asks_again_at_once() -> None:
    buffer = make()
    buffer.wait(1, 10.0)
    (ask,) = buffer.plan(0.0, SOURCE)
    buffer.orders.failed(ask.request, 5.0, 0.0)
    buffer.orders.again()
    assert amounts(buffer, 0.1) == [(1, Purpose.DEMAND)]


class Greedy:
    """An SAE that asks for ten keys at a time, for far more than the hundred keys a second of its contract."""

    def __init__(self, now: float = 0.0) -> None:
        self.buffer, self.meter = make(), Meter(100.0, 100.0, now)
        self.now, self.rate = now, 100.0
        self.asked: list[tuple[float, int, bool]] = []
        """When, how many keys, and whether the AKMS refused."""

    def run(self, seconds: float) -> None:
        """Steps of a hundredth of a second; the AKMS answers within two."""
        coming: list[tuple[float, Ask, float]] = []
        resume: list[tuple[float, Callable[[], None]]] = []
        end = self.now + seconds
        while self.now < end:
            for _, ask, wait in [one for one in coming if one[0] <= self.now]:
                if wait:
                    pause = self.buffer.orders.failed(ask.request, wait, self.now, self.rate)
                    assert pause is not None
                    resume.append((self.now + pause, self.buffer.orders.retry))
                else:
                    _, rest = self.buffer.allot(keys(ask.number, math.inf), self.now)
                    self.buffer.put(rest)
                    self.buffer.orders.arrived(ask.request, ask.number, self.now)
            for _, go_on in [one for one in resume if one[0] <= self.now]:
                go_on()
            coming = [one for one in coming if one[0] > self.now]
            resume = [one for one in resume if one[0] > self.now]
            if self.buffer.waiting < 100:
                self.buffer.wait(10, self.now + 10.0, self.now)
            for ask in self.buffer.plan(self.now, SOURCE):
                wait = self.meter.take("", ask.number, self.now)
                self.asked.append((self.now, ask.number, bool(wait)))
                coming.append((self.now + 0.02, ask, wait))
            if (held_back := self.buffer.orders.wait()) is not None:
                resume.append((self.now + held_back, self.buffer.orders.resume))
            self.now += 0.01

    def keys(self, since: float) -> int:
        return sum(number for at, number, refused in self.asked if at >= since and not refused)

    def refused(self, since: float) -> int:
        return sum(refused for at, _, refused in self.asked if at >= since)


def test_what_the_contracts_rate_does_not_cover_is_not_sent() -> None:
    """Nearly all that is asked for is given: the excess ends at the UKMS."""
    greedy = Greedy()
    greedy.run(100.0)
    assert greedy.keys(10.0) == pytest.approx(9000, rel=0.02)
    assert greedy.refused(10.0) <= 20


def test_a_rate_is_kept_to_for_a_while_and_then_tried_again() -> None:
    greedy = Greedy()
    greedy.run(10.0)
    greedy.rate = 200.0
    greedy.meter.agree(greedy.rate, 200.0, greedy.now)
    greedy.run(BELIEVED + 10.0)
    begin = greedy.now
    greedy.run(10.0)
    assert greedy.keys(begin) > 1500


def test_a_clock_that_is_set_back_does_not_hold_requests_back_for_long() -> None:
    greedy = Greedy(10_000.0)
    greedy.run(3.0)
    assert greedy.refused(0.0)
    assert greedy.buffer.outlook.is_limited(greedy.now)
    greedy.now, greedy.meter = 5_000.0, Meter(100.0, 100.0, 5_000.0)
    greedy.run(1.0)
    assert any(at < 6_000.0 for at, _, _ in greedy.asked)
