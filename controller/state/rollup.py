"""Measurements of links summed up by minute, hour and day. Pure.

A summary is a set of sums and extremes that can be put together in any order, so an hour is exactly what its minutes
say, and a day what its hours say; nothing is averaged twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from operator import add, attrgetter
from typing import Any

from controller.topology import Discovery

MINUTE, HOUR, DAY = 60, 3_600, 86_400
"""The levels, seconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was believed of one direction of a link at one moment."""

    link: str
    sender: str
    up: bool
    rate: float
    """Bits per second."""
    pool: float
    """Bits."""
    latency_s: float
    qber: float | None
    """None where it is unknown."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Some samples of one direction of a link."""

    samples: int
    up: int
    """Those in which the link was up."""
    rate_sum: float
    rate_least: float
    rate_most: float
    pool_sum: float
    pool_least: float
    pool_most: float
    latency_most: float
    qber_samples: int
    """Those in which it was known."""
    qber_sum: float
    qber_most: float

    @classmethod
    def of(cls, sample: Sample) -> Summary:
        """A single sample."""
        rate, pool, qber = sample.rate, sample.pool, sample.qber or 0.0
        known = sample.qber is not None
        return cls(1, int(sample.up), rate, rate, rate, pool, pool, pool, sample.latency_s, int(known), qber, qber)

    def __or__(self, other: Summary) -> Summary:
        """Both together."""
        return Summary(*(put(a, b) for put, a, b in zip(_PUT, _values(self), _values(other), strict=True)))

    @property
    def rate(self) -> float:
        """Mean, bits per second."""
        return self.rate_sum / self.samples

    @property
    def pool(self) -> float:
        """Mean, bits."""
        return self.pool_sum / self.samples

    @property
    def availability(self) -> float:
        """Share of samples in which the link was up."""
        return self.up / self.samples

    @property
    def qber(self) -> float | None:
        """Mean where it was known."""
        return self.qber_sum / self.qber_samples if self.qber_samples else None


FIGURES = tuple(one.name for one in fields(Summary))
_values = attrgetter(*FIGURES)
_PUT = tuple(min if name.endswith("_least") else max if name.endswith("_most") else add for name in FIGURES)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """A direction of a link and the second since 1970 at which a minute, hour or day of it starts."""

    link: str
    sender: str
    start: int


def starts(at: float, level: int) -> int:
    """When the minute, hour or day starts that a moment is in."""
    return int(at // level) * level


def roll(rows: Iterable[tuple[Key, Summary]], level: int) -> dict[Key, Summary]:
    """Put summaries together into those of a level."""
    rolled: dict[Key, Summary] = {}
    for key, summary in rows:
        into = Key(key.link, key.sender, starts(key.start, level))
        present = rolled.get(into)
        rolled[into] = summary if present is None else present | summary
    return rolled


def samples(found: Discovery) -> list[Sample]:
    """What a discovery says of each direction of each planned link."""
    return [
        Sample(link.id, sender, link.up, direction.rate, direction.pool, link.latency_s, belief.qber)
        for link in found.view.links
        for belief in (found.links[link.id].belief,)
        for sender, direction in ((link.a, link.ab), (link.b, link.ba))
    ]


class Recorder:
    """The minutes that one leader measures. A minute is written as a whole, over what was written of it before."""

    def __init__(self, since: float) -> None:
        """Begin.

        Args:
            since: seconds since 1970; what was measured before is rolled up already. Earlier samples count as then.
        """
        self._last = since
        self._minutes: dict[Key, Summary] = {}
        self._changed: dict[Key, None] = {}

    def add(self, measured: Iterable[Sample], at: float) -> None:
        """Take samples; a clock that steps back stands still here."""
        before, self._last = starts(self._last, MINUTE), max(self._last, at)
        minute = starts(self._last, MINUTE)
        if minute > before:
            self._minutes = {key: self._minutes[key] for key in self._changed}
        for sample in measured:
            key = Key(sample.link, sample.sender, minute)
            summary = Summary.of(sample)
            present = self._minutes.get(key)
            self._minutes[key] = summary if present is None else present | summary
            self._changed[key] = None

    def portion(self, most: int) -> dict[Key, Summary]:
        """Minutes that are to be written, oldest first."""
        return {key: self._minutes[key] for key, _ in zip(self._changed, range(most), strict=False)}

    def written(self, portion: Mapping[Key, Summary]) -> None:
        """They are in the database; what was added meanwhile is to be written again."""
        for key, summary in portion.items():
            if self._minutes[key] == summary:
                del self._changed[key]

    @property
    def settled(self) -> int:
        """Seconds since 1970: minutes that start before are written, and get no more samples."""
        return min((key.start for key in self._changed), default=starts(self._last, MINUTE))


def figures(row: Any) -> Summary:
    """The summary in a row of the table."""
    return Summary(*(getattr(row, name) for name in FIGURES))
