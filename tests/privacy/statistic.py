"""Whether two samples of times can be told apart, and whether one series of events follows another."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

SLOT = 0.2
"""Seconds in which events count as simultaneous."""

LAGS = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rank test of Mann and Whitney."""

    share: float
    """How often one of the first sample is greater than one of the second: 0.5 if they are alike."""
    z: float
    """The same in standard deviations."""

    @property
    def apart(self) -> bool:
        """A difference that neither chance nor a busy machine explains."""
        return abs(self.z) > 5 and abs(self.share - 0.5) > 0.2


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare two samples by rank; equal values share their ranks."""
    values = sorted((value, number < len(first)) for number, value in enumerate((*first, *second)))
    ranks = 0.0
    place = 0
    while place < len(values):
        end = place
        while end < len(values) and values[end][0] == values[place][0]:
            end += 1
        ranks += sum(one for _, one in values[place:end]) * (place + 1 + end) / 2
        place = end
    n, m = len(first), len(second)
    u = ranks - n * (n + 1) / 2
    return Comparison(u / (n * m), (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12))


def correlation(causes: Sequence[float], effects: Sequence[float], begin: float, end: float) -> float:
    """The greatest correlation (Pearson) of the numbers of two kinds of events in slots, effects up to `LAGS` later."""
    number = int((end - begin) / SLOT)
    first, second = (_counts(times, begin, number) for times in (causes, effects))
    return max(_pearson(first[: number - lag], second[lag:]) for lag in range(LAGS))


def chance(
    causes: Sequence[float],
    effects: Sequence[float],
    begin: float,
    end: float,
    generator: random.Random,
    times: int = 100,
) -> float:
    """How often effects at other times, moved round by a random while, correlate as much as these: p, from 0 to 1."""
    found = correlation(causes, effects, begin, end)
    moved = (generator.uniform(0, end - begin) for _ in range(times))
    others = ([begin + (time - begin + by) % (end - begin) for time in effects] for by in moved)
    return sum(correlation(causes, other, begin, end) >= found for other in others) / times


def _counts(times: Sequence[float], begin: float, number: int) -> list[int]:
    counts = [0] * number
    for time in times:
        slot = int((time - begin) // SLOT)
        if 0 <= slot < number:
            counts[slot] += 1
    return counts


def _pearson(first: Sequence[int], second: Sequence[int]) -> float:
    a, b = (sum(one) / len(one) for one in (first, second))
    product = sum((x - a) * (y - b) for x, y in zip(first, second, strict=True))
    deviations = math.sqrt(sum((x - a) ** 2 for x in first) * sum((y - b) ** 2 for y in second))
    return product / deviations if deviations else 0.0
