"""Policing: each path and forwarding entry carries no more than its bucket lets through, whoever sends it.

Sans-IO: time (`now`, seconds of a monotonic clock) is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

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


@dataclass(slots=True)
class Traffic:
    """What one place of the table has carried, and what it refused."""

    batches: int = 0
    bytes: int = 0
    refused: int = 0
    """Batches."""


@dataclass(slots=True)
class _Place:
    bucket: TokenBucket
    traffic: Traffic = field(default_factory=Traffic)


class Police:
    """The buckets of one CKMS, one for each place of its table: (previous hop, label), or first hop and label."""

    def __init__(self, places: Callable[[], Iterable[tuple[str, str]]]) -> None:
        """Keep buckets for the table's `places` alone."""
        self._places = places
        self.policed: dict[tuple[str, str], Policed] = {}
        """By neighbour (the one it came from, or "akms") and class ("any" where the place has none)."""
        self._held: dict[tuple[str, str], _Place] = {}

    def admits(self, place: tuple[str, str], limit: Limit, length: int, now: float) -> bool:
        """Count a batch of `length` bytes; False where it exceeds the limit of its place."""
        held = self._held.get(place)
        if held is None:
            self._drop_former()
            held = self._held[place] = _Place(TokenBucket(limit.rate, limit.burst, now))
        elif (held.bucket.rate, held.bucket.burst) != (limit.rate, limit.burst):
            held.bucket.change(limit.rate, limit.burst, now)
        if not held.bucket.take(length, now):
            held.traffic.refused += 1
            return False
        held.traffic.batches += 1
        held.traffic.bytes += length
        return True

    def traffic(self, place: tuple[str, str]) -> Traffic:
        """What a place has carried."""
        held = self._held.get(place)
        return Traffic() if held is None else held.traffic

    def refused(self, neighbour: str, service_class: str | None, length: int) -> None:
        """Note a refusal."""
        policed = self.policed.setdefault((neighbour, service_class or "any"), Policed())
        policed.batches += 1
        policed.bytes += length

    def _drop_former(self) -> None:
        """Another place came: the table may have been replaced."""
        kept = set(self._places())
        self._held = {place: held for place, held in self._held.items() if place in kept}
