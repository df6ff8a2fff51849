"""The sliding replay window over the sequence numbers of one direction and session."""

from __future__ import annotations

WINDOW_SIZE = 4096
"""How far behind the greatest accepted sequence number a message may still come."""

_MASK = (1 << WINDOW_SIZE) - 1


class Replayed(Exception):
    """A sequence number that was accepted before, or is too old to tell."""


class ReplayWindow:
    """Accepts each sequence number at most once; HTTP/2 streams may deliver them in any order."""

    __slots__ = ("_bitmap", "_greatest")

    def __init__(self) -> None:
        self._greatest = -1
        self._bitmap = 0
        """Bit n: the number `greatest` - n was accepted."""

    def check(self, sequence: int) -> None:
        """Tell whether a number could be accepted, and change nothing.

        Raises:
            Replayed: it was accepted, lies `WINDOW_SIZE` or more behind the greatest, or is negative.
        """
        behind = self._greatest - sequence
        if sequence < 0 or behind >= WINDOW_SIZE or (behind >= 0 and self._bitmap >> behind & 1):
            raise Replayed(f"sequence number {sequence} was accepted before or is too old")

    def accept(self, sequence: int) -> None:
        """Mark a number as accepted; done only after its message was authenticated.

        Raises:
            Replayed: as `check`.
        """
        self.check(sequence)
        ahead = sequence - self._greatest
        if ahead > 0:
            self._bitmap = ((self._bitmap << ahead) & _MASK if ahead < WINDOW_SIZE else 0) | 1
            self._greatest = sequence
        else:
            self._bitmap |= 1 << -ahead
