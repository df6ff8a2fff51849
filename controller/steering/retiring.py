"""Taking paths back: first where they begin, then the entries that nothing leads to any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controller.steering.talks import DRAIN, Talks
from keyhaul.agents.statements import PathStatement


@dataclass(slots=True)
class _Retired:
    """Entries that are to be withdrawn once no path leads to them."""

    source: str
    starts: set[int]
    """Serials of path statements that are still in force at the source, or may be."""
    entries: list[tuple[str, int]]


class Retiring:
    """All paths that are being taken back.

    Args:
        talks: the conversations with the nodes.
    """

    def __init__(self, talks: Talks) -> None:
        self._talks = talks
        self._retired: list[_Retired] = []

    def clear(self) -> None:
        """Forget all."""
        self._retired = []

    def retire(self, source: str, starts: Iterable[int], entries: Iterable[tuple[str, int]]) -> None:
        """Take paths back: first their statements at the source; then their entries, by node and serial.

        Where the source cannot be talked to, its paths may live on, and the entries stay as long as they would.
        """
        leading = {held.serial for _, held in self._talks.held((source, serial) for serial in starts)}
        self._talks.withdraw(((source, serial) for serial in leading), DRAIN)
        self._retired.append(_Retired(source, leading, list(entries)))

    def retire_loose(self, statements: Iterable[tuple[str, int]]) -> None:
        """Take back statements of one demand, by node and serial, that are not known to make whole paths."""
        held = list(self._talks.held(statements))
        starts = [(node, one.serial) for node, one in held if isinstance(one.say.says, PathStatement)]
        entries = [(node, one.serial) for node, one in held if not isinstance(one.say.says, PathStatement)]
        source = starts[0][0] if starts else ""
        self.retire(source, [serial for _, serial in starts], entries)

    def go_on(self, now: float) -> None:
        """Withdraw the entries that nothing leads to any more."""
        if self._retired:
            self._retired = [retired for retired in self._retired if not self._is_over(retired, now)]

    def _is_over(self, retired: _Retired, now: float) -> bool:
        """Whether no path leads to the entries any more; then they go."""
        retired.starts &= self._talks.serials(retired.source)
        if retired.starts and any(now < held.ends for _, held in self._talks.held(retired.entries)):
            return False
        self._talks.withdraw(retired.entries, DRAIN)
        return True
