"""Where keys come more slowly than they are wanted: short queues, an even flow, and times to come back that hold."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Any

import pytest

from keyhaul.identity.names import SaeId
from keyhaul.pressure.bucket import Meter
from keyhaul.randomness import key_id
from keyhaul.transport.messages.access import Purpose
from services.ukms.buffer import Buffer, BufferKey, Policy
from services.ukms.leases import Demand, Stored
from services.ukms.outlook import BELIEVED, QUEUE, Outlook
from services.ukms.waiting import Waiting

PATIENCE = 10.0


def buffer_of(policy: Policy | None = None) -> Buffer:
    key = BufferKey(SaeId("a"), frozenset({SaeId("b")}), 256, "gold")
    buffer = Buffer(key, policy or Policy(0, 4096, 4.0), (SaeId("b"),), Demand(4.0), 0.0)
    buffer.stored_limit = 1000
    return buffer


@dataclass
class Line:
    """A link that makes so many keys a second and serves requests for them one after the other."""

    rate: float
    trip: float
    free_at: float = 0.0

    def arrival(self, number: int, now: float) -> float:
        self.free_at = max(now, self.free_at) + number / self.rate
        return self.free_at + self.trip


@dataclass
class Site:
    """SAE programs that want keys from one buffer whose keys come over a line."""

    seed: int
    rate: float
    programs: int
    number: int = 4
    pause: float = 1.0
    obey: bool = True
    apart: bool = True
    """Whether the UKMS can tell the programs apart."""
    trip: float = 0.03
    """Seconds that keys take to come, beside the time that the line needs."""
    waits: list[float] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    served_at: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        chance, order = random.Random(self.seed), count()
        buffer, line = buffer_of(), Line(self.rate, self.trip)
        waiting: dict[Waiting, tuple[int, float, bool]] = {}
        events: list[tuple[float, int, str, object]] = []

        def later(at: float, what: str, about: object = None) -> None:
            heappush(events, (at, next(order), what, about))

        def asker(program: int) -> int:
            return program if self.apart else 0

        def served(program: int, since: float, back: bool, now: float) -> None:
            self.waits.append(now - since)
            self.counts["served"] += 1
            self.counts["back and served"] += back
            self.served_at.append(now)
            later(now + chance.expovariate(1 / self.pause), "ask", (program, False))

        def refused(program: int, seconds: int, now: float) -> None:
            self.told.append(seconds)
            after = seconds + 0.005 * chance.random() if self.obey else 0.05
            later(now + after, "ask", (program, True))

        def fill(now: float) -> None:
            for one in buffer.overlong(now):
                program, _, back = waiting.pop(one)
                self.counts["back"] += back
                refused(program, buffer.come_back(asker(program), one.number, now), now)
            for ask in buffer.plan(now, chance.randbytes):
                self.counts[ask.purpose] += ask.number
                later(line.arrival(ask.number, now), "keys", ask)

        for program in range(self.programs):
            later(chance.random(), "ask", (program, False))
        while events and events[0][0] < seconds:
            now, _, what, about = heappop(events)
            if what == "keys":
                fresh = [Stored(key_id(chance.randbytes), math.inf, "", 0) for _ in range(about.number)]  # type: ignore[attr-defined]
                allotments, rest = buffer.allot(fresh, now)
                buffer.put(rest)
                buffer.orders.arrived(about.request, about.number, now)  # type: ignore[attr-defined]
                for allotment in allotments:
                    program, since, back = waiting.pop(allotment.waiting)
                    self.counts["back"] += back
                    served(program, since, back, now)
            else:
                program, back = about  # type: ignore[misc]
                buffer.demand.count(self.number, now)
                promised = buffer.redeem(asker(program), self.number, now)
                if not promised and (told := buffer.refused(asker(program), self.number, now)):
                    self.counts["back"] += back
                    refused(program, told, now)
                elif buffer.take(self.number, now, promised=promised) is not None:
                    self.counts["back"] += back
                    served(program, now, back, now)
                else:
                    one = buffer.wait(self.number, now + PATIENCE, now, asker(program), promised=promised)
                    waiting[one] = (program, now, back)
            fill(now)


@pytest.mark.parametrize("trip", [0.03, 1.0])
@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("rate", [3.0, 20.0, 100.0])
def test_a_slow_line_is_used_whole_with_short_queues_and_times_that_hold(rate: float, apart: bool, trip: float) -> None:
    site = Site(apart, rate, programs=round(3 * rate / 4 * 1.5) + 4, trip=trip, apart=apart)
    site.run(150.0)
    late = [at for at in site.served_at if at > 30]
    assert 4 * len(late) / 120 >= 0.9 * rate
    assert site.counts["back"] > 20
    assert site.counts["back and served"] / site.counts["back"] >= 0.9
    waits = sorted(site.waits[len(site.waits) // 5 :])
    assert waits[int(0.99 * len(waits))] <= 3 * QUEUE + 8 / rate + trip


@pytest.mark.parametrize("rate", [3.0, 20.0, 100.0])
def test_a_line_on_which_keys_take_long_to_come_is_used_too(rate: float) -> None:
    site = Site(1, rate, programs=round(3 * rate / 4 * 1.5) + 4, trip=2.0)
    site.run(150.0)
    assert 4 * len([at for at in site.served_at if at > 30]) / 120 >= 0.75 * rate
    assert site.counts["back and served"] / site.counts["back"] >= 0.85


def test_programs_that_ignore_the_time_get_no_more_than_the_line_gives() -> None:
    site = Site(1, 20.0, programs=40, obey=False)
    site.run(120.0)
    assert 4 * len([at for at in site.served_at if at > 30]) / 90 == pytest.approx(20.0, rel=0.1)


def test_a_line_that_suffices_refuses_nobody() -> None:
    site = Site(2, 400.0, programs=40)
    site.run(60.0)
    assert site.told == []


def test_a_burst_on_a_fast_line_refuses_nobody_though_little_was_seen_before() -> None:
    """What was measured while little was wanted says nothing of what the line can give."""
    buffer = buffer_of(Policy(0, 0, 4.0))
    now = 0.0
    for _ in range(10):
        waiting = buffer.wait(1, now + PATIENCE, now)
        (ask,) = buffer.plan(now, random.Random(1).randbytes)
        now += 0.03
        buffer.allot([Stored(key_id(), math.inf, "", 0)], now)
        buffer.orders.arrived(ask.request, 1, now)
        buffer.plan(now, random.Random(1).randbytes)
        assert not buffer.waiting
        del waiting
        now += 1.0
    assert [buffer.refused("", 10, now) for _ in range(200)] == [0] * 200
    for _ in range(20):
        buffer.wait(10, now + PATIENCE, now)
    assert sum(ask.number for ask in buffer.plan(now, random.Random(2).randbytes)) == 200


def test_while_keys_are_short_nothing_is_fetched_ahead_and_little_is_under_way() -> None:
    site = Site(3, 20.0, programs=60)
    site.run(60.0)
    assert site.counts[Purpose.PREFETCH] < 0.3 * site.counts[Purpose.DEMAND]
    buffer = buffer_of()
    for number in range(100):
        buffer.wait(4, PATIENCE + 5, number / 1000)
    buffer.outlook.look(True, 1.0)
    buffer.outlook.arrived(20, 2.0)
    asks = buffer.plan(2.2, random.Random(1).randbytes)
    assert sum(ask.number for ask in asks) <= QUEUE * 20 + 20
    assert len(asks) >= 3


def test_after_an_outage_the_first_waits_and_the_rest_is_told_a_time() -> None:
    buffer = buffer_of()
    buffer.wait(1, PATIENCE, 0.0)
    buffer.plan(0.0, random.Random(1).randbytes)
    assert buffer.refused("", 1, 0.5) == 0
    buffer.outlook.arrived(1, 0.5)
    assert 1 <= buffer.refused("", 1, 9.0) <= 60


def test_whoever_waited_in_vain_is_told_no_less_than_the_akms_says() -> None:
    buffer = buffer_of()
    assert buffer.come_back("", 1, 0.0, 7.2) == 8
    assert buffer.come_back("", 1, 0.0) == 1
    assert buffer.refused("", 1, 1.0) == 0


def test_a_rate_is_told_only_of_time_in_which_keys_were_under_way() -> None:
    outlook = Outlook()
    outlook.look(False, 0.0)
    outlook.arrived(1000, 10.0)
    assert outlook.rate(10.0) is None
    outlook.look(True, 10.0)
    for step in range(1, 101):
        outlook.arrived(1, 10.0 + step / 10)
    assert outlook.rate(20.0) == pytest.approx(10.0, rel=0.05)
    outlook.look(False, 20.0)
    assert outlook.rate(1000.0) == pytest.approx(10.0, rel=0.05)


@dataclass
class Bounded:
    """An AKMS that hands out no more than a contract's rate, and SAE programs that want several times as many keys."""

    rate: float
    burst: int
    number: int
    programs: int
    told: int = 0
    held: int = 0
    served: int = 0
    asked: int = 0
    refused: int = 0

    def run(self, seconds: float) -> None:
        chance, order = random.Random(7), count()
        buffer, meter = buffer_of(Policy(0, 0, 4.0)), Meter(self.rate, self.burst, 0.0)
        waiting: dict[Waiting, tuple[float, bool]] = {}
        events: list[tuple[float, int, str, Any]] = []

        def later(at: float, what: str, about: Any = None) -> None:
            heappush(events, (at, next(order), what, about))

        def refused(back: bool, seconds: int, now: float) -> None:
            self.told += back
            later(now + seconds + 0.005 * chance.random(), "want", True)

        def served(back: bool, now: float) -> None:
            self.told += back
            self.held += back
            self.served += self.number
            later(now + chance.expovariate(1.0), "want", False)

        def fill(now: float) -> None:
            for one in reversed(buffer.overlong(now)):
                refused(waiting.pop(one)[1], buffer.come_back("", self.number, now), now)
            for ask in buffer.plan(now, chance.randbytes):
                wait = meter.take("holder", ask.number, now)
                self.asked += 1
                self.refused += wait > 0
                later(now + 0.02, "refusal" if wait else "keys", (ask, math.ceil(1000 * wait) / 1000))
            if (held_back := buffer.orders.wait()) is not None:
                later(now + held_back, "go on")

        for _ in range(self.programs):
            later(chance.random() / 10, "want", False)
        while events and events[0][0] < seconds:
            now, _, what, about = heappop(events)
            if what == "want":
                promised = buffer.redeem("", self.number, now)
                if not promised and (told := buffer.refused("", self.number, now)):
                    refused(about, told, now)
                elif buffer.take(self.number, now, promised=promised) is not None:
                    served(about, now)
                else:
                    waiting[buffer.wait(self.number, now + PATIENCE, now, promised=promised)] = now, about
            elif what == "refusal":
                ask, wait = about
                if (pause := buffer.orders.failed(ask.request, wait, now, self.rate)) is not None:
                    later(now + pause, "resume")
            elif what == "resume":
                buffer.orders.retry()
            elif what == "go on":
                buffer.orders.resume()
            else:
                ask, _ = about
                fresh = [Stored(key_id(chance.randbytes), math.inf, "", 0) for _ in range(ask.number)]
                allotments, rest = buffer.allot(fresh, now)
                buffer.put(rest)
                buffer.orders.arrived(ask.request, ask.number, now)
                for allotment in allotments:
                    served(waiting.pop(allotment.waiting)[1], now)
            fill(now)


@pytest.mark.parametrize(
    ("rate", "burst", "number", "programs"),
    [(5.0, 10, 10, 8), (5.0, 10, 1, 30), (50.0, 100, 10, 40), (1.0, 10, 10, 4), (5.0, 40, 10, 8)],
)
def test_beyond_a_contracts_rate_each_is_told_a_time_that_holds(
    rate: float, burst: int, number: int, programs: int
) -> None:
    site = Bounded(rate, burst, number, programs)
    site.run(200.0)
    assert site.told >= 8
    assert site.held >= 0.9 * site.told, (site.held, site.told)
    assert site.refused <= 10 + 200 / BELIEVED * 4, "the UKMS keeps to the rate by itself"
    assert 0.9 * rate * 200 - number * programs <= site.served <= 200 * rate + burst + number * programs


def test_little_is_fetched_for_those_who_were_told_to_come_back_and_may_not() -> None:
    """Who does not heed the time leaves hundreds of promises behind; keys for them would only lie there."""
    buffer = buffer_of(Policy(0, 0, 4.0))
    buffer.wait(1, PATIENCE, 0.0)
    (ask,) = buffer.plan(0.0, random.Random(1).randbytes)
    buffer.orders.failed(ask.request, 0.2, 0.0, 5.0)
    told = []
    for step in range(10, 210):
        if seconds := buffer.refused("", 1, 0.01 * step):
            told.append(seconds)
        else:
            buffer.wait(1, PATIENCE, 0.01 * step)
    assert len(told) > 150
    assert max(told) > 20
    assert 15 <= buffer.outlook.kept(2.1) <= 25


def stocked(number: int) -> list[Stored]:
    return [Stored(key_id(), math.inf, "", 0) for _ in range(number)]


def short_buffer() -> Buffer:
    """A buffer of which the AKMS says that five keys a second come."""
    buffer = buffer_of(Policy(0, 0, 4.0))
    first = buffer.wait(1, PATIENCE, 0.0)
    (ask,) = buffer.plan(0.0, random.Random(1).randbytes)
    buffer.orders.failed(ask.request, 2.0, 0.0, 5.0)
    buffer.forget(first)
    return buffer


def test_a_program_that_comes_early_cannot_take_what_is_kept_for_another() -> None:
    buffer = short_buffer()
    told = buffer.refused("first", 10, 0.0), buffer.refused("second", 10, 0.0)
    assert told == (4, 6)
    buffer.put(stocked(10))
    for early in ("second", "a third"):
        assert not buffer.redeem(early, 10, 4.0)
        assert buffer.take(10, 4.0) is None
    waiting = buffer.wait(10, PATIENCE, 4.0, "a third")
    assert buffer.allot((), 4.1)[0] == []
    assert buffer.redeem("first", 10, 4.5)
    buffer.forget(waiting)
    assert buffer.take(10, 4.5, promised=True) is not None
    buffer.put(stocked(10))
    assert not buffer.redeem("first", 10, 6.0)
    assert buffer.redeem("second", 10, 6.0)
    assert buffer.take(10, 6.0, promised=True) is not None


def test_who_comes_back_when_told_is_served_before_those_who_were_told_nothing() -> None:
    buffer = short_buffer()
    assert buffer.refused("told", 10, 0.0) == 4
    others = [buffer.wait(1, PATIENCE, 3.9) for _ in range(5)]
    assert buffer.redeem("told", 10, 4.0)
    assert buffer.take(10, 4.0, promised=True) is None
    back = buffer.wait(10, PATIENCE, 4.0, "told", promised=True)
    allotments, _ = buffer.allot(stocked(12), 4.1)
    assert [one.waiting for one in allotments] == [back, *others[:2]]
