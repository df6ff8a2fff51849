"""Policing: each path and forwarding entry carries no more than its bucket lets through, whoever sends it.

Sans-IO: time (`now`, seconds of a monotonic clock) is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from keyhaul.config.services import CARRIER_RATE
from keyhaul.pressure.bucket import TokenBucket


@dataclass(frozen=True, slots=True)
class Limit:
    """What a path may carry."""

    rate: float = CARRIER_RATE
    """Bytes a second."""
    burst: int = CARRIER_RATE
    """Bytes at once."""


USUAL = Limit()


@dataclass(slots=True)
class Policed:
    """What was refused of one class over one neighbour."""

    batches: int = 0
    bytes: int = 0


class Police:
    """The buckets of one CKMS, one for each place of its table: (previous hop, label), or first hop and label."""

    def __init__(self, places: Callable[[], Iterable[tuple[str, str]]]) -> None:
        """Keep buckets for the table's `places` alone."""
        self._places = places
        self.policed: dict[tuple[str, str], Policed] = {}
        """By neighbour (the one it came from, or "akms") and class ("any" where the place has none)."""
        self._buckets: dict[tuple[str, str], TokenBucket] = {}

    def admits(self, place: tuple[str, str], limit: Limit, length: int, now: float) -> bool:
        """Count a batch of `length` bytes; False where it exceeds the limit of its place, and is not counted."""
        bucket = self._buckets.get(place)
        if bucket is None:
            self._drop_former()
            bucket = self._buckets[place] = TokenBucket(limit.rate, limit.burst, now)
        elif (bucket.rate, bucket.burst) != (limit.rate, limit.burst):
            bucket.change(limit.rate, limit.burst, now)
        return bucket.take(length, now)

    def refused(self, neighbour: str, service_class: str | None, length: int) -> None:
        """Note a refusal."""
        policed = self.policed.setdefault((neighbour, service_class or "any"), Policed())
        policed.batches += 1
        policed.bytes += length

    def _drop_former(self) -> None:
        """Another place came: the table may have been replaced."""
        kept = set(self._places())
        self._buckets = {place: bucket for place, bucket in self._buckets.items() if place in kept}
