"""The batches in flight at one CKMS by their references, and those that were of late; bounded for each source.

Sans-IO: time is an argument.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator

from keyhaul.randomness import Source, label
from services.ckms.duplicates import Duplicates
from services.ckms.origins import InFlight


class Flights:
    """What is in flight.

    Args:
        source: draws references.
        capacity: batches of one source; sixteen times as many are remembered as duplicates.
    """

    def __init__(self, source: Source, capacity: int) -> None:
        self.seen = Duplicates(16 * capacity)
        self._source = source
        self._capacity = capacity
        self._batches: dict[str, InFlight] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._from: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._batches)

    def take(self, batch: InFlight) -> str:
        """Take a batch on under a fresh reference, which is returned."""
        reference = label(self._source)
        while reference in self._batches:
            reference = label(self._source)
        self._batches[reference] = batch
        self._from[batch.source] += 1
        heapq.heappush(self._deadlines, (batch.deadline, reference))
        return reference

    def get(self, reference: str) -> InFlight | None:
        """A batch that is in flight, None for any other."""
        return self._batches.get(reference)

    def drop(self, reference: str) -> InFlight:
        """A batch is in flight no more; it is returned."""
        batch = self._batches.pop(reference)
        self._from[batch.source] -= 1
        return batch

    def full(self, source: str, now: float) -> bool:
        """Whether no more of a source can be taken on."""
        return self._from[source] >= self._capacity or self.seen.full(source, now)

    def next_deadline(self) -> float | None:
        """When `late` is due next (an early time is harmless), None while nothing is in flight."""
        return self._deadlines[0][0] if self._deadlines else None

    def late(self, now: float) -> Iterator[str]:
        """References of what is beyond its deadline."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, reference = heapq.heappop(self._deadlines)
            found = self._batches.get(reference)
            if found is not None and found.deadline <= now:
                yield reference

    def to(self, neighbour: str) -> list[str]:
        """References of what waits for a neighbour's acknowledgement."""
        return [reference for reference, batch in self._batches.items() if batch.next == neighbour]

    def awaited(self) -> set[str]:
        """The neighbours whose acknowledgement something waits for."""
        return {batch.next for batch in self._batches.values() if batch.next is not None}

    def concern(self, neighbour: str) -> bool:
        """Whether anything came from a neighbour, or waits for its acknowledgement."""
        return self._from[neighbour] > 0 or neighbour in self.awaited()
