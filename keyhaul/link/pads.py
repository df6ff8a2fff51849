"""The pad streams of one direction: which bytes there are, which were used, and how far use is leased.

A stream is a sequence of bytes whose offsets only grow. Bytes come in blocks that both ends confirmed. The sender
takes each range once, in ascending order and below what it requested and was granted; the receiver reads the
ranges that messages name, in any order, and each byte serves at most one message there too.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from keyhaul.keys.material import KeyMaterial
from keyhaul.transport.messages.link import BlockReport, Stream

BOOTSTRAP_LENGTH = 1024
"""Bytes of bootstrap control pad per direction and session, at the offsets -1024 to -1."""

MAXIMUM_GAPS = 4096
"""Runs of used pad that a receiver tracks; beyond it the oldest gap counts as burned."""


class PadShortage(Exception):
    """The sender may not use that many bytes now: they are not leased, or not there."""


class PadSpent(Exception):
    """The receiver cannot use a range: it was used or burned, never granted, or never there."""


@dataclass(slots=True)
class Block:
    """A run of pad that both ends confirmed."""

    number: int
    stream: Stream
    start: int
    """Byte offset of its first byte in the stream."""
    digest: bytes
    """SHA-256 of the concatenated key IDs."""
    material: KeyMaterial
    unused: int = field(init=False)
    """Bytes that were neither used nor burned."""

    def __post_init__(self) -> None:
        self.unused = len(self.material)

    @property
    def end(self) -> int:
        """Byte offset after its last byte."""
        return self.start + len(self.material)

    def report(self) -> BlockReport:
        """What the other end may know of it."""
        return BlockReport(self.number, self.stream, self.start, len(self.material), self.digest)


def digest(key_ids: Iterable[UUID]) -> bytes:
    """The digest of a block's key IDs."""
    return hashlib.sha256(b"".join(key_id.bytes for key_id in key_ids)).digest()


class PadStream:
    """Blocks in the order of their offsets; the base of both ends' streams."""

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self._blocks = sorted(blocks, key=lambda block: block.start)
        self._starts = [block.start for block in self._blocks]
        for before, after in zip(self._blocks, self._blocks[1:], strict=False):
            if before.end > after.start:
                raise ValueError(f"blocks {before.number} and {after.number} overlap")
        self.level = sum(block.unused for block in self._blocks)
        """Bytes that were neither used nor burned, leased or not."""
        self.burned = 0
        """Bytes burned in this process."""
        self.used = 0
        """Bytes used in this process."""
        self.added = 0
        """Bytes confirmed in this process."""
        self._finished: list[int] = []

    @property
    def blocks(self) -> list[Block]:
        """The blocks that still have unused bytes, by offset."""
        return list(self._blocks)

    def add(self, block: Block) -> None:
        """Append a confirmed block; it lies above all others."""
        if self._blocks and block.start < self._blocks[-1].end:
            raise ValueError(f"block {block.number} overlaps block {self._blocks[-1].number}")
        self._blocks.append(block)
        self._starts.append(block.start)
        self.level += block.unused
        self.added += block.unused

    def remove(self, number: int) -> int:
        """Burn a block whole; return how many unused bytes it had."""
        for index, block in enumerate(self._blocks):
            if block.number == number:
                burned = block.unused
                self._discard(block)
                del self._blocks[index], self._starts[index]
                self.burned += burned
                self.level -= burned
                return burned
        return 0

    def whole(self, number: int) -> bytes:
        """A copy of a block of which nothing was used; empty where there is no such block."""
        for block in self._blocks:
            if block.number == number and block.unused == len(block.material):
                return block.material.reveal()
        return b""

    def finished(self) -> list[int]:
        """Numbers of blocks of which nothing is left; each is told once, so that its row can be purged."""
        finished, self._finished = self._finished, []
        return finished

    def _copy(self, offset: int, count: int) -> bytes | None:
        """The bytes from an offset on, None where they are not all there."""
        index = bisect_right(self._starts, offset) - 1
        if index < 0 or count < 0:
            return None
        block = self._blocks[index]
        first = offset - block.start
        if first + count <= len(block.material):
            return block.material.reveal(first, first + count)
        parts: list[bytes] = []
        end = offset + count
        while offset < end:
            if index >= len(self._blocks) or not self._blocks[index].start <= offset < self._blocks[index].end:
                return None
            block = self._blocks[index]
            stop = min(end, block.end)
            parts.append(block.material.reveal(offset - block.start, stop - block.start))
            offset = stop
            index += 1
        return b"".join(parts)

    def _spend(self, start: int, stop: int) -> int:
        """Wipe a range of which no byte was spent before; return how many of its bytes were there."""
        index = max(0, bisect_right(self._starts, start) - 1)
        spent = 0
        while index < len(self._blocks) and self._blocks[index].start < stop:
            block = self._blocks[index]
            low, high = max(start, block.start), min(stop, block.end)
            if low < high:
                block.material.wipe(low - block.start, high - block.start)
                block.unused -= high - low
                spent += high - low
                if not block.unused:
                    self._finished.append(block.number)
                    del self._blocks[index], self._starts[index]
                    continue
            index += 1
        self.level -= spent
        return spent

    def _discard(self, block: Block) -> None:
        block.material.wipe()
        block.unused = 0
        self._finished.append(block.number)


class SenderPads(PadStream):
    """The sender's side of a stream: hands out each range once."""

    def __init__(
        self, blocks: Iterable[Block] = (), *, position: int = 0, requested: int = 0, granted: int = 0
    ) -> None:
        super().__init__(blocks)
        self.position = position
        """Nothing at or above this offset was ever used."""
        self.requested = requested
        """Durably recorded: use below this offset may happen."""
        self.granted = granted
        """The receiver's durable record of the same."""
        self.burned += self._spend(self._starts[0], position) if self._starts and self._starts[0] < position else 0

    @property
    def leased(self) -> int:
        """Bytes that may be taken now (an upper limit where blocks were burned in between)."""
        return max(0, min(self.requested, self.granted, self.position + self.level) - self.position)

    def fits(self, count: int, keep: int = 0) -> bool:
        """Whether `take` with the same arguments would succeed."""
        offset = self._place(count)
        return offset is not None and offset + count + keep <= min(self.requested, self.granted)

    def take(self, count: int, keep: int = 0) -> tuple[int, bytes]:
        """Hand out the next `count` bytes, once and for all; return their offset and a copy of them.

        What has to be skipped, because the run it is in is too short, is burned.

        Args:
            count: bytes.
            keep: bytes that must stay leased afterwards, for more important uses.

        Raises:
            PadShortage: nothing was taken.
        """
        offset = self._place(count)
        if offset is None or offset + count + keep > min(self.requested, self.granted):
            raise PadShortage(f"{count} bytes of pad are not leased")
        if offset > self.position:
            self.burn_below(offset)
        bits = self._copy(offset, count)
        assert bits is not None
        self.position = offset + count
        self.used += self._spend(offset, offset + count)
        return offset, bits

    def bound_for(self, count: int) -> int | None:
        """The bound under which `count` more bytes can be taken; None where there are not so many."""
        offset = self._place(count)
        return None if offset is None else offset + count

    def bound_within(self, count: int) -> int:
        """The bound for the next `count` bytes, or for all there are when they are fewer."""
        bound = self.bound_for(count)
        if bound is not None:
            return bound
        return self._blocks[-1].end if self._blocks else self.position

    def burn_below(self, offset: int) -> int:
        """Never use anything below an offset; return how many bytes that burned."""
        if offset <= self.position:
            return 0
        burned = self._spend(self.position, offset)
        self.position = offset
        self.burned += burned
        return burned

    def _place(self, count: int) -> int | None:
        """The lowest offset from the position on where `count` bytes lie in one run, None where there is none."""
        start = end = None
        for block in self._blocks:
            if block.start != end:
                start = max(block.start, self.position)
            end = block.end
            assert start is not None
            if end - start >= count:
                return start
        return None


class ReceiverPads(PadStream):
    """The receiver's side of a stream: finds the ranges that messages name, each byte once."""

    def __init__(self, blocks: Iterable[Block] = (), *, granted: int = 0, floor: int = 0) -> None:
        super().__init__(blocks)
        self.granted = granted
        """Durably recorded: the sender may use what lies below this offset."""
        self._floor = floor
        """Everything below it was used or burned."""
        self._spent: list[tuple[int, int]] = []
        """Ranges above the floor that were used, ascending, apart from each other."""
        if self._starts and self._starts[0] < floor:
            self.burned += self._spend(self._starts[0], floor)

    def read(self, offset: int, count: int) -> bytes:
        """Return a copy of bytes that no accepted message used yet; they are not marked.

        Raises:
            PadSpent: some of them were used or burned, are not granted, or do not exist.
        """
        end = offset + count
        if offset < self._floor or count <= 0 or end > self.granted:
            raise PadSpent("the pad lies outside of what may be used")
        index = bisect_left(self._spent, (end, end))
        if index and self._spent[index - 1][1] > offset:
            raise PadSpent("the pad was used")
        bits = self._copy(offset, count)
        if bits is None:
            raise PadSpent("there is no such pad")
        return bits

    def use(self, offset: int, count: int) -> None:
        """Mark and wipe bytes that an authenticated message used.

        Raises:
            PadSpent: as `read`; nothing is marked then.
        """
        self.read(offset, count)
        end = offset + count
        self.used += self._spend(offset, end)
        index = bisect_left(self._spent, (offset, end))
        low, high = index, index
        if low and self._spent[low - 1][1] == offset:
            low -= 1
            offset = self._spent[low][0]
        if high < len(self._spent) and self._spent[high][0] == end:
            end = self._spent[high][1]
            high += 1
        self._spent[low:high] = [(offset, end)]
        if offset <= self._floor:
            self._floor = end
            del self._spent[0]
        elif len(self._spent) > MAXIMUM_GAPS:
            self.burn_below(self._spent[0][1])

    def burn_below(self, offset: int) -> int:
        """Never accept anything below an offset; return how many unused bytes that burned."""
        if offset <= self._floor:
            return 0
        burned = 0
        low = self._floor
        while self._spent and self._spent[0][0] < offset:
            start, end = self._spent.pop(0)
            burned += self._spend(low, start)
            low = end
        if low < offset:
            burned += self._spend(low, offset)
            low = offset
        self._floor = low
        self.burned += burned
        return burned
