"""Which path a submission takes: the first by rank that works, with a memory of those that failed.

Sans-IO. A path that failed is on probation for some seconds. When they have passed one submission tries it
while the others keep to the detour; only its success makes the path first choice again, and each failed
trial doubles the probation. So traffic returns by itself and does not flap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.ckms.forwarding import Hop, Path

FIRST_PROBATION = 5.0
"""Seconds."""

LONGEST_PROBATION = 60.0

Ready = Callable[[str, int], bool]
"""Whether the link to that neighbour (service id) is up and has pads for so many bytes at this moment."""


@dataclass(slots=True)
class _Record:
    """A path that failed and has not worked since."""

    failed_at: float
    until: float
    probation: float
    trial: bool = False
    """One submission is trying it."""


class PathChoice:
    """What is remembered of failed paths, by first hop and label."""

    def __init__(self, *, probation: float = FIRST_PROBATION, longest: float = LONGEST_PROBATION) -> None:
        self._probation = probation
        self._longest = longest
        self._records: dict[Hop, _Record] = {}

    def choose(self, paths: Sequence[Path], length: int, ready: Ready, now: float) -> Path | None:
        """Take the path for a submission of `length` bytes, given in the order of rank.

        A path whose probation has passed is tried by one submission at a time. When every path that could
        carry it is on probation, the one that failed longest ago is taken. None: no first link is ready.
        """
        able = [path for path in paths if ready(path.first.neighbour, length)]
        for path in able:
            record = self._records.get(path.first)
            if record is None:
                return path
            if now >= record.until and not record.trial:
                record.trial = True
                return path
        return min(able, key=lambda path: self._records[path.first].failed_at, default=None)

    def failed(self, path: Path, sent_at: float, now: float) -> None:
        """A submission that took this path at `sent_at` failed on the way."""
        record = self._records.get(path.first)
        if record is None:
            self._records[path.first] = _Record(now, now + self._probation, self._probation)
        elif sent_at >= record.failed_at:
            longer = min(self._longest, 2 * record.probation) if record.trial else record.probation
            self._records[path.first] = _Record(now, now + longer, longer)

    def worked(self, path: Path, sent_at: float) -> None:
        """A submission that took this path at `sent_at` reached its end."""
        record = self._records.get(path.first)
        if record is not None and sent_at >= record.failed_at:
            del self._records[path.first]

    def forget(self, paths: Sequence[Path]) -> None:
        """Drop what is remembered of all paths but these: the table was replaced."""
        kept = {path.first for path in paths}
        self._records = {hop: record for hop, record in self._records.items() if hop in kept}

    def on_probation(self, path: Path) -> bool:
        """Whether the path failed and has not worked since."""
        return path.first in self._records
