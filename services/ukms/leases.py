"""Keys set aside for issue: durably marked as issued ahead of need, in memory, handed out without a transaction.

Sans-IO: time (`now`, seconds of this node's clock) is an argument. A lease follows the demand of the last second: a
buffer that is asked for a key now and then has none, so that a crash costs it nothing, and a busy one loses at most
what it would have handed out in about a second. Whatever is in a lease counts as issued wherever the store is asked,
until the store has durably taken it back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from keyhaul.keys.material import KeyId

MAXIMUM_LEASED = 1_024
"""Keys of one buffer set aside at a time."""

LEAST = 4
"""A lower demand than this many keys in a second is served without setting keys aside."""

SECONDS = 1.0
"""Of demand that a lease covers."""

IDLE = 2.0
"""Seconds after the last request for keys when what is set aside goes back."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A master's copy in the store."""

    key_id: KeyId
    expires: float
    batch: str
    position: int
    """Of the key in its batch."""


@dataclass(frozen=True, slots=True)
class Leased:
    """A copy set aside: the store has marked it as issued and given up its bits."""

    stored: Stored
    sealed: bytes = field(repr=False)
    """The bits as the store had sealed them."""


class Demand:
    """An exponentially weighted rate of keys asked for, with `horizon` seconds as its time constant."""

    def __init__(self, horizon: float) -> None:
        self._constant = max(horizon, 0.1)
        self._level = 0.0
        self._at = 0.0
        self.last = -math.inf
        """When keys were last asked for."""

    def count(self, number: int, now: float) -> None:
        """Keys were asked for."""
        self._decay(now)
        self._level += number
        self.last = now

    def rate(self, now: float) -> float:
        """Keys per second of late."""
        self._decay(now)
        return self._level / self._constant

    def _decay(self, now: float) -> None:
        passed = now - self._at
        if passed > 0:
            self._level *= math.exp(-passed / self._constant)
        self._at = now


class Lease:
    """What of one buffer is set aside, first to be handed out first; one transaction at a time adds to it."""

    def __init__(self) -> None:
        self._ready: deque[Leased] = deque()
        self._lapsed: list[Leased] = []
        self._coming: tuple[Stored, ...] = ()
        self._in_hand: dict[KeyId, Stored] = {}
        self._spoiled: set[KeyId] = set()
        self._demand = Demand(SECONDS)

    def __len__(self) -> int:
        """Keys that can be handed out at once."""
        return len(self._ready)

    @property
    def coming(self) -> tuple[Stored, ...]:
        """What the transaction under way sets aside."""
        return self._coming

    @property
    def empty(self) -> bool:
        """Whether nothing is set aside, being set aside or waiting to go back."""
        return not (self._ready or self._lapsed or self._coming)

    def asked(self, number: int, now: float) -> None:
        """Keys of the buffer were asked for."""
        self._demand.count(number, now)

    def take(self, number: int, now: float) -> tuple[Leased, ...]:
        """Take up to `number` keys out, to be handed out at once, `put_back` at once, or `keep_in_hand`."""
        taken: list[Leased] = []
        while self._ready and len(taken) < number:
            leased = self._ready.popleft()
            (taken if leased.stored.expires > now else self._lapsed).append(leased)
        return tuple(taken)

    def keep_in_hand(self, leased: Iterable[Leased]) -> None:
        """Keys that were taken wait for others; `gave` or `put_back` follows."""
        self._in_hand |= {one.stored.key_id: one.stored for one in leased}

    def gave(self, leased: Iterable[Leased]) -> None:
        """Keys that were in hand have been handed out."""
        for one in leased:
            self._in_hand.pop(one.stored.key_id, None)
            self._spoiled.discard(one.stored.key_id)

    def put_back(self, leased: Iterable[Leased]) -> None:
        """Keys that were taken have certainly not been handed out; what was to be withheld meanwhile is burned."""
        leased = tuple(leased)
        self._ready.extendleft(one for one in reversed(leased) if one.stored.key_id not in self._spoiled)
        self.gave(leased)

    def wanted(self, now: float) -> int:
        """How many keys to set aside now; 0 while a transaction is under way."""
        if self._coming:
            return 0
        target = min(MAXIMUM_LEASED, int(SECONDS * self._demand.rate(now)))
        return target - len(self._ready) if target >= LEAST and 2 * len(self._ready) <= target else 0

    def begin(self, stored: tuple[Stored, ...]) -> None:
        """A transaction that sets these keys aside is under way."""
        self._coming = stored

    def land(self, leased: Iterable[Leased]) -> None:
        """The transaction is durable (nothing `leased`: it is not, or nobody knows)."""
        self._ready.extend(one for one in leased if one.stored.key_id not in self._spoiled)
        self._spoiled.difference_update(stored.key_id for stored in self._coming)
        self._coming = ()

    def withhold(self, chosen: Callable[[Stored], bool]) -> list[Leased]:
        """Take out, for good, what is set aside of the chosen keys.

        Those that are on their way in or in hand will not come back; whether they are handed out is not known.
        """
        found = [leased for leased in (*self._ready, *self._lapsed) if chosen(leased.stored)]
        if found:
            self._ready = deque(leased for leased in self._ready if not chosen(leased.stored))
            self._lapsed = [leased for leased in self._lapsed if not chosen(leased.stored)]
        self._spoiled |= {stored.key_id for stored in (*self._coming, *self._in_hand.values()) if chosen(stored)}
        return found

    def surplus(self, now: float, *, all_of_it: bool = False) -> list[Leased]:
        """Take out what goes back to the store: what has expired, and everything once nobody asks any more."""
        while self._ready and self._ready[0].stored.expires <= now:
            self._lapsed.append(self._ready.popleft())
        found, self._lapsed = self._lapsed, []
        if all_of_it or now - self._demand.last > IDLE:
            found += self._ready
            self._ready.clear()
        return found
