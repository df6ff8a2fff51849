"""Who comes next, and how many at a time, where flows share something.

Start-time fair queueing: a flow that is behind its weight comes first, whatever the others have waiting. And of a
limited number of places no flow holds more than are left free, so that there is always one for another. Sans-IO.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

_REMEMBERED = 1024
"""Flows of which nothing waits and that are remembered for what they had."""

Item = TypeVar("Item")
Flow = Hashable


class FairOrder(Generic[Item]):
    """Items in the order in which flows of some weights are due."""

    def __init__(self) -> None:
        self._waiting: dict[Flow, deque[tuple[float, int, Item]]] = {}
        self._finish: dict[Flow, float] = {}
        self._clock = 0.0
        self._number = 0

    def __len__(self) -> int:
        """Items that wait."""
        return sum(map(len, self._waiting.values()))

    def push(self, item: Item, flow: Flow = "", *, cost: float = 1.0, weight: float = 1.0) -> None:
        """Queue an item of a flow; it uses `cost` of what is shared."""
        start = max(self._clock, self._finish.get(flow, 0.0))
        self._finish[flow] = start + cost / weight
        self._number += 1
        self._waiting.setdefault(flow, deque()).append((start, self._number, item))

    def head(self, may: Callable[[Flow], bool] = lambda _: True) -> Item | None:
        """The item that is due, of those whose flow `may` come; None where there is none."""
        flow = self._due(may)
        return None if flow is None else self._waiting[flow][0][2]

    def pop(self, may: Callable[[Flow], bool] = lambda _: True) -> Item | None:
        """As `head`, and take it out."""
        flow = self._due(may)
        if flow is None:
            return None
        start, _, item = self._waiting[flow].popleft()
        self._clock = max(self._clock, start)
        self._left(flow)
        return item

    def remove(self, item: Item) -> bool:
        """Take an item out that wants its turn no more; False where it is not here."""
        for flow, waiting in self._waiting.items():
            for entry in waiting:
                if entry[2] == item:
                    waiting.remove(entry)
                    self._left(flow)
                    return True
        return False

    def _due(self, may: Callable[[Flow], bool]) -> Flow | None:
        heads = ((waiting[0][0], waiting[0][1], flow) for flow, waiting in self._waiting.items() if may(flow))
        return min(heads, key=lambda head: head[:2], default=(0.0, 0, None))[2]

    def _left(self, flow: Flow) -> None:
        if not self._waiting[flow]:
            del self._waiting[flow]
        if not self._waiting:
            self._finish = {flow: finish for flow, finish in self._finish.items() if finish > self._clock}
        if len(self._finish) > len(self._waiting) + _REMEMBERED:
            self._finish = {flow: self._finish[flow] for flow in self._waiting}


class Shares:
    """Places of which a flow may have one whenever any is free, and more while it has fewer than are free."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: Counter[Flow] = Counter()
        self._total = 0

    @property
    def held(self) -> int:
        """Places that are taken."""
        return self._total

    def may(self, flow: Flow, limit: int | None = None) -> bool:
        """Whether there is a place for a flow; `limit`: out of so many only."""
        free = (self._limit if limit is None else limit) - self._total
        return free > 0 and (self._held[flow] == 0 or self._held[flow] < free)

    def take(self, flow: Flow, limit: int | None = None) -> bool:
        """Take a place, if there is one for this flow."""
        if not self.may(flow, limit):
            return False
        self._held[flow] += 1
        self._total += 1
        return True

    def give_back(self, flow: Flow) -> None:
        """Leave a place."""
        self._total -= 1
        self._held[flow] -= 1
        if not self._held[flow]:
            del self._held[flow]


@dataclass(slots=True, eq=False)
class Turn:
    """A place that somebody wants or has."""

    flow: Flow
    urgent: bool
    admitted: bool = False


class FairQueue:
    """A number of places, given to flows in fair order; what is not urgent yields, and gets half of them at most."""

    def __init__(self, limit: int) -> None:
        """Give out `limit` places at a time."""
        self._limit = limit
        self._shares = Shares(limit)
        self._urgent: FairOrder[Turn] = FairOrder()
        self._others: FairOrder[Turn] = FairOrder()

    @property
    def waiting(self) -> int:
        """Turns that have not come."""
        return len(self._urgent) + len(self._others)

    @property
    def held(self) -> int:
        """Places that are taken."""
        return self._shares.held

    def ask(self, flow: Flow, *, cost: float = 1.0, weight: float = 1.0, urgent: bool = True) -> Turn:
        """Queue up; `admit` says when the turn has come."""
        turn = Turn(flow, urgent)
        (self._urgent if urgent else self._others).push(turn, flow, cost=cost, weight=weight)
        return turn

    def admit(self) -> list[Turn]:
        """The turns that have come now; each holds a place until `leave`."""
        come = []
        while (turn := self._urgent.pop(self._shares.may) or self._next_other()) is not None:
            self._shares.take(turn.flow)
            turn.admitted = True
            come.append(turn)
        return come

    def leave(self, turn: Turn) -> None:
        """Give a place back, or stop waiting for one."""
        if turn.admitted:
            self._shares.give_back(turn.flow)
        else:
            (self._urgent if turn.urgent else self._others).remove(turn)

    def _next_other(self) -> Turn | None:
        half = max(1, self._limit // 2)
        return self._others.pop(lambda flow: self._shares.may(flow, half))
