"""The two ends of a simulated pair and how they keep their stores in step (sans-IO).

The transmitter distils keys, decides which direction each serves, and offers them as numbered blocks; the receiver
stores them and acknowledges. A direction's keys are given out by one end only, so no key leaves twice by enc_keys.
The transmitter gives its own keys out once they are acknowledged, or after `PATIENCE`: real modules do not wait for
one another for ever either, and then an ID is known at one end only.

At reconnection the hellos tell whether both ends still are the runs that were in step. If so, what the receiver lacks
is offered again, unchanged; if not, one store is lost, and the other end drops what it holds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from uuid import UUID

from keyhaul.keys.material import KeyMaterial
from keyhaul.randomness import Source, key_id
from services.qkdm.allotment import Allotment, Demand, Master
from services.qkdm.end import End, OutOfStep
from services.qkdm.messages import MAXIMUM_BLOCK, Acknowledgement, Block, Hello, Message
from services.qkdm.store import HeldKey

PATIENCE = 2.0
"""Seconds after which the transmitter gives out keys that are not acknowledged."""


@dataclass(slots=True)
class _Offer:
    """A block that is not acknowledged yet."""

    block: Block
    made_at: float
    for_receiver: int
    """Keys in it that the receiver is to give out."""
    own: list[HeldKey] = field(repr=False)
    """Keys in it that this end will give out; empty once they are in its store."""


class Transmitter(End):
    """The end that makes the keys."""

    transmitter = True

    def __init__(self, link: str, key_size: int, capacity: int, source: Source) -> None:
        super().__init__(link, key_size, capacity, source(16))
        self._source = source
        self._window = capacity
        self._number = 0
        self._acknowledged = False
        self._offers: deque[_Offer] = deque()
        self._allotment = Allotment(self.capacity)
        self._receiver_level = 0

    @property
    def last_number(self) -> int:
        return self._number

    @property
    def unacknowledged(self) -> int:
        """Keys in blocks that the receiver has not acknowledged."""
        return sum(len(offer.block.masters) for offer in self._offers)

    @property
    def needs_stock(self) -> bool:
        """Whether the pair is in step and no key of it ever reached the receiver."""
        return self.synchronised and not self._acknowledged and not self._offers

    def settle(self, now: float) -> None:
        for offer in self._offers:
            if now - offer.made_at < PATIENCE:
                break
            self._publish(offer)

    def produce(self, count: int, now: float, *, rate: float, qber: float) -> Block | None:
        """Make `count` keys and return the block to send; None where the receiver is too far behind, or away.

        Args:
            count: of keys, at most `MAXIMUM_BLOCK`.
            now: seconds.
            rate: secret bits per second, for the receiver's information.
            qber: likewise.
        """
        self.settle(now)
        if count < 1:
            return None
        if not self.synchronised or self.unacknowledged + count > self._window:
            self.counters.lost += count
            return None
        masters = self._allot(min(count, MAXIMUM_BLOCK), now)
        size = self.key_size // 8
        ids = [key_id(self._source) for _ in masters]
        bits = self._source(size * len(masters))
        keys = [HeldKey(id_, KeyMaterial(bits[i * size : (i + 1) * size])) for i, id_ in enumerate(ids)]
        self.counters.generated += len(keys)
        self._number += 1
        block = Block(self._number, b"".join(id_.bytes for id_ in ids), bits, bytes(masters), rate, qber)
        own = [key for key, master in zip(keys, masters, strict=True) if master is Master.TRANSMITTER]
        others = [key for key, master in zip(keys, masters, strict=True) if master is Master.RECEIVER]
        self.counters.overflowed += self.store.peer.add(others)
        self._offers.append(_Offer(block, now, len(others), own))
        return block

    def receive(self, message: Message, now: float) -> list[Message]:
        self.settle(now)
        match message:
            case Hello():
                return self._synchronise(message, now)
            case Acknowledgement() if self.synchronised and message.number <= self._number:
                self._acknowledge(message.number)
                self._receiver_level = message.level
                self._allotment.observe(Master.RECEIVER, Demand(message.given, message.refused), now)
                return []
            case _:
                raise OutOfStep(f"a transmitter expects no {type(message).__name__.lower()} here")

    def _synchronise(self, hello: Hello, now: float) -> list[Message]:
        demand = Demand(hello.given, hello.refused)
        self._allotment.restart(Master.RECEIVER, hello.capacity, demand)
        if not self._meet(hello):
            self._drop_everything()
            return []
        if hello.number > self._number:
            raise OutOfStep("the receiver acknowledges blocks that were never made")
        self._acknowledge(hello.number)
        return [offer.block for offer in self._offers]

    def _acknowledge(self, number: int) -> None:
        while self._offers and self._offers[0].block.number <= number:
            self._publish(self._offers.popleft())
            self._acknowledged = True

    def _publish(self, offer: _Offer) -> None:
        self.counters.overflowed += self.store.own.add(offer.own)
        offer.own = []

    def _drop_everything(self) -> None:
        dropped = self.store.clear()
        for offer in self._offers:
            dropped += len(offer.own)
            for key in offer.own:
                key.material.wipe()
        self._offers.clear()
        self._receiver_level = 0
        self.counters.unsynchronised += dropped

    def _allot(self, count: int, now: float) -> list[Master]:
        self._allotment.observe(Master.TRANSMITTER, self.demand_now(), now)
        levels = {
            Master.TRANSMITTER: self.level + sum(len(offer.own) for offer in self._offers),
            Master.RECEIVER: self._receiver_level + sum(offer.for_receiver for offer in self._offers),
        }
        return self._allotment.allot(count, levels, now)

    def demand_now(self) -> Demand:
        """A copy of this end's demand counters."""
        return Demand(self.demand.given, self.demand.refused)


class Receiver(End):
    """The end that is sent the keys."""

    transmitter = False

    def __init__(self, link: str, key_size: int, capacity: int, source: Source) -> None:
        super().__init__(link, key_size, capacity, source(16))
        self._number = 0

    @property
    def last_number(self) -> int:
        return self._number

    def settle(self, now: float) -> None:
        """Nothing here waits for time to pass."""

    def report(self) -> Acknowledgement:
        """What this end stored, and how its direction stands: after each block, and whenever its KMS asked for keys."""
        return Acknowledgement(self._number, self.level, self.demand.given, self.demand.refused)

    def receive(self, message: Message, now: float) -> list[Message]:
        match message:
            case Hello():
                if not self._meet(message):
                    self.counters.unsynchronised += self.store.clear()
                    self._number = message.number
                return [self.report()]
            case Block() if self.synchronised:
                self._store(message)
                return [self.report()]
            case _:
                raise OutOfStep(f"a receiver expects no {type(message).__name__.lower()} here")

    def _store(self, block: Block) -> None:
        if block.number <= self._number:
            return
        if block.number != self._number + 1:
            raise OutOfStep(f"block {block.number} follows {self._number}")
        own, peer = self._unpack(block)
        self._number = block.number
        self.counters.generated += len(own) + len(peer)
        self.counters.overflowed += self.store.own.add(own) + self.store.peer.add(peer)

    def _unpack(self, block: Block) -> tuple[list[HeldKey], list[HeldKey]]:
        count, size = len(block.masters), self.key_size // 8
        if not 0 < count <= MAXIMUM_BLOCK or len(block.ids) != 16 * count or len(block.bits) != size * count:
            raise OutOfStep(f"block {block.number} is not made of keys, IDs and masters alike in number")
        own: list[HeldKey] = []
        peer: list[HeldKey] = []
        for index, master in enumerate(block.masters):
            id_ = UUID(bytes=block.ids[16 * index : 16 * index + 16])
            if id_ in self.store.own or id_ in self.store.peer or master not in (0, 1):
                raise OutOfStep(f"block {block.number} names a key that is here already, or no master")
            key = HeldKey(id_, KeyMaterial(block.bits[size * index : size * index + size]))
            (own if master == Master.RECEIVER else peer).append(key)
        return own, peer
