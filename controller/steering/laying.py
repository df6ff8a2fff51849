"""Installing the paths of one demand: entries from the far end on, each confirmed; then all paths at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from controller.steering.conversation import Bundle
from controller.steering.effects import Say
from controller.steering.events import Event
from controller.steering.routes import ENTRY_LIFETIME, LIFETIME, Generation, Route
from keyhaul.agents.statements import PathStatement, Withdrawal

PATIENCE = 8.0
"""Seconds after which a laying is given up that waits for a node."""


@dataclass(slots=True, eq=False)
class Laying:
    """One installation under way.

    It is finished when the source has confirmed the path statements, and given up before that; what was confirmed by
    then is taken back by its owner (`generation.entries`). From when the path statements have left until it is known
    whether they arrived it cannot be given up (`switching`).
    """

    number: int
    demand: str
    source: str
    generation: Generation
    routes: tuple[Route, ...]
    why: Event
    """What it will be told as."""
    deadline: float
    replaces: tuple[int, ...] = ()
    """Serials of the path statements that it is to replace, once it has begun to."""
    switching: bool = False
    placed: list[int] = field(default_factory=list)
    """How many entries of each route are in force."""

    def begin(self) -> Iterator[tuple[str, Bundle]]:
        """What to say first, and to whom."""
        self.placed = [0 for _ in self.routes]
        for route in self.routes:
            yield self._entry(route)

    def entered(self, node: str, serial: int, rank: int) -> tuple[str, Bundle] | None:
        """An entry is in force; return which follows on its path."""
        self.generation.entries.append((node, serial))
        self.placed[rank] += 1
        route = self.routes[rank]
        return None if self.placed[rank] == len(route.entries) else self._entry(route)

    @property
    def entered_all(self) -> bool:
        """Whether all entries are in force, so that the paths may begin."""
        return all(done == len(route.entries) for done, route in zip(self.placed, self.routes, strict=True))

    def switch(self, replaced: tuple[int, ...]) -> tuple[str, Bundle]:
        """What puts the new paths in force, and those in their place out of it."""
        self.switching, self.replaces = True, replaced
        says = [Say(route.start, LIFETIME, self.demand, route.rank) for route in self.routes]
        if replaced:
            says.insert(0, Say(Withdrawal(serials=replaced), LIFETIME))
        return self.source, Bundle(tuple(says), self.number, replaced)

    @property
    def waits_for(self) -> tuple[str, ...]:
        """The nodes whose confirmation is due next."""
        if self.switching:
            return (self.source,)
        pairs = zip(self.placed, self.routes, strict=True)
        return tuple(route.entries[done][0] for done, route in pairs if done < len(route.entries))

    def _entry(self, route: Route) -> tuple[str, Bundle]:
        node, says = route.entries[self.placed[route.rank]]
        return node, Bundle((Say(says, ENTRY_LIFETIME, self.demand, route.rank),), self.number)


def starts_of(bundle: Bundle, serials: tuple[int, ...]) -> tuple[int, ...]:
    """The serials of the path statements in a bundle."""
    pairs = zip(bundle.says, serials, strict=True)
    return tuple(serial for say, serial in pairs if isinstance(say.says, PathStatement))
