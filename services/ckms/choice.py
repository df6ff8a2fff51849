"""Which path a submission takes: the first by rank that works, with a memory of those that failed.

Sans-IO. A path that failed is on probation for some seconds. When they have passed one submission tries it
while the others keep to the detour; only its success makes the path first choice again, and each failed
trial doubles the probation. So traffic returns by itself and does not flap. A path that was not there before,
such as a better one that the controller found, is taken from the first submission on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keyhaul.transport.messages.relay import RelayFailure
from services.ckms.forwarding import Hop, Path

FIRST_PROBATION = 5.0
"""Seconds."""

LONGEST_PROBATION = 60.0

TRIAL = 60.0
"""Seconds after which a trial that nobody heard of again is no trial any more: no batch is under way for longer."""

Ready = Callable[[str, int], bool]
"""Whether the link to that neighbour (service id) is up and has pads for so many bytes at this moment."""


@dataclass(slots=True)
class _Record:
    """A path that failed and has not worked since."""

    failed_at: float
    until: float
    probation: float
    tried_at: float | None = None
    """When the submission left that is trying it."""

    def allows(self, now: float) -> bool:
        """Whether a submission may try the path."""
        return now >= self.until and (self.tried_at is None or now - self.tried_at >= TRIAL)


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
        path = self._best(paths, length, ready, now)
        if path is not None:
            self._take(path, now)
        return path

    def choose_shares(self, paths: Sequence[Path], length: int, ready: Ready, now: float) -> tuple[Path, ...] | None:
        """Take one path for each share of a submission of class split, in the order of the shares.

        Args:
            paths: those of `ForwardingTable.shares_to`, in the order of rank.
            length: bytes of one share: each is as long as the whole.
            ready: as in `choose`.
            now: seconds.

        Returns:
            As many paths as the demand has shares, all of one group and each over another neighbour; None where
            there is no such set, however many paths are left: fewer shares would let one node learn the key.
            Of several groups the one of the latest statement is taken.
        """
        latest_first = sorted(paths, key=lambda path: path.serial or 0, reverse=True)
        for group in dict.fromkeys(path.group for path in latest_first):
            chosen = self._best_of_each_share([path for path in paths if path.group == group], length, ready, now)
            if chosen is not None:
                for path in chosen:
                    self._take(path, now)
                return chosen
        return None

    def _best_of_each_share(
        self, group: Sequence[Path], length: int, ready: Ready, now: float
    ) -> tuple[Path, ...] | None:
        shares = {path.shares for path in group}
        if len(shares) != 1 or shares == {1}:
            return None
        chosen: list[Path] = []
        for share in range(*shares):
            taken = {path.first.neighbour for path in chosen}
            left = [path for path in group if path.share == share and path.first.neighbour not in taken]
            path = self._best(left, length, ready, now)
            if path is None:
                return None
            chosen.append(path)
        return tuple(chosen)

    def _best(self, paths: Sequence[Path], length: int, ready: Ready, now: float) -> Path | None:
        able = [path for path in paths if ready(path.first.neighbour, length)]
        for path in able:
            record = self._records.get(path.first)
            if record is None or record.allows(now):
                return path
        return min(able, key=lambda path: self._records[path.first].failed_at, default=None)

    def _take(self, path: Path, now: float) -> None:
        record = self._records.get(path.first)
        if record is not None and record.allows(now):
            record.tried_at = now

    def failed(self, path: Path, sent_at: float, now: float) -> None:
        """A submission that took this path at `sent_at` failed on the way."""
        record = self._records.get(path.first)
        if record is None:
            self._records[path.first] = _Record(now, now + self._probation, self._probation)
        elif sent_at >= record.failed_at:
            longer = min(self._longest, 2 * record.probation) if record.tried_at is not None else record.probation
            self._records[path.first] = _Record(now, now + longer, longer)

    def worked(self, path: Path, sent_at: float) -> None:
        """A submission that took this path at `sent_at` reached its end."""
        record = self._records.get(path.first)
        if record is not None and sent_at >= record.failed_at:
            del self._records[path.first]

    def untried(self, path: Path, sent_at: float) -> None:
        """A submission that was to take this path at `sent_at` never left, for no fault of the path."""
        record = self._records.get(path.first)
        if record is not None and record.tried_at == sent_at:
            record.tried_at = None

    def judge(self, path: Path, failure: RelayFailure | None, sent_at: float, now: float) -> None:
        """What became of a submission that took this path at `sent_at`."""
        # A refusal is the far end's: the path itself led there.
        if failure is None or failure is RelayFailure.REFUSED:
            self.worked(path, sent_at)
        # One that is too busy is no worse than the others: to go round it would only carry the load elsewhere.
        elif failure is not RelayFailure.BUSY or self.on_probation(path):
            self.failed(path, sent_at, now)

    def forget(self, paths: Sequence[Path]) -> None:
        """Drop what is remembered of all paths but these: the table was replaced."""
        kept = {path.first for path in paths}
        self._records = {hop: record for hop, record in self._records.items() if hop in kept}

    def on_probation(self, path: Path) -> bool:
        """Whether the path failed and has not worked since."""
        return path.first in self._records
