"""The consumer's copies of CN bits: announced by their makers, delivered by the carrier, confirmed, used once.

Announcement and delivery may come in either order; what has only one of them, and what is not confirmed, is burned
after some seconds. What one maker may occupy is bounded: its oldest batch goes first. Memory only.
Sans-IO: time is an argument; the driver is `carrier`.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from keyhaul.keys.grants import SERVICE_CLASSES, SPLIT
from keyhaul.keys.material import KeyMaterial
from keyhaul.transport.messages.peer import CnRange
from services.akms.cn_batch import CHECK_KEY_BYTES, CnBatch, CnEvent, CnState, UsedBits
from services.akms.cn_path import LONGEST_PATIENCE

LONELY_SECONDS = LONGEST_PATIENCE + 10.0
"""How long an announcement waits for its bits, bits for their announcement, and both for confirmation."""

MAXIMUM_BATCH_BYTES = 1_048_576
MAXIMUM_BYTES_PER_MAKER = 4_194_304
_MAXIMUM_LONELY = 256
_MAXIMUM_LONELY_BYTES = 16_777_216
_NAME = re.compile(r"[0-9a-f]{32}")


class UnknownBits(Exception):
    """CN bits that this consumer does not have: it restarted, burned them, or never got them."""


class RefusedBatch(Exception):
    """An announcement or delivery that cannot be taken: its name is known, or its length is wrong."""


@dataclass(slots=True)
class _Announcement:
    maker: str
    service_class: str
    length: int
    at: float


@dataclass(slots=True)
class _Lonely:
    bits: KeyMaterial
    shares: int
    at: float


@dataclass(slots=True)
class Arrived:
    """A batch of which both announcement and bits are here: `check` goes to the maker."""

    maker: str
    name: str
    check: bytes


class CnStore:
    """Bits that other AKMSs made for this one."""

    def __init__(self) -> None:
        self._announced: OrderedDict[str, _Announcement] = OrderedDict()
        self._lonely: OrderedDict[str, _Lonely] = OrderedDict()
        self._batches: dict[str, OrderedDict[str, CnBatch]] = {}

    def announce(self, maker: str, name: str, length: int, service_class: str, now: float) -> Arrived | None:
        """Note that a maker's batch is on its way; returns it where its bits are here already.

        Raises:
            RefusedBatch: the name is taken, or the length (bytes) out of bounds.
        """
        if not _NAME.fullmatch(name) or service_class not in SERVICE_CLASSES:
            raise RefusedBatch("a CN batch has a name of 32 hexadecimal digits and a known class")
        if not CHECK_KEY_BYTES < length <= MAXIMUM_BATCH_BYTES:
            raise RefusedBatch("a CN batch of this length is not taken")
        if name in self._announced or any(name in batches for batches in self._batches.values()):
            raise RefusedBatch("a CN batch of this name is known")
        if sum(announcement.maker == maker for announcement in self._announced.values()) >= _MAXIMUM_LONELY:
            raise RefusedBatch("too many CN batches are announced")
        self._announced[name] = _Announcement(maker, service_class, length, now)
        return self._match(name, now)

    def withdraw(self, maker: str, name: str) -> None:
        """An announcement counts no more: its bits could not be taken."""
        announced = self._announced.get(name)
        if announced is not None and announced.maker == maker:
            del self._announced[name]

    def deliver(self, name: str, bits: bytes, now: float, *, shares: int = 1) -> Arrived | None:
        """Take bits from the carrier; returns the batch where it was announced already.

        Args:
            name: of the batch.
            bits: its bytes.
            now: seconds.
            shares: over how many paths without a common node they came.

        Raises:
            RefusedBatch: bits of this name came before, have another length than was announced, or came whole over
                one path though they are of class split.
        """
        if name in self._lonely or any(name in batches for batches in self._batches.values()):
            raise RefusedBatch("a CN batch of this name was delivered before")
        if not _NAME.fullmatch(name) or len(bits) > MAXIMUM_BATCH_BYTES:
            raise RefusedBatch("a CN batch of this name or length is not taken")
        while len(self._lonely) >= _MAXIMUM_LONELY or self._lonely_bytes() + len(bits) > _MAXIMUM_LONELY_BYTES:
            _, dropped = self._lonely.popitem(last=False)
            dropped.bits.wipe()
        self._lonely[name] = _Lonely(KeyMaterial(bits), shares, now)
        return self._match(name, now)

    def confirmed(self, maker: str, name: str) -> None:
        """The maker says that it sent the same bits: they may be used."""
        batch = self._of(maker).get(name)
        if batch is not None:
            batch.apply(CnEvent.CONFIRM)

    def burn(self, maker: str, name: str) -> None:
        """Wipe a batch."""
        batch = self._of(maker).pop(name, None)
        if batch is not None:
            batch.apply(CnEvent.BURN)

    def expose(self, maker: str, service_class: str) -> int:
        """Wipe all of a maker's batches of a class, and expect none that is on its way; returns how many were here."""
        for name, announced in list(self._announced.items()):
            if (announced.maker, announced.service_class) == (maker, service_class):
                del self._announced[name]
        exposed = [name for name, batch in self._of(maker).items() if batch.service_class == service_class]
        for name in exposed:
            self.burn(maker, name)
        return len(exposed)

    def unconfirmed(self, maker: str, ranges: Iterable[CnRange]) -> set[str]:
        """Names of the ranges' batches that are on their way or here but not confirmed yet."""
        known = self._of(maker)
        waiting = {name for name, announcement in self._announced.items() if announcement.maker == maker}
        waiting |= {name for name, batch in known.items() if batch.state is CnState.DELIVERED}
        return waiting & {wanted.batch for wanted in ranges}

    def take(self, maker: str, service_class: str, ranges: list[CnRange]) -> bytes:
        """Return the bytes of all ranges, one after the other, and wipe them: all or none.

        Raises:
            UnknownBits: a batch is not here, or is not confirmed.
            UsedBits: bytes are used, twice among the ranges, outside their batch, or of another class.
        """
        known = self._of(maker)
        claimed: dict[str, list[tuple[int, int]]] = {}
        for wanted in ranges:
            batch = known.get(wanted.batch)
            if batch is None or batch.state is not CnState.CONFIRMED:
                raise UnknownBits("CN bits that this AKMS does not have")
            span = (wanted.offset, wanted.offset + wanted.length)
            others = claimed.setdefault(wanted.batch, [])
            overlaps = any(span[0] < stop and start < span[1] for start, stop in others)
            if overlaps or batch.service_class != service_class or not batch.is_free(wanted.offset, wanted.length):
                raise UsedBits("CN bytes that are used, outside their batch or of another class")
            others.append(span)
        bits = b"".join(known[wanted.batch].take(wanted.offset, wanted.length) for wanted in ranges)
        for name in claimed:
            if not known[name].free:
                self.burn(maker, name)
        return bits

    def expire(self, now: float) -> int:
        """Burn what waited too long for its other half or for confirmation; returns how many batches."""
        old = now - LONELY_SECONDS
        announced = [name for name, announcement in self._announced.items() if announcement.at <= old]
        for name in announced:
            del self._announced[name]
        lonely = [name for name, one in self._lonely.items() if one.at <= old]
        for name in lonely:
            self._lonely.pop(name).bits.wipe()
        late = [
            (maker, batch.name)
            for maker, batches in self._batches.items()
            for batch in batches.values()
            if batch.state is not CnState.CONFIRMED and batch.made <= old
        ]
        for maker, name in late:
            self.burn(maker, name)
        return len(announced) + len(lonely) + len(late)

    def burn_all(self) -> None:
        """Wipe everything: this AKMS stops."""
        for maker, batches in self._batches.items():
            for name in list(batches):
                self.burn(maker, name)
        for one in self._lonely.values():
            one.bits.wipe()
        self._lonely.clear()
        self._announced.clear()

    def levels(self) -> dict[str, int]:
        """Confirmed bytes left by maker, for operators."""
        return {
            maker: sum(batch.left for batch in batches.values() if batch.state is CnState.CONFIRMED)
            for maker, batches in self._batches.items()
        }

    def _lonely_bytes(self) -> int:
        return sum(len(one.bits) for one in self._lonely.values())

    def _of(self, maker: str) -> OrderedDict[str, CnBatch]:
        return self._batches.get(maker, OrderedDict())

    def _match(self, name: str, now: float) -> Arrived | None:
        if name not in self._announced or name not in self._lonely:
            return None
        announcement = self._announced.pop(name)
        came = self._lonely.pop(name)
        bits = came.bits
        if len(bits) != announcement.length:
            bits.wipe()
            raise RefusedBatch("a CN batch came with another length than announced")
        if (came.shares > 1) is not (announcement.service_class == SPLIT):
            bits.wipe()
            raise RefusedBatch("class split comes in shares, and no other class does")
        batch = CnBatch(name, announcement.service_class, bits, now)
        batch.apply(CnEvent.DELIVER)
        batches = self._batches.setdefault(announcement.maker, OrderedDict())
        batches[name] = batch
        while sum(len(held.bits) for held in batches.values()) > MAXIMUM_BYTES_PER_MAKER:
            self.burn(announcement.maker, next(iter(batches)))
        return Arrived(announcement.maker, name, batch.check)
