"""At most one process leads, whatever is delayed, lost or frozen; and somebody does once that is over."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.state.lease import Lease, Look, Renew, Row, Take, Terms

TERMS = Terms()


class World:
    """Processes with clocks of their own, and one row that each reaches after a while or not at all."""

    def __init__(self, seed: int, processes: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.row = Row()
        self.trouble = True
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.order = count()
        self.ends = [Lease(f"process {number}", TERMS) for number in range(processes)]
        self.offsets = [self.random.uniform(-1e6, 1e6) for _ in self.ends]
        self.speeds = [self.random.uniform(0.99, 1.01) for _ in self.ends]
        self.frozen = [0.0 for _ in self.ends]
        self.led: list[tuple[int, str]] = []
        for number in range(processes):
            self.after(self.random.random(), partial(self.turn, number))

    def clock(self, number: int) -> float:
        return self.offsets[number] + self.speeds[number] * self.now

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now + seconds, next(self.order), what))

    def delay(self) -> float:
        return self.random.choice((0.0, 0.01, 0.5, 3.0, 9.0)) if self.trouble else 0.01

    def turn(self, number: int) -> None:
        end, sent = self.ends[number], self.clock(number)
        step = end.step(sent)
        lost = self.trouble and self.random.random() < 0.2
        self.after(self.delay(), lambda: self.arrive(number, step, sent, lost))
        if lost:
            self.thaw(number, self.delay(), lambda: end.failed(self.clock(number)))

    def arrive(self, number: int, step: Look | Take | Renew, sent: float, lost: bool) -> None:
        outcome = self.outcome(self.ends[number], step, sent)
        if not lost:
            self.thaw(number, self.delay(), lambda: outcome(self.clock(number)))

    def outcome(self, end: Lease, step: Look | Take | Renew, sent: float) -> Callable[[float], None]:
        """Do what was asked of the row; return how the process learns of it, by its clock then."""
        row = self.row
        match step:
            case Look():
                return lambda now: end.looked(row, now)
            case Take(seen) if seen == row:
                self.row = Row(end.own, row.epoch + 1)
                self.led.append((self.row.epoch, end.own))
                return lambda _: end.taken(row.epoch + 1, sent)
            case Take():
                return end.failed
            case Renew(epoch) if (row.holder, row.epoch) == (end.own, epoch):
                self.row = Row(row.holder, row.epoch, row.beat + 1)
                return lambda _: end.renewed(sent)
            case Renew():
                return lambda _: end.lost()

    def thaw(self, number: int, seconds: float, answer: Callable[[], None]) -> None:
        """Give the process its answer once it runs."""

        def given() -> None:
            if self.now < self.frozen[number]:
                self.after(self.frozen[number] - self.now, given)
                return
            answer()
            if self.trouble and self.random.random() < 0.05:
                self.frozen[number] = self.now + self.random.uniform(0, 30)
            self.after(self.ends[number].pause(self.clock(number)) + 1e-3, lambda: self.turn(number))

        self.after(seconds, given)

    def run(self, until: float) -> None:
        while self.queue and self.queue[0][0] <= until:
            self.now, _, what = heapq.heappop(self.queue)
            self.exclusive()
            what()
            self.exclusive()

    def leaders(self) -> list[tuple[int, str]]:
        found = [(end.epoch(self.clock(number)), end.own) for number, end in enumerate(self.ends)]
        return [(epoch, own) for epoch, own in found if epoch is not None]

    def exclusive(self) -> None:
        leaders = self.leaders()
        assert len(leaders) <= 1, f"at {self.now}: {leaders}"
        assert set(leaders) <= set(self.led)


@given(st.integers(0, 2**32), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_at_most_one_leads_and_epochs_only_grow(seed: int, processes: int) -> None:
    world = World(seed, processes)
    world.run(200)
    epochs = [epoch for epoch, _ in world.led]
    assert epochs == sorted(set(epochs)), "no epoch has two holders"
    world.trouble = False
    world.run(300)
    before = world.led[:]
    assert len(world.leaders()) == 1, "somebody leads once all is well"
    world.run(400)
    assert world.led == before, "and keeps leading"


def test_who_cannot_renew_stops_before_another_may_take_over() -> None:
    one, other = Lease("one", TERMS), Lease("other", TERMS)
    one.looked(Row(), 0)
    assert one.step(0) == Take(Row())
    one.taken(1, 0)
    other.looked(Row("one", 1, 0), 0.2)
    assert one.epoch(4.99) == 1
    one.failed(4.0)
    assert one.epoch(5.0) is None
    assert other.step(6.1) == Look()
    other.looked(Row("one", 1, 0), 6.19)
    assert not isinstance(other.step(6.19), Take)
    assert other.step(6.2) == Take(Row("one", 1, 0))


def test_a_renewal_counts_from_before_it_was_sent() -> None:
    one = Lease("one", TERMS)
    one.looked(Row(), 0)
    one.taken(1, 0)
    one.renewed(1.5)  # whose answer came at 4, say
    assert one.remaining(4.0) == pytest.approx(1.5 + 5.0 - 4.0)


def test_a_lease_that_was_given_back_or_is_this_process_own_is_taken_at_once() -> None:
    for holder in ("", "one"):
        one = Lease("one", TERMS)
        one.looked(Row(holder, 7, 3), 100)
        assert one.pause(100) == 0
        assert one.step(100) == Take(Row(holder, 7, 3))


def test_alone_there_is_nobody_to_wait_for() -> None:
    one = Lease("one", TERMS, alone=True)
    one.looked(Row("who was killed", 7, 3), 100)
    assert one.step(100) == Take(Row("who was killed", 7, 3))


def test_a_take_of_unknown_outcome_is_looked_at_before_the_next() -> None:
    one = Lease("one", TERMS)
    one.looked(Row(), 0)
    assert isinstance(one.step(0), Take)
    one.failed(1)
    assert one.epoch(1) is None
    assert one.step(2) == Look()
    one.looked(Row("one", 1, 0), 2)  # it had been done
    assert one.step(2) == Take(Row("one", 1, 0)), "in an epoch of its own, for nobody acts in the first"


@pytest.mark.parametrize("terms", [(6, 1.5, 0), (6, 3, 1), (2, 0.1, 1.5), (6, 0, 1)])
def test_impossible_terms_are_refused(terms: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="lease"):
        Terms(*terms)
