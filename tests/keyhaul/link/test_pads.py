from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhaul.keys.material import KeyMaterial
from keyhaul.link.pads import MAXIMUM_GAPS, Block, PadShortage, PadSpent, ReceiverPads, SenderPads
from keyhaul.transport.messages.link import Stream


def block(number: int, start: int, length: int) -> Block:
    """A block whose every byte is told by its offset."""
    return Block(number, Stream.PAYLOAD, start, b"", KeyMaterial(content(start, length)))


def content(start: int, length: int) -> bytes:
    return bytes((offset * 7 + offset // 256) % 251 for offset in range(start, start + length))


def layout(lengths: list[tuple[int, int]]) -> list[Block]:
    """Blocks of some lengths with some gaps before each."""
    blocks, offset = [], 0
    for number, (gap, length) in enumerate(lengths, 1):
        offset += gap
        blocks.append(block(number, offset, length))
        offset += length
    return blocks


LAYOUTS = st.lists(st.tuples(st.sampled_from([0, 0, 0, 5]), st.integers(1, 60)), min_size=1, max_size=8)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 70)),
        st.tuples(st.just("lease"), st.integers(0, 500)),
        st.tuples(st.just("burn"), st.integers(0, 500)),
        st.tuples(st.just("remove"), st.integers(1, 8)),
    ),
    max_size=40,
)


@given(LAYOUTS, STEPS, st.integers(0, 40))
def test_a_sender_gives_out_each_byte_once_and_only_when_leased(
    lengths: list[tuple[int, int]], steps: list[tuple[str, int]], position: int
) -> None:
    pads = SenderPads(layout(lengths), position=position, requested=position)
    total = sum(length for _, length in lengths)
    given_out: set[int] = set()
    burned_below = position
    removed: set[int] = set()
    for step, argument in steps:
        if step == "take":
            fits = pads.fits(argument)
            try:
                offset, bits = pads.take(argument)
            except PadShortage:
                assert not fits
                continue
            assert fits
            assert bits == content(offset, argument)
            places = set(range(offset, offset + argument))
            assert not places & given_out
            assert not places & removed
            assert offset >= burned_below
            assert offset + argument <= min(pads.requested, pads.granted)
            given_out |= places
        elif step == "lease":
            pads.requested = max(pads.requested, argument)
            pads.granted = max(pads.granted, argument - 3)
        elif step == "burn":
            pads.burn_below(argument)
            burned_below = max(burned_below, argument)
        else:
            for each in pads.blocks:
                if each.number == argument:
                    removed |= set(range(max(each.start, pads.position), each.end))
            pads.remove(argument)
        assert pads.used + pads.burned + pads.level == total
        assert pads.level == sum(each.unused for each in pads.blocks)


def test_what_was_confirmed_adds_up_and_what_was_there_before_is_not_in_it() -> None:
    pads = SenderPads([block(1, 0, 64)], requested=500, granted=500)
    assert pads.added == 0
    pads.add(block(2, 64, 100))
    pads.take(80)
    pads.add(block(3, 164, 50))
    pads.remove(2)
    assert pads.added == 150
    assert pads.used + pads.burned + pads.level == 64 + pads.added


def test_what_a_sender_gave_out_is_wiped() -> None:
    first = block(1, 0, 32)
    pads = SenderPads([first], requested=32, granted=32)
    pads.take(16)
    assert first.material.reveal(0, 16) == bytes(16)
    assert first.material.reveal(16) == content(16, 16)
    pads.take(16)
    assert pads.finished() == [1]
    assert pads.finished() == []


def test_what_must_stay_leased_stays() -> None:
    pads = SenderPads([block(1, 0, 64)], requested=64, granted=64)
    with pytest.raises(PadShortage):
        pads.take(16, keep=49)
    assert pads.take(16, keep=48)[0] == 0


def test_a_range_may_span_blocks_that_touch_but_no_gap() -> None:
    pads = SenderPads([block(1, 0, 10), block(2, 10, 10), block(3, 25, 30)], requested=99, granted=99)
    assert pads.take(15) == (0, content(0, 15))
    assert pads.take(15) == (25, content(25, 15))
    assert pads.burned == 5


@given(
    LAYOUTS,
    st.lists(
        st.tuples(st.sampled_from(["use", "use", "use", "burn"]), st.integers(-5, 500), st.integers(0, 70)),
        max_size=60,
    ),
)
def test_a_receiver_accepts_each_byte_once(lengths: list[tuple[int, int]], steps: list[tuple[str, int, int]]) -> None:
    blocks = layout(lengths)
    there = {offset for each in blocks for offset in range(each.start, each.end)}
    granted = max(there)
    pads = ReceiverPads(blocks, granted=granted)
    spent: set[int] = set()
    for step, offset, count in steps:
        if step == "burn":
            pads.burn_below(offset)
            spent |= set(range(max(0, offset)))
            continue
        places = set(range(offset, offset + count))
        fine = count > 0 and places <= there and not places & spent and offset + count <= granted
        if fine:
            assert pads.read(offset, count) == content(offset, count)
            pads.use(offset, count)
            spent |= places
        else:
            with pytest.raises(PadSpent):
                pads.use(offset, count)
        assert pads.level == len(there - spent)
    assert sorted(pads.finished()) == sorted(
        each.number for each in layout(lengths) if set(range(each.start, each.end)) <= spent
    )


def test_gaps_are_bounded() -> None:
    pads = ReceiverPads([block(1, 0, 4 * MAXIMUM_GAPS)], granted=4 * MAXIMUM_GAPS)
    for number in range(MAXIMUM_GAPS + 100):
        pads.use(3 * number + 1, 1)
    assert len(pads._spent) <= MAXIMUM_GAPS
    with pytest.raises(PadSpent):
        pads.read(0, 1)


def test_both_sides_agree_in_any_order() -> None:
    shuffle = random.Random(7)
    sender = SenderPads([block(1, 0, 400), block(2, 400, 400)], requested=800, granted=800)
    receiver = ReceiverPads([block(1, 0, 400), block(2, 400, 400)], granted=800)
    messages = [sender.take(shuffle.randint(1, 30)) for _ in range(40)]
    shuffle.shuffle(messages)
    for offset, bits in messages:
        assert receiver.read(offset, len(bits)) == bits
        receiver.use(offset, len(bits))
    assert receiver.level == sender.level


def test_blocks_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError):
        SenderPads([block(1, 0, 10), block(2, 9, 10)])
    pads = ReceiverPads([block(1, 0, 10)])
    with pytest.raises(ValueError):
        pads.add(block(2, 9, 10))
