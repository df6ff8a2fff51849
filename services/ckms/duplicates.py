"""Which batches came before, by where they came from: a second coming changes nothing. Sans-IO."""

from __future__ import annotations

import heapq
from collections import Counter

REMEMBERED = 5.0
"""Seconds after its deadline for which a batch is still recognised as a duplicate."""

Coming = tuple[str, str]
"""Where a batch came from, and its name or reference there."""


class Duplicates:
    """The batches of late; of each source no more than `capacity`, so that none of them keeps others out."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._seen: set[Coming] = set()
        self._from: Counter[str] = Counter()
        self._due: list[tuple[float, Coming]] = []

    def __contains__(self, coming: Coming) -> bool:
        """Whether a batch came before."""
        return coming in self._seen

    def add(self, coming: Coming, deadline: float) -> None:
        """A batch came whose outcome nobody waits for after `deadline`."""
        self._seen.add(coming)
        self._from[coming[0]] += 1
        heapq.heappush(self._due, (deadline + REMEMBERED, coming))

    def full(self, source: str, now: float) -> bool:
        """Whether no more batches of a source can be remembered."""
        self.forget(now)
        return self._from[source] >= self._capacity

    def forget(self, now: float) -> None:
        """Forget what ended long ago."""
        while self._due and self._due[0][0] <= now:
            _, coming = heapq.heappop(self._due)
            self._seen.discard(coming)
            self._from[coming[0]] -= 1
