"""Shares of class split at the end of their paths: kept until all of a set are there, or until one of them is late.

Sans-IO: time (`now`, seconds of a monotonic clock) is an argument. Which shares belong together nobody can tell from
what they bring: this node's AKMS says which batches are on their way (`expect`), and their names say what their shares
are called. Shares may come before that. What is wrong with one share ends its set: nothing of it is delivered, and all
of it is wiped.

What waits is bounded in bytes, and of those that come under one label no more wait than there is room left.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from keyhaul.agents.statements import MAXIMUM_SHARES
from keyhaul.keys.material import KeyMaterial
from services.ckms.shares import join, name_of

MAXIMUM_BYTES = 16_777_216
"""Of all shares that wait."""

OVERHEAD = 1_024
"""Bytes that a share counts for beyond its own."""

MAXIMUM_EXPECTED = 4_096
"""Batches that are on their way here at a time."""

EXPECTED = 65.0
"""Seconds after which a batch is awaited no more: none is under way for longer."""

REMEMBERED = 65_536
"""Names of shares whose sets are over."""

ANSWER = 0.5
"""Seconds before its deadline, a quarter of its time at most, in which it is answered that a share waited in vain."""


class Spoiled(StrEnum):
    """Why shares that came were not put together."""

    INCOMPLETE = "incomplete"
    """Another share of the set did not come in time."""
    UNEXPECTED = "unexpected"
    """Nobody said in time that there is such a set."""
    DOUBLED = "doubled"
    """A share came twice."""
    UNLIKE = "unlike"
    """A share has another length than was announced, or is one of another number of shares."""
    TOGETHER = "together"
    """Two shares came over one neighbour, which so has seen both."""
    OVER = "over"
    """The set was over when the share came: complete, late or spoiled."""
    FULL = "full"
    """There was no room for it."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share as it came, without its bits."""

    reference: str
    """What it is called here."""
    previous: str
    """The neighbour that brought it."""
    flow: str
    """The label under which it came."""
    name: str
    deadline: float
    """When the node before gives it up."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A set is complete."""

    batch: str
    bits: bytes = field(repr=False)
    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """Shares that are given up, by reference; they are wiped."""

    references: tuple[str, ...]
    reason: Spoiled


@dataclass(slots=True)
class _Waiting:
    share: Share
    bits: KeyMaterial


@dataclass(slots=True, eq=False)
class _Set:
    """A batch that is on its way."""

    batch: str
    length: int
    until: float
    names: tuple[str, ...]
    """Of all shares that it may have, however many there are."""
    shares: int = 0
    """How many there are; 0: none has come."""
    there: dict[int, _Waiting] = field(default_factory=dict)
    """What has come, by number."""


class Combining:
    """Sets of shares that are not complete."""

    def __init__(self) -> None:
        self.spoiled: dict[Spoiled, int] = dict.fromkeys(Spoiled, 0)
        """Shares that were given up."""
        self.completed = 0
        """Sets."""
        self._sets: OrderedDict[str, _Set] = OrderedDict()
        self._places: dict[str, tuple[_Set, int, int]] = {}
        """Of each name that is awaited: its set, its number, and how many shares there are if it is this one."""
        self._early: dict[str, _Waiting] = {}
        """What came before it was said to be on its way."""
        self._over: OrderedDict[str, None] = OrderedDict()
        self._due: list[tuple[float, str]] = []
        self._waiting: dict[str, str] = {}
        """Names of the shares that wait, by reference."""
        self._room = MAXIMUM_BYTES
        self._held: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Shares that wait for others."""
        return len(self._waiting)

    def expect(self, batch: str, length: int, now: float) -> list[Whole | Given] | None:
        """A batch of this name and length (bytes) is on its way; said again, it changes nothing.

        Returns None where too many are.
        """
        ended = self.expire(now)
        if batch in self._sets:
            return ended
        if len(self._sets) >= MAXIMUM_EXPECTED:
            return None
        places = [(number, shares) for shares in range(2, MAXIMUM_SHARES + 1) for number in range(shares)]
        names = tuple(name_of(batch, *place) for place in places)
        awaited = self._sets[batch] = _Set(batch, length, now + EXPECTED, names)
        self._places.update((name, (awaited, *place)) for name, place in zip(names, places, strict=True))
        for early in [self._early.pop(name) for name in names if name in self._early]:
            ended += self._put(early)
        return ended

    def add(self, share: Share, bits: bytes, now: float) -> list[Whole | Given]:
        """A share came; it is answered in the end, by being part of a whole or given up."""
        ended = self.expire(now)
        if not self._take_room(share.flow, len(bits) + OVERHEAD):
            return [*ended, self._give((share.reference,), Spoiled.FULL)]
        self._waiting[share.reference] = share.name
        heapq.heappush(self._due, (share.deadline - min(ANSWER, (share.deadline - now) / 4), share.reference))
        return ended + self._put(_Waiting(share, KeyMaterial(bits)))

    def expire(self, now: float) -> list[Whole | Given]:
        """Give up what waited too long, and what waits with it."""
        ended: list[Whole | Given] = []
        while self._due and self._due[0][0] <= now:
            _, reference = heapq.heappop(self._due)
            name = self._waiting.get(reference)
            if name in self._early:
                ended.append(self._give(self._wipe([self._early.pop(name)]), Spoiled.UNEXPECTED))
            elif name is not None:
                ended.append(self._spoil(self._places[name][0], Spoiled.INCOMPLETE))
        while self._sets and (oldest := next(iter(self._sets.values()))).until <= now:
            ended.append(self._spoil(oldest, Spoiled.INCOMPLETE))
        return ended

    def wipe(self) -> None:
        """Forget everything: this service stops."""
        for awaited in list(self._sets.values()):
            self._spoil(awaited, Spoiled.INCOMPLETE)
        self._wipe([self._early.pop(name) for name in list(self._early)])

    def _put(self, came: _Waiting) -> list[Whole | Given]:
        """Put a share with the others of its set."""
        name = came.share.name
        if name in self._over:
            return [self._give(self._wipe([came]), Spoiled.OVER)]
        if name not in self._places:
            return self._keep(name, came)
        awaited, number, shares = self._places[name]
        fault = _fault(awaited, number, shares, came)
        if fault is not None:
            return [self._spoil(awaited, fault, came)]
        awaited.shares = shares
        awaited.there[number] = came
        return [self._complete(awaited)] if len(awaited.there) == shares else []

    def _keep(self, name: str, came: _Waiting) -> list[Whole | Given]:
        """Nobody has said yet what a share belongs to."""
        other = self._early.pop(name, None)
        if other is None:
            self._early[name] = came
            return []
        self._remember((name,))
        return [self._give(self._wipe([other, came]), Spoiled.DOUBLED)]

    def _complete(self, awaited: _Set) -> Whole:
        there = [awaited.there[number] for number in range(awaited.shares)]
        bits = join([one.bits.reveal() for one in there])
        self._close(awaited)
        self._wipe(there)
        self.completed += 1
        return Whole(awaited.batch, bits, tuple(one.share for one in there))

    def _spoil(self, awaited: _Set, reason: Spoiled, *others: _Waiting) -> Given:
        """End a set; `others` are given up with what is there of it."""
        self._close(awaited)
        return self._give(self._wipe([*awaited.there.values(), *others]), reason)

    def _close(self, awaited: _Set) -> None:
        del self._sets[awaited.batch]
        for name in awaited.names:
            del self._places[name]
        self._remember(awaited.names)

    def _wipe(self, waiting: list[_Waiting]) -> tuple[str, ...]:
        for one in waiting:
            one.bits.wipe()
            del self._waiting[one.share.reference]
            self._give_room(one.share.flow, len(one.bits) + OVERHEAD)
        return tuple(one.share.reference for one in waiting)

    def _give(self, references: tuple[str, ...], reason: Spoiled) -> Given:
        self.spoiled[reason] += len(references)
        return Given(references, reason)

    def _remember(self, names: tuple[str, ...]) -> None:
        self._over.update(dict.fromkeys(names))
        while len(self._over) > REMEMBERED:
            self._over.popitem(last=False)

    def _take_room(self, flow: str, length: int) -> bool:
        if length > self._room or (self._held[flow] and self._held[flow] + length > self._room):
            return False
        self._room -= length
        self._held[flow] += length
        return True

    def _give_room(self, flow: str, length: int) -> None:
        self._room += length
        self._held[flow] -= length
        if not self._held[flow]:
            del self._held[flow]


def _fault(awaited: _Set, number: int, shares: int, came: _Waiting) -> Spoiled | None:
    """What is wrong with a share, beside those of its set that are there."""
    if number in awaited.there:
        return Spoiled.DOUBLED
    if len(came.bits) != awaited.length or (awaited.there and shares != awaited.shares):
        return Spoiled.UNLIKE
    if any(one.share.previous == came.share.previous for one in awaited.there.values()):
        return Spoiled.TOGETHER
    return None
