from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhaul.link.reconciliation import MalformedReport, reconcile
from keyhaul.transport.messages.link import BlockReport, DirectionReport, Stream


@st.composite
def reports(draw: st.DrawFn) -> DirectionReport:
    """Any report that does not contradict itself."""
    ends = dict.fromkeys(Stream, 0)
    blocks = []
    number = 0
    for _ in range(draw(st.integers(0, 4))):
        number += draw(st.integers(1, 2))
        stream = draw(st.sampled_from(list(Stream)))
        start = ends[stream] + draw(st.sampled_from([0, 0, 32]))
        length = draw(st.sampled_from([32, 64]))
        ends[stream] = start + length
        blocks.append(BlockReport(number, stream, start, length, draw(st.sampled_from([b"x", b"x", b"y"]))))
    bounds = {stream: draw(st.integers(0, ends[stream] + 16)) for stream in Stream}
    return DirectionReport(
        control_bound=bounds[Stream.CONTROL],
        payload_bound=bounds[Stream.PAYLOAD],
        last_block=number + draw(st.integers(0, 1)),
        blocks=blocks,
        control_floor=draw(st.integers(0, bounds[Stream.CONTROL])),
        payload_floor=draw(st.integers(0, bounds[Stream.PAYLOAD])),
        control_end=ends[Stream.CONTROL] + draw(st.integers(0, 40)),
        payload_end=ends[Stream.PAYLOAD] + draw(st.integers(0, 40)),
    )


@given(reports(), reports())
def test_what_was_leased_to_a_lost_sender_is_never_used_again(
    sender: DirectionReport, receiver: DirectionReport
) -> None:
    view = reconcile(sender, receiver)
    for stream in Stream:
        name = stream.value
        assert view.floors[stream] >= getattr(sender, f"{name}_floor")
        if getattr(sender, f"{name}_bound") < getattr(receiver, f"{name}_bound"):
            assert not view.kept
            assert view.floors[stream] >= getattr(receiver, f"{name}_bound")
        assert view.requested[stream] >= view.floors[stream]
        assert view.requested[stream] >= view.granted[stream] or view.restored
        for report in (sender, receiver):
            assert view.ends[stream] >= getattr(report, f"{name}_end")
    assert view.last_block >= max(sender.last_block, receiver.last_block)


@given(reports(), reports())
def test_only_blocks_that_both_ends_know_alike_stay(sender: DirectionReport, receiver: DirectionReport) -> None:
    view = reconcile(sender, receiver)
    ours = {block.number: block for block in sender.blocks}
    theirs = {block.number: block for block in receiver.blocks}
    for number in view.kept:
        assert ours[number] == theirs[number]
        assert ours[number].start + ours[number].length <= view.ends[ours[number].stream]
    assert all(
        number in view.kept
        or view.restored
        or theirs.get(number) != block
        or block.start + block.length <= view.floors[block.stream]
        for number, block in ours.items()
    )


@given(reports())
def test_ends_that_agree_burn_only_what_was_used_or_leased_and_forgotten(report: DirectionReport) -> None:
    view = reconcile(report, report)
    assert not view.restored
    assert {stream: view.floors[stream] for stream in Stream} == {
        Stream.CONTROL: report.control_floor,
        Stream.PAYLOAD: report.payload_floor,
    }


@pytest.mark.parametrize(
    ("sender", "receiver", "whose"),
    [
        ({"control_bound": 10}, {"control_bound": 11}, "sender"),
        ({"payload_bound": 10}, {"payload_bound": 11}, "sender"),
        ({"last_block": 3}, {"last_block": 5}, "sender"),
        ({"last_block": 3}, {"last_block": 4}, ""),
        ({"last_block": 3}, {"last_block": 3}, ""),
        ({"last_block": 3}, {"last_block": 2}, "receiver"),
        ({"control_bound": 11}, {"control_bound": 10}, ""),
    ],
)
def test_an_older_store_is_told_from_what_the_other_end_saw(
    sender: dict[str, int], receiver: dict[str, int], whose: str
) -> None:
    nothing: dict[str, Any] = {"control_bound": 0, "payload_bound": 0, "last_block": 0}
    view = reconcile(DirectionReport(**{**nothing, **sender}), DirectionReport(**{**nothing, **receiver}))
    assert view.restored == whose


@pytest.mark.parametrize(
    "report",
    [
        DirectionReport(-1, 0, 0),
        DirectionReport(0, 0, -1),
        DirectionReport(5, 0, 0, control_floor=6),
        DirectionReport(0, 0, 0, [BlockReport(1, Stream.CONTROL, 0, 32, b"")], control_end=32),
        DirectionReport(0, 0, 1, [BlockReport(1, Stream.CONTROL, 0, 32, b"")], control_end=31),
        DirectionReport(0, 0, 2, [BlockReport(n, Stream.CONTROL, 0, 32, b"") for n in (1, 2)], control_end=64),
        DirectionReport(0, 0, 1, [BlockReport(1, Stream.CONTROL, 0, 0, b"")]),
    ],
)
def test_reports_that_contradict_themselves_are_refused(report: DirectionReport) -> None:
    with pytest.raises(MalformedReport):
        reconcile(report, DirectionReport(0, 0, 0))
    with pytest.raises(MalformedReport):
        reconcile(DirectionReport(0, 0, 0), report)
