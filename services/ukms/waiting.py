"""Those who wait for keys of one buffer: in the order of coming, but whoever was told to come back, and did, goes
before those who were told nothing, unless they have waited for long.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

MAXIMUM_WAITING = 256
"""SAE requests that may wait in one buffer."""

LONG = 2.0
"""Seconds after which nobody goes before one who waits."""


@dataclass(eq=False, slots=True)
class Waiting:
    """An SAE's request that waits for keys."""

    number: int
    deadline: float
    since: float = math.inf
    asker: Hashable = ""
    """Whose it is, where somebody is to be told a time to come back."""
    promised: bool = False
    """Whether he came back when he was told to."""

    def is_first(self, now: float) -> bool:
        """Whether he goes before those who were told nothing: he was told to come, or has waited for long."""
        return self.promised or now - self.since >= LONG


class BufferFull(Exception):
    """No further request can wait."""


class Line:
    """Requests that wait, and are served strictly in turn."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()

    def __len__(self) -> int:
        """SAE requests that wait."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._waiting)

    @property
    def wanted(self) -> int:
        """Keys that they wait for together."""
        return sum(waiting.number for waiting in self._waiting)

    @property
    def first(self) -> Waiting | None:
        """Whose turn it is."""
        return self._waiting[0] if self._waiting else None

    @property
    def since(self) -> float:
        """Since when the one waits who has waited for longest; infinite where nobody does."""
        return min((waiting.since for waiting in self._waiting), default=math.inf)

    @property
    def until(self) -> float:
        """When the last of them gives up."""
        return max((waiting.deadline for waiting in self._waiting), default=-math.inf)

    def comes_first(self, promised: bool, now: float) -> bool:
        """Whether one who comes now, as he was told to or not, goes before all who wait."""
        return not self._waiting or (promised and self._place(now) == 0)

    def join(self, waiting: Waiting) -> None:
        """Wait for a turn.

        Raises:
            BufferFull: too many wait already.
        """
        if len(self._waiting) >= MAXIMUM_WAITING:
            raise BufferFull
        self._waiting.insert(self._place(waiting.since) if waiting.promised else len(self._waiting), waiting)

    def next(self) -> Waiting:
        """Take out whose turn it is."""
        return self._waiting.popleft()

    def last(self) -> Waiting:
        """Take out whose turn is last."""
        return self._waiting.pop()

    def forget(self, waiting: Waiting) -> None:
        """A request was given up or answered."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def again(self, waiting: Iterable[Waiting]) -> None:
        """Requests whose turn had come did not get their keys: they come first again."""
        self._waiting.extendleft(reversed(tuple(waiting)))

    def clear(self) -> list[Waiting]:
        """Take all out."""
        failed = list(self._waiting)
        self._waiting.clear()
        return failed

    def _place(self, now: float) -> int:
        """How many go before one who came when he was told to."""
        before = (place for place, one in enumerate(self._waiting, 1) if one.is_first(now))
        return max(before, default=0)
