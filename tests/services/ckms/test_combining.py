"""Shares where their paths end: a set is put together once, whole, or what came of it is wiped and answered."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ckms import combining
from services.ckms.combining import ANSWER, EXPECTED, MAXIMUM_BYTES, OVERHEAD, Combining, Given, Share, Spoiled, Whole
from services.ckms.shares import divide, name_of

BATCH, OTHER = "a" * 32, "b" * 32
BITS = b"the bits of one batch, whole"
LENGTH = len(BITS)


def share(
    number: int,
    shares: int = 2,
    *,
    batch: str = BATCH,
    previous: str | None = None,
    reference: str | None = None,
    deadline: float = 10.0,
) -> Share:
    return Share(
        reference or f"{batch[:4]}-{number}",
        previous or f"ckms-{number}",
        f"label-{number}",
        name_of(batch, number, shares),
        deadline,
    )


def pieces(bits: bytes = BITS, shares: int = 2) -> list[bytes]:
    return divide(bits, shares, random.Random(3).randbytes)


def clean(table: Combining) -> bool:
    """Nothing waits, and no room is taken."""
    return (
        not table.waiting
        and not table._early
        and not table._sets
        and not table._places
        and table._room == MAXIMUM_BYTES
        and not table._held
    )


@pytest.mark.parametrize("announced", [0, 1, 2, 3])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_shares_are_put_together_in_whatever_order_they_and_their_announcement_come(
    announced: int, order: tuple[int, ...]
) -> None:
    table, divided = Combining(), pieces(shares=3)
    found: list[Whole | Given] = []
    for place, number in enumerate(order):
        if place == announced:
            found += table.expect(BATCH, LENGTH, 0.0) or []
        assert not found
        found += table.add(share(number, 3), divided[number], 0.0)
    if announced == 3:
        found += table.expect(BATCH, LENGTH, 0.0) or []
    [whole] = found
    assert isinstance(whole, Whole)
    assert (whole.batch, whole.bits) == (BATCH, BITS)
    assert {one.reference for one in whole.shares} == {"aaaa-0", "aaaa-1", "aaaa-2"}
    assert table.completed == 1
    assert clean(table)


def given_up(found: list[Whole | Given] | None) -> Given:
    assert found is not None
    [one] = found
    assert isinstance(one, Given)
    return one


def test_a_share_that_comes_twice_ends_its_set() -> None:
    table, (first, second) = Combining(), pieces()
    table.expect(BATCH, LENGTH, 0.0)
    assert table.add(share(0), first, 0.0) == []
    again = given_up(table.add(share(0, reference="again", previous="ckms-7"), first, 0.0))
    assert (set(again.references), again.reason) == ({"aaaa-0", "again"}, Spoiled.DOUBLED)
    late = given_up(table.add(share(1), second, 0.0))
    assert (late.references, late.reason) == (("aaaa-1",), Spoiled.OVER)
    assert clean(table)
    assert table.spoiled == {**dict.fromkeys(Spoiled, 0), Spoiled.DOUBLED: 2, Spoiled.OVER: 1}


def test_a_share_that_comes_twice_before_its_announcement_ends_its_set_too() -> None:
    table, (first, second) = Combining(), pieces()
    table.add(share(0), first, 0.0)
    again = given_up(table.add(share(0, reference="again"), first, 0.0))
    assert (again.references, again.reason) == (("aaaa-0", "again"), Spoiled.DOUBLED)
    assert table.expect(BATCH, LENGTH, 0.0) == []
    assert table.add(share(1), second, 0.0) == []
    alone = given_up(table.expire(9.6))
    assert (alone.references, alone.reason) == (("aaaa-1",), Spoiled.INCOMPLETE)
    assert clean(table)


def test_what_comes_again_after_its_set_was_complete_is_refused() -> None:
    table, (first, second) = Combining(), pieces()
    table.expect(BATCH, LENGTH, 0.0)
    table.add(share(0), first, 0.0)
    assert isinstance(table.add(share(1), second, 0.0)[0], Whole)
    again = given_up(table.add(share(1, reference="again"), second, 0.0))
    assert (again.references, again.reason) == (("again",), Spoiled.OVER)
    assert clean(table)


@pytest.mark.parametrize("wrong", [b"", b"short", BITS + b"!"])
def test_a_share_of_another_length_ends_its_set(wrong: bytes) -> None:
    table, (first, _) = Combining(), pieces()
    table.expect(BATCH, LENGTH, 0.0)
    table.add(share(0), first, 0.0)
    ended = given_up(table.add(share(1), wrong, 0.0))
    assert (set(ended.references), ended.reason) == ({"aaaa-0", "aaaa-1"}, Spoiled.UNLIKE)
    assert clean(table)


def test_shares_of_divisions_into_different_numbers_are_not_put_together() -> None:
    table, (first, _) = Combining(), pieces()
    table.expect(BATCH, LENGTH, 0.0)
    table.add(share(0, 2), first, 0.0)
    ended = given_up(table.add(share(1, 3), first, 0.0))
    assert (set(ended.references), ended.reason) == ({"aaaa-0", "aaaa-1"}, Spoiled.UNLIKE)
    assert clean(table)


def test_two_shares_over_one_neighbour_are_not_put_together() -> None:
    """Whoever that neighbour is has seen both."""
    table, (first, second) = Combining(), pieces()
    table.expect(BATCH, LENGTH, 0.0)
    table.add(share(0), first, 0.0)
    ended = given_up(table.add(share(1, previous="ckms-0"), second, 0.0))
    assert (set(ended.references), ended.reason) == ({"aaaa-0", "aaaa-1"}, Spoiled.TOGETHER)
    assert clean(table)


def test_shares_of_different_batches_are_not_put_together() -> None:
    """Though each set lacks just what the other has, of the same number."""
    table, (first, second) = Combining(), pieces()
    for batch in (BATCH, OTHER):
        table.expect(batch, LENGTH, 0.0)
    assert table.add(share(0), first, 0.0) == []
    assert table.add(share(1, batch=OTHER), second, 0.0) == []
    ended = table.expire(9.6)
    assert {one.references for one in ended if isinstance(one, Given)} == {("aaaa-0",), ("bbbb-1",)}
    assert table.spoiled[Spoiled.INCOMPLETE] == 2
    assert clean(table)


def test_what_is_incomplete_is_given_up_so_early_that_the_answer_is_of_use() -> None:
    table, (first, second) = Combining(), pieces()
    table.expect(BATCH, LENGTH, 0.0)
    table.add(share(0, deadline=4.0), first, 0.0)
    assert table.expire(4.0 - ANSWER - 0.001) == []
    ended = given_up(table.expire(4.0 - ANSWER))
    assert (ended.references, ended.reason) == (("aaaa-0",), Spoiled.INCOMPLETE)
    assert given_up(table.add(share(1), second, 3.6)).reason is Spoiled.OVER
    assert clean(table)


def test_a_share_that_comes_when_the_other_has_just_become_late_completes_nothing() -> None:
    """Though nobody has looked at the time since."""
    table, (first, second) = Combining(), pieces()
    table.expect(BATCH, LENGTH, 0.0)
    table.add(share(0, deadline=4.0), first, 0.0)
    ended = table.add(share(1), second, 3.6)
    assert [one.reason for one in ended if isinstance(one, Given)] == [Spoiled.INCOMPLETE, Spoiled.OVER]
    assert clean(table)


def test_a_share_with_little_time_waits_for_three_quarters_of_it() -> None:
    table, (first, _) = Combining(), pieces()
    table.expect(BATCH, LENGTH, 0.0)
    table.add(share(0, deadline=0.4), first, 0.0)
    assert table.expire(0.29) == []
    assert given_up(table.expire(0.301)).reason is Spoiled.INCOMPLETE


def test_what_nobody_announces_is_given_up() -> None:
    table, (first, _) = Combining(), pieces()
    table.add(share(0), first, 0.0)
    assert given_up(table.expire(9.5)).reason is Spoiled.UNEXPECTED
    assert table.expire(100.0) == []
    assert clean(table)


def test_what_is_announced_and_never_comes_is_forgotten() -> None:
    table = Combining()
    table.expect(BATCH, LENGTH, 0.0)
    table.expire(EXPECTED)
    assert clean(table)


def test_an_announcement_said_again_changes_nothing() -> None:
    table, (first, second) = Combining(), pieces()
    table.expect(BATCH, LENGTH, 0.0)
    table.add(share(0), first, 0.0)
    assert table.expect(BATCH, 7, 0.0) == []
    [whole] = table.add(share(1), second, 0.0)
    assert isinstance(whole, Whole)


def test_announcements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combining, "MAXIMUM_EXPECTED", 3)
    table = Combining()
    for number in range(3):
        assert table.expect(f"{number:032x}", LENGTH, 0.0) == []
    assert table.expect(BATCH, LENGTH, 0.0) is None
    assert table.expect(BATCH, LENGTH, EXPECTED) is not None


def test_one_path_cannot_fill_the_room_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combining, "MAXIMUM_BYTES", 10 * (OVERHEAD + LENGTH))
    table = Combining()
    refused = 0
    for number in range(100):
        came = Share(f"r{number}", "ckms-9", "label-9", f"{number:032x}", 10.0)
        found = table.add(came, bytes(LENGTH), 0.0)
        if found:
            assert given_up(found).reason is Spoiled.FULL
            refused += 1
    assert refused == 95
    divided = pieces()
    table.expect(BATCH, LENGTH, 0.0)
    table.add(share(0), divided[0], 0.0)
    [whole] = table.add(share(1), divided[1], 0.0)
    assert isinstance(whole, Whole)
    table.expire(10.0)
    assert table._room == combining.MAXIMUM_BYTES


def test_what_waits_is_wiped_when_it_is_given_up_or_put_together() -> None:
    table, (first, second) = Combining(), pieces()
    table.expect(BATCH, LENGTH, 0.0)
    table.add(share(0), first, 0.0)
    table.add(share(1, batch=OTHER), second, 0.0)
    held = [table._places[name_of(BATCH, 0, 2)][0].there[0].bits, *(one.bits for one in table._early.values())]
    assert [one.reveal() for one in held] == [first, second]
    table.wipe()
    assert not any(any(one.reveal()) for one in held)
    assert clean(table)


def test_nothing_that_waits_shows_in_text() -> None:
    table, (first, second) = Combining(), pieces()
    table.add(share(0), first, 0.0)
    table.expect(BATCH, LENGTH, 0.0)
    [whole] = table.add(share(1), second, 0.0)
    shown = repr(whole) + repr(table._sets) + repr(table._early)
    assert repr(BITS) not in shown
    assert repr(first) not in shown


@dataclass
class World:
    """Several batches on their way, to which everything happens; an oracle of what may come of it."""

    table: Combining = field(default_factory=Combining)
    now: float = 0.0
    bits: dict[str, bytes] = field(default_factory=dict)
    divided: dict[str, list[bytes]] = field(default_factory=dict)
    came: Counter[str] = field(default_factory=Counter)
    """References that were given to the table."""
    answered: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    altered: set[str] = field(default_factory=set)

    def take(self, found: list[Whole | Given] | None) -> None:
        for one in found or ():
            if isinstance(one, Given):
                self.answered.update(one.references)
                continue
            self.answered.update(part.reference for part in one.shares)
            self.whole[one.batch] += 1
            assert len({part.previous for part in one.shares}) == len(one.shares)
            assert self.now < min(part.deadline for part in one.shares)
            if one.batch not in self.altered:
                assert one.bits == self.bits[one.batch]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_happens_each_share_is_answered_once_and_only_whole_sets_are_delivered(data: st.DataObject) -> None:
    """Loss, doubling, reordering, delay, swaps between sets, wrong lengths, and times in any mixture."""
    world, seeded = World(), random.Random(data.draw(st.integers(0, 2**32)))
    batches = [f"{number:032x}" for number in range(data.draw(st.integers(1, 4)))]
    counts = {batch: data.draw(st.integers(2, 4)) for batch in batches}
    for batch in batches:
        world.bits[batch] = seeded.randbytes(8)
        world.divided[batch] = divide(world.bits[batch], counts[batch], seeded.randbytes)
    for step in range(data.draw(st.integers(1, 40))):
        batch = data.draw(st.sampled_from(batches))
        match data.draw(st.sampled_from(["expect", "share", "share", "share", "wait", "swapped", "cut", "altered"])):
            case "expect":
                world.take(world.table.expect(batch, 8, world.now))
            case "wait":
                world.now += data.draw(st.sampled_from([0.01, 0.5, 2.0, 70.0]))
                world.take(world.table.expire(world.now))
            case what:
                number = data.draw(st.integers(0, counts[batch] - 1))
                bits = world.divided[batch][number]
                if what == "swapped":
                    bits = world.divided[data.draw(st.sampled_from(batches))][0]
                    world.altered.add(batch)
                elif what == "altered":
                    bits = bytes(8)
                    world.altered.add(batch)
                elif what == "cut":
                    bits = bits[:-1]
                reference = f"r{step}"
                previous = f"ckms-{data.draw(st.sampled_from([number, number, number, 0]))}"
                came = Share(
                    reference,
                    previous,
                    f"label-{number}",
                    name_of(batch, number, counts[batch]),
                    world.now + data.draw(st.sampled_from([0.05, 1.0, 5.0, 60.0])),
                )
                world.came[reference] += 1
                world.take(world.table.add(came, bits, world.now))
    world.now += 200.0
    world.take(world.table.expire(world.now))
    assert world.answered == world.came
    assert max(world.whole.values(), default=0) <= 1
    assert clean(world.table)
