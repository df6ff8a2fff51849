"""Whose turn it is: which conversations go on now, so that nobody looks through all of them at each event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from controller.steering.conversation import Conversation, Phase

GREETED_AT_ONCE = 64
"""Nodes that are announced to and read at a time, of those that answered the last time, and of the others: where
thousands appear together, each gets its answer before it counts as one that does not answer."""


class Turns:
    """The conversations in which something may have to be said."""

    def __init__(self) -> None:
        self._stirred: dict[str, Conversation] = {}
        self._pausing: dict[str, Conversation] = {}
        self._ends: list[tuple[float, str]] = []
        """A heap: when whose pause may be over."""
        self._waiting: dict[bool, dict[str, Conversation]] = {False: {}, True: {}}
        """Those that are to be greeted when there is room, by whether they did not answer the last time."""
        self._greeted: dict[bool, set[str]] = {False: set(), True: set()}

    def restart(self, talks: Iterable[Conversation]) -> None:
        """These are all, and nothing is under way."""
        self._stirred = {talk.node: talk for talk in talks}
        self._pausing, self._ends = {}, []
        self._waiting, self._greeted = {False: {}, True: {}}, {False: set(), True: set()}

    def stir(self, talk: Conversation) -> None:
        """Something has happened in a conversation."""
        self._stirred[talk.node] = talk

    def greeted(self, talk: Conversation) -> None:
        """A node has answered, or has not: another one has its turn. To be said before `unready` changes."""
        self._greeted[talk.unready].discard(talk.node)

    def gone(self, talk: Conversation) -> None:
        """There is no such conversation any more."""
        self.greeted(talk)
        self._stirred.pop(talk.node, None)
        self._pausing.pop(talk.node, None)
        self._waiting[talk.unready].pop(talk.node, None)

    def due(self, now: float) -> Iterator[Conversation]:
        """Yield those that can go on now; each does before the next is asked for."""
        while self._ends and self._ends[0][0] <= now:
            _, node = heappop(self._ends)
            if talk := self._pausing.pop(node, None):
                self.stir(talk)
        stirred, self._stirred = self._stirred, {}
        for talk in stirred.values():
            if talk.busy is not None:
                continue
            if now < talk.retry_at:
                self._pausing[talk.node] = talk
                heappush(self._ends, (talk.retry_at, talk.node))
            elif talk.phase is Phase.READY or talk.node in self._greeted[talk.unready]:
                yield talk
            elif talk.phase is not Phase.AWAY:
                self._waiting[talk.unready][talk.node] = talk
        for unready, waiting in self._waiting.items():
            greeted = self._greeted[unready]
            while waiting and len(greeted) < GREETED_AT_ONCE:
                talk = waiting.pop(next(iter(waiting)))
                greeted.add(talk.node)
                yield talk
