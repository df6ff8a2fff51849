"""The maker's pool of CN bits for one consumer and class: what to make ahead, and who gets which bytes.

The level follows demand: `horizon` seconds of what was used of late, between `minimum` and `maximum`; batches have a
few fixed sizes. With `minimum` and `maximum` both 0 the pool makes what each request needs, and keeps nothing.
Memory only. Sans-IO: time and randomness are arguments; the driver is `carrier`.
"""

from __future__ import annotations

import hmac
import math
from collections import OrderedDict
from dataclasses import dataclass, field

from keyhaul.config.services import PoolSection
from keyhaul.keys.material import KeyMaterial
from keyhaul.randomness import Source, identifier
from keyhaul.transport.messages.peer import CnRange
from services.akms.cn_batch import CHECK_KEY_BYTES, CnBatch, CnEvent, CnState

MAXIMUM_IN_FLIGHT = 16
"""Batches of one pool on their way at a time."""

UNCONFIRMED_SECONDS = 5.0
"""After this long a batch that nobody confirmed is burned."""

NEWS = {
    CnEvent.SUBMIT: CnState.SUBMITTED,
    CnEvent.DELIVER: CnState.DELIVERED,
    CnEvent.CONFIRM: CnState.CONFIRMED,
}
"""The state that each piece of news leads to."""

_DEMAND_SECONDS = 8.0
_REMEMBERED_CHECKS = 1024


@dataclass(frozen=True, slots=True)
class Taken:
    """CN bytes for one use, and where the consumer finds its copy of them."""

    ranges: list[CnRange]
    bits: bytes = field(repr=False)
    at: float
    """When they were taken: what was made until then is as doubtful as they are, if the consumer lacks them."""


class Demand:
    """Bytes used per second of late: an exponentially weighted average."""

    def __init__(self) -> None:
        self._weighted = 0.0
        self._since = 0.0

    def add(self, count: int, now: float) -> None:
        """Count bytes that were used."""
        self._weighted = self._decayed(now) + count
        self._since = now

    def rate(self, now: float) -> float:
        """Bytes per second."""
        return self._decayed(now) / _DEMAND_SECONDS

    def _decayed(self, now: float) -> float:
        return self._weighted * math.exp(-max(0.0, now - self._since) / _DEMAND_SECONDS)


class MakerPool:
    """Bits that this AKMS made for one consumer and class."""

    def __init__(self, service_class: str, settings: PoolSection, source: Source) -> None:
        self._service_class = service_class
        self._settings = settings
        self._sizes = sorted(settings.batches)
        self._source = source
        self._batches: OrderedDict[str, CnBatch] = OrderedDict()
        self._waiting: OrderedDict[int, int] = OrderedDict()
        self._tickets = 0
        self._demand = Demand()
        self._failures = 0
        self._retry_at = 0.0
        self._checks: OrderedDict[str, bytes] = OrderedDict()

    @property
    def available(self) -> int:
        """Confirmed bytes that nobody has taken."""
        return sum(batch.left for batch in self._batches.values() if batch.state is CnState.CONFIRMED)

    @property
    def in_flight(self) -> int:
        """Bytes of CN key on their way."""
        return sum(batch.usable for batch in self._batches.values() if batch.state is not CnState.CONFIRMED)

    @property
    def waiting(self) -> int:
        """Bytes that requests wait for."""
        return sum(self._waiting.values())

    @property
    def troubled(self) -> bool:
        """Whether the latest batch failed: until one arrives nobody should count on quick bits."""
        return self._failures > 0

    def ask(self, count: int, now: float) -> int:
        """Queue up for `count` bytes; returns a ticket for `serve` or `forget`."""
        self._tickets += 1
        self._waiting[self._tickets] = count
        self._demand.add(count, now)
        return self._tickets

    def forget(self, ticket: int) -> None:
        """Nobody waits for this ticket any more."""
        self._waiting.pop(ticket, None)

    def serve(self, now: float) -> list[tuple[int, Taken]]:
        """Hand bytes to those who wait, in their order, as far as confirmed bytes go; each byte once."""
        served = []
        while self._waiting:
            ticket, count = next(iter(self._waiting.items()))
            if self.available < count:
                break
            del self._waiting[ticket]
            served.append((ticket, self._take(count, now)))
        if served and not self._waiting and not self._settings.maximum:
            for batch in [batch for batch in self._batches.values() if batch.state is CnState.CONFIRMED]:
                self._burn(batch)
        return served

    def target(self, now: float) -> int:
        """Bytes to keep ahead of demand."""
        wanted = max(float(self._settings.minimum), self._settings.horizon * self._demand.rate(now))
        return int(min(wanted, float(self._settings.maximum)))

    def plan(self, now: float) -> list[CnBatch]:
        """Draw the batches to announce and submit now: first what requests wait for, then up to the target."""
        if now < self._retry_at:
            return []
        ahead = self.available + self.in_flight - self.waiting
        new: list[CnBatch] = []
        while ahead < 0 and self._room():
            size = next((size for size in self._sizes if size >= -ahead), self._sizes[-1])
            new.append(self._draw(size, now))
            ahead += size
        target = self.target(now)
        if target - ahead >= max(1, target // 4):
            while ahead < target and self._room():
                size = next((size for size in reversed(self._sizes) if size <= target - ahead), self._sizes[0])
                if ahead + size > max(self._settings.maximum, self._sizes[0]):
                    break
                new.append(self._draw(size, now))
                ahead += size
        return new

    def knows(self, name: str) -> bool:
        """Whether a check of this batch can still be answered."""
        return name in self._checks

    def submitted(self, name: str) -> None:
        """The CKMS has taken the batch."""
        self._step(name, CnEvent.SUBMIT)

    def delivered(self, name: str) -> None:
        """The carrier says that the batch arrived."""
        self._step(name, CnEvent.DELIVER)

    def confirm(self, name: str, check: bytes) -> bool | None:
        """Compare the consumer's check in constant time; a batch with different bits is burned.

        Returns None for a batch that is not known (any more).
        """
        expected = self._checks.get(name)
        if expected is None:
            return None
        same = hmac.compare_digest(expected, check)
        batch = self._batches.get(name)
        if not same:
            del self._checks[name]
            if batch is not None:
                self._burn(batch)
        elif batch is not None:
            self._step(name, CnEvent.CONFIRM)
            self._failures = 0
            self._retry_at = 0.0
        return same

    def failed(self, name: str, now: float) -> None:
        """A batch did not arrive: it is burned. The first retry is immediate (another path), later ones back off."""
        batch = self._batches.get(name)
        if batch is None or batch.state is CnState.CONFIRMED:
            return
        self._checks.pop(name, None)
        self._burn(batch)
        self._failures += 1
        if self._failures > 1:
            self._retry_at = now + min(2.0, 0.05 * 2.0 ** min(self._failures - 2, 6))

    def expire(self, now: float) -> int:
        """Burn batches that nobody confirmed in time; returns how many."""
        late = [
            batch.name
            for batch in self._batches.values()
            if batch.state is not CnState.CONFIRMED and now - batch.made >= UNCONFIRMED_SECONDS
        ]
        for name in late:
            self.failed(name, now)
        return len(late)

    def burn(self, made_until: float = math.inf) -> int:
        """Burn what was made until then, as the consumer lacks it or this AKMS stops; returns how many batches."""
        doubtful = [batch for batch in self._batches.values() if batch.made <= made_until]
        for batch in doubtful:
            self._checks.pop(batch.name, None)
            self._burn(batch)
        return len(doubtful)

    def wake_at(self, now: float) -> float | None:
        """When `plan` or `expire` should be called again if nothing else happens; None: never."""
        times = [
            batch.made + UNCONFIRMED_SECONDS for batch in self._batches.values() if batch.state is not CnState.CONFIRMED
        ]
        if self._retry_at > now:
            times.append(self._retry_at)
        return min(times, default=None)

    def _room(self) -> bool:
        return sum(batch.state is not CnState.CONFIRMED for batch in self._batches.values()) < MAXIMUM_IN_FLIGHT

    def _draw(self, size: int, now: float) -> CnBatch:
        bits = KeyMaterial(self._source(CHECK_KEY_BYTES + size))
        batch = CnBatch(identifier(self._source), self._service_class, bits, now)
        self._batches[batch.name] = batch
        self._checks[batch.name] = batch.check
        while len(self._checks) > _REMEMBERED_CHECKS:
            self._checks.popitem(last=False)
        return batch

    def _take(self, count: int, now: float) -> Taken:
        ranges = []
        bits = bytearray()
        for batch in list(self._batches.values()):
            while count and batch.state is CnState.CONFIRMED and batch.free:
                start, stop = batch.free[0]
                length = min(count, stop - start)
                bits += batch.take(start, length)
                ranges.append(CnRange(batch.name, start, length))
                count -= length
            if batch.state is CnState.CONFIRMED and not batch.free:
                self._burn(batch)
        return Taken(ranges, bytes(bits), now)

    def _burn(self, batch: CnBatch) -> None:
        batch.apply(CnEvent.BURN)
        self._batches.pop(batch.name, None)

    def _step(self, name: str, event: CnEvent) -> None:
        """Take a step, once: news of the same may come again where the answer to it was lost."""
        batch = self._batches.get(name)
        if batch is not None and batch.state is not NEWS[event]:
            batch.apply(event)
