"""What both ends of a pair have in common: a store, counters, and handing keys out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.qkdm.allotment import Demand
from services.qkdm.messages import VERSION, Hello, Message
from services.qkdm.store import HeldKey, Store


class OutOfStep(Exception):
    """The other end said what it cannot have to say here: the connection ends, and the next one resynchronises."""


class Mismatch(OutOfStep):
    """The two ends are configured differently; the message says in what."""


@dataclass(slots=True)
class Counters:
    """Keys, since this end started."""

    generated: int = 0
    overflowed: int = 0
    """Dropped as the oldest of a full store."""
    unsynchronised: int = 0
    """Dropped because the other end cannot have them."""
    lost: int = 0
    """Distilled while too many blocks were unacknowledged, and not kept."""
    fetched: int = 0
    """Delivered by dec_keys; those by enc_keys are `End.demand.given`."""


class End(ABC):
    """One end of a pair."""

    transmitter: bool

    def __init__(self, link: str, key_size: int, capacity: int, instance: bytes) -> None:
        self.link = link
        self.key_size = key_size
        """Bits."""
        self.store = Store(capacity)
        self.demand = Demand()
        self.counters = Counters()
        self.synchronised = False
        """Whether the two ends are connected and in step."""
        self._instance = instance
        self._peer_instance = b""

    @property
    def level(self) -> int:
        """Keys that `give` can give out now."""
        return len(self.store.own)

    @property
    def capacity(self) -> int:
        """Keys that `level` can reach at most."""
        return self.store.own.capacity

    def give(self, number: int, now: float) -> list[HeldKey] | None:
        """Remove and return the `number` oldest keys of this end's direction (enc_keys); None where there are fewer."""
        self.settle(now)
        keys = self.store.own.take_oldest(number)
        if keys is None:
            self.demand.refused += 1
        else:
            self.demand.given += number
        return keys

    def fetch(self, key_ids: Sequence[UUID]) -> list[HeldKey] | None:
        """Remove and return those keys of the other end's direction (dec_keys); None where one of them is not here."""
        keys = self.store.peer.take(key_ids)
        if keys is not None:
            self.counters.fetched += len(keys)
        return keys

    def hello(self) -> Hello:
        """The first message on a new connection."""
        return Hello(
            version=VERSION,
            link=self.link,
            transmitter=self.transmitter,
            instance=self._instance,
            peer_instance=self._peer_instance,
            number=self.last_number,
            key_size=self.key_size,
            capacity=self.capacity,
            given=self.demand.given,
            refused=self.demand.refused,
        )

    def disconnected(self) -> None:
        """The connection is gone."""
        self.synchronised = False

    @property
    @abstractmethod
    def last_number(self) -> int:
        """The last block made or stored."""

    @abstractmethod
    def settle(self, now: float) -> None:
        """Do what fell due by the passing of time."""

    @abstractmethod
    def receive(self, message: Message, now: float) -> list[Message]:
        """Take a message in, and return what is to be sent.

        Raises:
            OutOfStep: it does not belong here.
        """

    def _meet(self, hello: Hello) -> bool:
        """Check the other end's hello; return whether both stores still belong together.

        Each end compares the same four values, so both decide alike.
        """
        if self.synchronised:
            raise OutOfStep("a second hello on one connection")
        differences = [
            f"{name} {ours!r} here, {theirs!r} there"
            for name, ours, theirs in (
                ("version", VERSION, hello.version),
                ("link", self.link, hello.link),
                ("key_size", self.key_size, hello.key_size),
                ("transmitter", not self.transmitter, hello.transmitter),
            )
            if ours != theirs
        ]
        if differences:
            raise Mismatch("the two ends differ: " + "; ".join(differences))
        together = self._peer_instance == hello.instance and hello.peer_instance == self._instance
        self._peer_instance = hello.instance
        self.synchronised = True
        return together
