"""Keys that a sender offers as the next block: what of them both ends have, and which stream they are for (sans-IO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from keyhaul.transport.messages.link import Offer, Stream

MAXIMUM_BLOCKS = 512
"""Blocks of a direction at any time."""

WORTHWHILE = 640
"""Bytes that an offer should have: it costs both directions a tag."""


class ProtocolViolation(Exception):
    """The other end answered what no correct end answers."""


@dataclass(slots=True)
class PendingOffer:
    """An offer that is not answered yet."""

    offer: Offer
    bits: list[bytes] = field(repr=False)

    @classmethod
    def of(cls, number: int, stream: Stream, start: int, key_ids: Sequence[UUID], bits: Sequence[bytes]) -> Self:
        """Offer keys as a block that begins at an offset of a stream.

        Raises:
            ValueError: they are not all of one size, or there are none.
        """
        sizes = {len(each) for each in bits}
        if len(sizes) != 1 or 0 in sizes or len(key_ids) != len(bits):
            raise ValueError("an offer takes keys of one size")
        return cls(Offer(number, stream, start, list(key_ids), 8 * sizes.pop()), list(bits))

    def present(self, missing: Sequence[int]) -> tuple[list[UUID], bytes]:
        """IDs and bits that are left when some indices are missing.

        Raises:
            ProtocolViolation: an index is not of this offer.
        """
        absent = set(missing)
        if any(not 0 <= index < len(self.bits) for index in absent):
            raise ProtocolViolation("an unknown key is said to be missing")
        here = [index for index in range(len(self.bits)) if index not in absent]
        return [self.offer.key_ids[index] for index in here], b"".join(self.bits[index] for index in here)


def next_to_fill(levels: Mapping[Stream, int], sizes: Mapping[Stream, int], wanted: int) -> tuple[Stream, int] | None:
    """Which stream to fill next and how many bytes it lacks; None when all is full.

    A quarter of the reserve of control, as much payload and what messages wait for, the rest of control, the
    rest of payload: so a slow link carries its first message early. What lacks little is left alone: an offer
    costs pad, too.

    Args:
        levels: bytes of pad there are of each stream.
        sizes: bytes of pad to keep of each stream.
        wanted: bytes of payload that messages wait for.
    """
    reserve, pool = sizes[Stream.CONTROL], sizes[Stream.PAYLOAD]
    first = reserve // 4
    for stream, trigger, size in (
        (Stream.CONTROL, first // 2, first),
        (Stream.PAYLOAD, max(first // 2, min(pool, wanted)), min(pool, max(first, wanted))),
        (Stream.CONTROL, reserve - min(WORTHWHILE, reserve // 4), reserve),
        (Stream.PAYLOAD, pool - min(WORTHWHILE, pool // 4), pool),
    ):
        if levels[stream] < trigger:
            return stream, size - levels[stream]
    return None
