"""What two reports of one direction decide: where its streams go on, and which blocks stay.

A pure function of the sender's and the receiver's report, so that both ends come to the same result.
"""

from __future__ import annotations

from dataclasses import dataclass

from keyhaul.transport.messages.link import DirectionReport, Stream

STREAMS = (Stream.CONTROL, Stream.PAYLOAD)
MAXIMUM_REPORTED_BLOCKS = 4096


class MalformedReport(ValueError):
    """A report that no correct end could have made."""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The view that both ends share from now on."""

    floors: dict[Stream, int]
    """Everything below is burned."""
    requested: dict[Stream, int]
    """The sender's bounds from now on."""
    granted: dict[Stream, int]
    """The receiver's bounds from now on."""
    ends: dict[Stream, int]
    """The next block of a stream starts here."""
    last_block: int
    """The next block's number is one more."""
    kept: frozenset[int]
    """Numbers of the blocks that stay."""
    restored: str = ""
    """Whose store is older than the other end's record, `sender` or `receiver`; then the whole lane is burned."""


def bound(report: DirectionReport, stream: Stream) -> int:
    """The reported bound of a stream."""
    return report.control_bound if stream is Stream.CONTROL else report.payload_bound


def floor(report: DirectionReport, stream: Stream) -> int:
    """The reported floor of a stream."""
    return report.control_floor if stream is Stream.CONTROL else report.payload_floor


def end(report: DirectionReport, stream: Stream) -> int:
    """The reported end of a stream."""
    return report.control_end if stream is Stream.CONTROL else report.payload_end


def check(report: DirectionReport) -> None:
    """Refuse what no correct end reports.

    Raises:
        MalformedReport: negative or contradicting figures, or blocks that overlap or exceed the end.
    """
    if len(report.blocks) > MAXIMUM_REPORTED_BLOCKS:
        raise MalformedReport("too many blocks")
    if report.last_block < 0:
        raise MalformedReport("a negative block number")
    ends = dict.fromkeys(STREAMS, 0)
    number = 0
    for block in sorted(report.blocks, key=lambda each: each.number):
        if block.number <= number or block.start < ends[block.stream] or block.length <= 0:
            raise MalformedReport("blocks overlap or are out of order")
        number, ends[block.stream] = block.number, block.start + block.length
    if number > report.last_block:
        raise MalformedReport("a block above the last one")
    for stream in STREAMS:
        if min(bound(report, stream), floor(report, stream)) < 0 or floor(report, stream) > bound(report, stream):
            raise MalformedReport("a floor that is not within its bound")
        if end(report, stream) < ends[stream]:
            raise MalformedReport("a block beyond the stream's end")


def reconcile(sender: DirectionReport, receiver: DirectionReport) -> Reconciliation:
    """Decide from what both ends durably know of a direction how it goes on.

    Raises:
        MalformedReport: one of the reports contradicts itself.
    """
    check(sender)
    check(receiver)
    ends = {stream: max(end(sender, stream), end(receiver, stream)) for stream in STREAMS}
    last_block = max(sender.last_block, receiver.last_block)
    restored = _older(sender, receiver)
    if restored:
        floors = {stream: max(bound(sender, stream), bound(receiver, stream), ends[stream]) for stream in STREAMS}
        return Reconciliation(floors, floors, floors, floors, last_block, frozenset(), restored)
    floors = {stream: floor(sender, stream) for stream in STREAMS}
    known = {block.number: block for block in receiver.blocks}
    return Reconciliation(
        floors=floors,
        requested={stream: bound(sender, stream) for stream in STREAMS},
        granted={stream: bound(receiver, stream) for stream in STREAMS},
        ends={stream: max(ends[stream], floors[stream]) for stream in STREAMS},
        last_block=last_block,
        kept=frozenset(
            block.number
            for block in sender.blocks
            if known.get(block.number) == block and block.start + block.length > floors[block.stream]
        ),
    )


def _older(sender: DirectionReport, receiver: DirectionReport) -> str:
    if any(bound(sender, stream) < bound(receiver, stream) for stream in STREAMS):
        return "sender"
    if receiver.last_block > sender.last_block + 1:
        return "sender"
    if receiver.last_block < sender.last_block:
        return "receiver"
    return ""
