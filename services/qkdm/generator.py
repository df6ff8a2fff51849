"""When a simulated QKD link distils key, and how much: bursts whose rate and QBER vary as measured ones do.

Sans-IO: time comes in as `now` (seconds of any monotonic clock), randomness as a `Source`. The bits themselves are
drawn where the keys are made (`pair`); here is only their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from keyhaul.randomness import Source

QBER_LIMIT = 0.11
"""Above this quantum bit error ratio BB84 distils no secret key (1 - 2 h(Q) = 0 at about 11 %)."""

DRIFT_SECONDS = 600.0
"""Time constant of the slow half of the variation of rate and QBER."""

LONGEST_CATCH_UP = 5.0
"""Seconds of bursts that `advance` makes good; a device that stood still for longer distilled nothing."""


@dataclass(frozen=True, slots=True)
class Characteristics:
    """What a link is configured to yield."""

    rate: float
    """Mean secret key rate, bits per second."""
    rate_deviation: float = 0.0
    """Standard deviation of the rate from block to block, bits per second."""
    qber: float = 0.02
    """Mean quantum bit error ratio, 0 to 1."""
    qber_deviation: float = 0.0
    block: int = 4_096
    """Bits distilled per burst."""
    key_size: int = 256
    """Bits per key."""
    fixed_rate: bool = False
    """Even, key by key, without variation."""


@dataclass(frozen=True, slots=True)
class Burst:
    """One distilled block."""

    at: float
    keys: int
    """Whole keys that it completes, together with what earlier blocks left over."""
    rate: float
    """Secret bits per second over this block."""
    qber: float


class Generator:
    """The rhythm of one link's bursts."""

    def __init__(self, characteristics: Characteristics, source: Source) -> None:
        self.characteristics = characteristics
        self.rate = 0.0
        """Bits per second over the last block; 0 while nothing comes."""
        self.qber = characteristics.qber
        """Of the last block."""
        self.is_cut = False
        self._source = source
        self._factor = 1.0
        self._mean_qber = characteristics.qber
        self._rate_drift = self._normal()
        self._qber_drift = self._normal()
        self._running = False
        self._due: float | None = None
        self._interval = 0.0
        self._left_over = 0

    @property
    def due(self) -> float | None:
        """When the next block falls due; None while nothing can come."""
        return self._due

    def resume(self, now: float) -> None:
        """Begin to distil: both ends are there."""
        self._running = True
        self._schedule(now)

    def pause(self) -> None:
        """Stop distilling: the other end is away."""
        self._running = False
        self._stop()

    def cut(self) -> None:
        """Cut the fibre: nothing comes until `restore`."""
        self.is_cut = True
        self._stop()

    def degrade(self, now: float, *, qber: float | None = None, factor: float | None = None) -> None:
        """Worsen the link by a higher mean QBER, which lowers the rate as 1 - 2 h(Q) does, or a factor on it, or both.

        Raises:
            ValueError: the QBER is not within 0 and 0.5, or the factor not within 0 and 1.
        """
        if qber is not None and not 0.0 <= qber <= 0.5:
            raise ValueError("qber is a ratio between 0 and 0.5")
        if factor is not None and not 0.0 <= factor <= 1.0:
            raise ValueError("factor is between 0 and 1")
        if qber is not None:
            self._mean_qber = qber
        if factor is not None:
            self._factor = factor
        self._schedule(now)

    def restore(self, now: float) -> None:
        """Undo `cut` and `degrade`."""
        self.is_cut = False
        self._factor = 1.0
        self._mean_qber = self.characteristics.qber
        self._schedule(now)

    def advance(self, now: float) -> list[Burst]:
        """Return the blocks that fell due up to `now`, oldest first."""
        bursts: list[Burst] = []
        if self._due is not None and now - self._due > LONGEST_CATCH_UP:
            self._due = now
        while self._due is not None and self._due <= now:
            at = self._due
            bursts.append(self._burst(at))
            self._schedule(at)
        return bursts

    def keys_in(self, seconds: float) -> int:
        """How many whole keys the mean rate yields in that time."""
        return int(self.characteristics.rate * seconds) // self.characteristics.key_size

    def _burst(self, at: float) -> Burst:
        settings = self.characteristics
        self.qber = self._block_qber()
        if self.qber > QBER_LIMIT:
            self.rate = 0.0
            return Burst(at, 0, 0.0, self.qber)
        bits = settings.key_size if settings.fixed_rate else settings.block
        self.rate = bits / self._interval
        keys, self._left_over = divmod(self._left_over + bits, settings.key_size)
        return Burst(at, keys, self.rate, self.qber)

    def _block_qber(self) -> float:
        settings = self.characteristics
        if settings.fixed_rate:
            return self._mean_qber
        noise = settings.qber_deviation * (self._qber_drift + self._normal()) / math.sqrt(2)
        return min(0.5, max(0.0, self._mean_qber + noise))

    def _schedule(self, after: float) -> None:
        """Draw how long the next block takes: its mean is exact, so the long average of the rate is, too."""
        settings = self.characteristics
        rate = settings.rate * self._factor * self._share_left_by_qber()
        if not self._running or self.is_cut or rate <= 0.0:
            self._stop()
            return
        bits = settings.key_size if settings.fixed_rate else settings.block
        mean = bits / rate
        if settings.fixed_rate:
            self._interval = mean
        else:
            memory = math.exp(-mean / DRIFT_SECONDS)
            renewal = math.sqrt(1.0 - memory * memory)
            self._rate_drift = memory * self._rate_drift + renewal * self._normal()
            self._qber_drift = memory * self._qber_drift + renewal * self._normal()
            variation = settings.rate_deviation / settings.rate * (self._rate_drift + self._normal()) / math.sqrt(2)
            self._interval = mean * (1.0 + min(0.9, max(-0.9, variation)))
        self._due = after + self._interval

    def _share_left_by_qber(self) -> float:
        """The part of the configured rate that the present mean QBER leaves.

        Above the limit blocks are still measured, so that the QBER is seen to come down again.
        """
        if self._mean_qber == self.characteristics.qber or self._mean_qber > QBER_LIMIT:
            return 1.0
        nominal = secret_fraction(self.characteristics.qber)
        return secret_fraction(self._mean_qber) / nominal if nominal > 0.0 else 1.0

    def _stop(self) -> None:
        self._due = None
        self.rate = 0.0

    def _normal(self) -> float:
        """A normally distributed number (Box and Muller)."""
        first = (int.from_bytes(self._source(7), "big") + 1) / 2**56
        second = int.from_bytes(self._source(7), "big") / 2**56
        return math.sqrt(-2.0 * math.log(first)) * math.cos(2.0 * math.pi * second)


def secret_fraction(qber: float) -> float:
    """The share of sifted bits that BB84 leaves secret at that QBER: 1 - 2 h(Q), and never below 0."""
    if not 0.0 < qber < 0.5:
        return 1.0 if qber <= 0.0 else 0.0
    entropy = -qber * math.log2(qber) - (1.0 - qber) * math.log2(1.0 - qber)
    return max(0.0, 1.0 - 2.0 * entropy)
