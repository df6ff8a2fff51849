"""Installing the paths of one demand: each entry when those that it leads to are confirmed; then all paths at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from controller.admission.admit import Demand
from controller.steering.conversation import Bundle
from controller.steering.effects import Say
from controller.steering.events import Event
from controller.steering.routes import ENTRY_LIFETIME, LIFETIME, Generation, Routes
from keyhaul.agents.statements import PathStatement, Withdrawal

PATIENCE = 8.0
"""Seconds after which a laying is given up that waits for a node which takes nothing."""


@dataclass(slots=True, eq=False)
class Laying:
    """One installation under way.

    It is finished when the source has confirmed the path statements, and given up before that; what was confirmed by
    then is taken back by its owner. From when the path statements have left until it is known whether they arrived it
    cannot be given up (`switching`).
    """

    number: int
    generation: Generation
    routes: Routes
    why: Event
    """What it will be told as."""
    deadline: float = inf
    """When it is given up; it has not begun before it has one."""
    replaces: tuple[int, ...] = ()
    """Serials of the path statements that it is to replace, once it has begun to."""
    switching: bool = False
    _left: set[int] = field(default_factory=set)
    """Numbers of the steps that were not said yet."""
    _said: set[int] = field(default_factory=set)
    """Of those that were, and are not known to be in force."""

    def begin(self) -> list[tuple[str, Bundle]]:
        """What to say first, and to whom."""
        self._left = set(range(len(self.routes.steps)))
        return self._following()

    def entered(self, node: str, serial: int, part: int) -> list[tuple[str, Bundle]]:
        """An entry is in force; return those that may follow."""
        self.generation.lanes[self.routes.steps[part].rank].entries.append((node, serial))
        self._said.discard(part)
        return self._following(part)

    @property
    def source(self) -> str:
        """Where the paths begin."""
        return self._demand.source

    @property
    def entered_all(self) -> bool:
        """Whether all entries are in force, so that the paths may begin."""
        return not self._left and not self._said

    def switch(self, replaced: tuple[int, ...]) -> tuple[str, Bundle]:
        """What puts the new paths in force, and those in their place out of it."""
        self.switching, self.replaces = True, replaced
        says = [Say(start, LIFETIME, self._demand.id, start.rank) for start in self.routes.starts]
        if replaced:
            says.insert(0, Say(Withdrawal(serials=replaced), LIFETIME))
        return self.source, Bundle(tuple(says), self.number, replaced=replaced)

    @property
    def waits_for(self) -> tuple[str, ...]:
        """The nodes whose confirmation is due next."""
        if self.switching:
            return (self.source,)
        return tuple(self.routes.steps[part].node for part in sorted(self._said))

    @property
    def _demand(self) -> Demand:
        return self.generation.admission.demand

    def _following(self, done: int | None = None) -> list[tuple[str, Bundle]]:
        """The steps that may be taken now; of those that wait for one that is `done`, if it is given."""
        steps, undone = self.routes.steps, self._left | self._said
        ready = [
            part
            for part in sorted(self._left)
            if (done is None or done in steps[part].after) and undone.isdisjoint(steps[part].after)
        ]
        self._left.difference_update(ready)
        self._said.update(ready)
        return [(steps[part].node, self._bundle(part)) for part in ready]

    def _bundle(self, part: int) -> Bundle:
        step = self.routes.steps[part]
        return Bundle((Say(step.says, ENTRY_LIFETIME, self._demand.id, step.rank),), self.number, part)


def starts_of(bundle: Bundle, serials: tuple[int, ...]) -> tuple[int, ...]:
    """The serials of the path statements in a bundle."""
    pairs = zip(bundle.says, serials, strict=True)
    return tuple(serial for say, serial in pairs if isinstance(say.says, PathStatement))
