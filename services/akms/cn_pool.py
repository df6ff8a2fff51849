"""The maker's pool of CN bits for one consumer and class: what to make ahead, and who gets which bytes.

The level follows demand: `horizon` seconds of what was used of late, between `minimum` and `maximum`; batches have a
few fixed sizes. A request for which the pool has enough causes nothing on the carrier: the pool is filled when somebody
waits (`plan`), and otherwise only at the instants of a random clock of its own (`look`), so that relays do not show
when somebody asked. With `minimum` and `maximum` both 0 the pool makes what each request needs, and keeps nothing.
Memory only. Sans-IO: time and randomness are arguments; the driver is `carrier`.
"""

from __future__ import annotations

import hmac
import math
from collections import OrderedDict
from dataclasses import dataclass, field

from keyhaul.config.services import PoolSection
from keyhaul.keys.material import KeyMaterial
from keyhaul.pressure.fair import FairOrder
from keyhaul.randomness import Source, fraction, identifier
from keyhaul.transport.messages.peer import CnRange
from services.akms.cn_batch import CHECK_KEY_BYTES, NEWS, CnBatch, CnEvent, CnState
from services.akms.cn_level import Level
from services.akms.cn_path import LONGEST_PATIENCE, CnPath

SHORTEST_WAIT = 1.0
LONGEST_WAIT = 60.0
"""Seconds after which somebody who got no bits in time is told to come back."""

LOST_SECONDS = LONGEST_PATIENCE + 15.0
"""How long the bits of a batch are kept for its confirmation: nodes on the way, and the consumer, gave up before."""

_REMEMBERED_CHECKS = 1024


@dataclass(frozen=True, slots=True)
class Share:
    """Who asks for bits, as far as a fair order needs to know."""

    flow: str = ""
    weight: float = 1.0


ANYBODY = Share()


@dataclass(frozen=True, slots=True)
class Taken:
    """CN bytes for one use, and where the consumer finds its copy of them."""

    ranges: list[CnRange]
    bits: bytes = field(repr=False)
    at: float
    """When they were taken: what was made until then is as doubtful as they are, if the consumer lacks them."""


class MakerPool:
    """Bits that this AKMS made for one consumer and class."""

    def __init__(self, service_class: str, settings: PoolSection, source: Source, now: float) -> None:
        self._service_class = service_class
        self._keeps = settings.maximum > 0
        self._sizes = sorted(settings.batches)
        self._source = source
        self._path = CnPath(self._sizes)
        self._batches: OrderedDict[str, CnBatch] = OrderedDict()
        self._waiting: dict[int, int] = {}
        self._order: FairOrder[int] = FairOrder()
        self._tickets = 0
        self._failures = 0
        self._retry_at = 0.0
        self._checks: OrderedDict[str, bytes] = OrderedDict()
        self._level = Level(settings, source, now)

    @property
    def available(self) -> int:
        """Confirmed bytes that nobody has taken."""
        return sum(batch.left for batch in self._batches.values() if batch.state is CnState.CONFIRMED)

    @property
    def in_flight(self) -> int:
        """Bytes of CN key on their way."""
        return self._path.in_flight

    @property
    def waiting(self) -> int:
        """Bytes that requests wait for."""
        return sum(self._waiting.values())

    @property
    def troubled(self) -> bool:
        """Whether the latest batch failed: until one arrives nobody should count on quick bits."""
        return self._failures > 0

    def ask(self, count: int, now: float, share: Share = ANYBODY) -> int:
        """Queue up for `count` bytes, among others of one share; returns a ticket for `serve` or `forget`."""
        self._tickets += 1
        self._waiting[self._tickets] = count
        self._order.push(self._tickets, share.flow, cost=count, weight=share.weight)
        self._level.use(count, now)
        return self._tickets

    def forget(self, ticket: int) -> None:
        """Nobody waits for this ticket any more."""
        if self._waiting.pop(ticket, None) is not None:
            self._order.remove(ticket)

    def serve(self, now: float) -> list[tuple[int, Taken]]:
        """Hand bytes to those who wait, in fair order, as far as confirmed bytes go; each byte once."""
        served = []
        while (ticket := self._order.head()) is not None and self.available >= self._waiting[ticket]:
            self._order.pop()
            served.append((ticket, self._take(self._waiting.pop(ticket), now)))
        if served and not self._waiting and not self._keeps:
            for batch in [batch for batch in self._batches.values() if batch.state is CnState.CONFIRMED]:
                self._burn(batch)
        return served

    def wait(self, count: int, now: float) -> float:
        """Seconds until so many bytes more than others wait for will be here, at the rate at which they come of late.

        Where none come nobody knows: then it is the shortest wait, so that somebody asks when they come again.
        """
        rate = self._path.rate(now)
        missing = self.waiting + count - self.available
        return min(LONGEST_WAIT, max(SHORTEST_WAIT, missing / rate)) if rate else SHORTEST_WAIT

    def target(self, now: float) -> int:
        """Bytes to keep ahead of demand."""
        return self._level.target(now)

    def plan(self, now: float) -> list[CnBatch]:
        """Draw the batches to announce and submit now because somebody waits: what is asked for, then the target."""
        if not self._waiting or now < self._retry_at:
            return []
        new: list[CnBatch] = []
        while (short := -self._ahead()) > 0 and (sizes := self._possible(now)):
            size = next((size for size in sizes if size >= short), sizes[-1])
            new.append(self._draw(size, now))
        ahead, target = self._ahead(), self.target(now)
        return new + self._fill(target - ahead if target - ahead >= target // 4 else 0, now)

    def look(self, now: float) -> list[CnBatch]:
        """Where the clock's next instant has come, draw the batches to announce and submit for a level that is low.

        Half of what lacks, rounded up or down at random to batches of the smallest size: no single use decides.
        """
        if not self._level.due(now):
            return []
        lacking = max(0, self.target(now) - self._ahead()) / 2
        batches = int(lacking / self._sizes[0] + fraction(self._source))
        return [] if now < self._retry_at else self._fill(batches * self._sizes[0], now)

    def knows(self, name: str) -> bool:
        """Whether a check of this batch can still be answered."""
        return name in self._checks

    def submitted(self, name: str) -> None:
        """The CKMS has taken the batch."""
        self._step(name, CnEvent.SUBMIT)

    def delivered(self, name: str) -> None:
        """The carrier says that the batch arrived."""
        self._step(name, CnEvent.DELIVER)

    def confirm(self, name: str, check: bytes, now: float) -> bool | None:
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
            self._path.confirmed(name, now)
            self._failures = 0
            self._retry_at = 0.0
        return same

    def failed(self, name: str, now: float) -> None:
        """There is bad news of a batch. The first retry may be at once (another path), later ones back off.

        Its bits are kept: what is said to have failed may have arrived. What was on its way at the time of a failure
        and fails too counts as the same failure.
        """
        if not self._path.waits_for(name):
            return
        self._failures += self._path.miss(name, now)
        if self._failures > 1:
            self._retry_at = now + min(2.0, 0.05 * 2.0 ** min(self._failures - 2, 6))

    def doubt(self, now: float) -> None:
        """Somebody to whom batches were given is away: patience with all that is on its way is at its end."""
        for name in self._path.on_their_way:
            self.failed(name, now)

    def hope(self) -> None:
        """Those who were away are there again: the next attempt may be at once, and the pauses after it begin anew.

        A CKMS that has just started answers before its links stand.
        """
        self._retry_at = 0.0
        self._failures = min(self._failures, 1)

    def expire(self, now: float) -> int:
        """End the patience with what is late, and burn what can come no more; returns how many batches were burned."""
        for name in self._path.late(now):
            self.failed(name, now)
        lost = [
            batch
            for batch in self._batches.values()
            if batch.state is not CnState.CONFIRMED and batch.made <= now - LOST_SECONDS
        ]
        for batch in lost:
            self._checks.pop(batch.name, None)
            self._burn(batch)
        return len(lost)

    def useful(self, name: str, now: float) -> float:
        """Seconds for which nodes on the way should try to bring a batch; 0 where it is not on its way."""
        return self._path.useful(name, now)

    def burn(self, made_until: float = math.inf) -> int:
        """Burn what was made until then, as the consumer lacks it or this AKMS stops; returns how many batches."""
        doubtful = [batch for batch in self._batches.values() if batch.made <= made_until]
        for batch in doubtful:
            self._checks.pop(batch.name, None)
            self._burn(batch)
        return len(doubtful)

    def wake_at(self, now: float) -> float:
        """When `look`, `plan` or `expire` should be called again if nothing else happens; infinite: never."""
        retry_at = self._retry_at if self._retry_at > now else math.inf
        return min(self._level.look_at, self._path.next_due(), retry_at)

    def _ahead(self) -> int:
        """Bytes that are here or on their way and that nobody waits for; negative where they do not suffice."""
        return self.available + self.in_flight - self.waiting

    def _fill(self, lacking: int, now: float) -> list[CnBatch]:
        """Draw batches for so many bytes, as far as they may go on their way."""
        new: list[CnBatch] = []
        while lacking > 0 and (sizes := self._possible(now)):
            size = next((size for size in reversed(sizes) if size <= lacking), sizes[0])
            new.append(self._draw(size, now))
            lacking -= size
        return new

    def _possible(self, now: float) -> list[int]:
        """The sizes of which another batch may go on its way now."""
        if not self._path.open(now):
            return []
        return [size for size in self._sizes if size <= max(self._sizes[0], self._path.largest)]

    def _draw(self, size: int, now: float) -> CnBatch:
        bits = KeyMaterial(self._source(CHECK_KEY_BYTES + size))
        batch = CnBatch(identifier(self._source), self._service_class, bits, now)
        self._batches[batch.name] = batch
        self._path.sent(batch.name, size, now)
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
        self._path.forget(batch.name)
        self._batches.pop(batch.name, None)

    def _step(self, name: str, event: CnEvent) -> None:
        """Take a step, once: news of the same may come again where the answer to it was lost."""
        batch = self._batches.get(name)
        if batch is not None and batch.state is not NEWS[event]:
            batch.apply(event)
