"""What a direction wants durable before it goes on: returned by the cores, written by whoever drives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from keyhaul.link.pads import Block
from keyhaul.link.reconciliation import STREAMS, Reconciliation
from keyhaul.transport.messages.link import DirectionReport, Stream

PURGE_CHUNK = 100
"""Rows purged in one write."""


class Side(StrEnum):
    """Which direction of the link, as seen from this end."""

    OUTGOING = "outgoing"
    INCOMING = "incoming"


@dataclass(frozen=True, slots=True)
class DirectionState:
    """The durable figures of one direction at one end; offsets and ends in bytes of their stream."""

    bounds: Mapping[Stream, int]
    """Sender: requested; receiver: granted."""
    ends: Mapping[Stream, int]
    """Greatest end of any block ever recorded."""
    last_block: int = 0
    """Highest block number ever recorded."""

    @classmethod
    def empty(cls) -> DirectionState:
        """The state of a link that never was."""
        return cls({Stream.CONTROL: 0, Stream.PAYLOAD: 0}, {Stream.CONTROL: 0, Stream.PAYLOAD: 0})

    def report(self, blocks: Iterable[Block], floors: Mapping[Stream, int] | None = None) -> DirectionReport:
        """The state as the other end gets it; `floors` by the sender alone."""
        return DirectionReport(
            control_bound=self.bounds[Stream.CONTROL],
            payload_bound=self.bounds[Stream.PAYLOAD],
            last_block=self.last_block,
            blocks=sorted((block.report() for block in blocks), key=lambda block: block.number),
            control_floor=floors[Stream.CONTROL] if floors else 0,
            payload_floor=floors[Stream.PAYLOAD] if floors else 0,
            control_end=self.ends[Stream.CONTROL],
            payload_end=self.ends[Stream.PAYLOAD],
        )

    def reconciled(self, view: Reconciliation, bounds: Mapping[Stream, int]) -> DirectionState:
        """The state after a reconciliation; nothing in it ever falls.

        Args:
            view: what both ends decided.
            bounds: those of this side in it.
        """
        return DirectionState(
            {stream: max(bounds[stream], self.bounds[stream]) for stream in STREAMS},
            {stream: max(view.ends[stream], self.ends[stream]) for stream in STREAMS},
            max(view.last_block, self.last_block),
        )


@dataclass(frozen=True, slots=True)
class Record:
    """One durable change of a direction; what follows from it happens in `committed`, after it was written."""

    side: Side
    state: DirectionState
    add: tuple[Block, ...] = ()
    drop: tuple[int, ...] = ()
    """Numbers of blocks whose bits must go."""
    void: int = 0
    """Number of a block that was offered and is burned; 0: none."""
    keep_only: frozenset[int] | None = None
    """After a reconciliation: every other block goes."""
