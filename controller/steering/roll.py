"""The list of demands: which there are, and what is recorded and told of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from controller.admission.admit import Demand
from controller.admission.reoptimise import Standing
from controller.steering.effects import Effect, Ended, Note, Remember
from controller.steering.events import Event
from controller.steering.routes import LIFETIME, promise_of
from controller.steering.served import Served


class Roll:
    """All demands, the oldest first.

    Args:
        emit: takes the effects.
    """

    def __init__(self, emit: Callable[[Effect], None]) -> None:
        self.served: dict[str, Served] = {}
        """By id."""
        self._emit = emit
        self._keys: dict[tuple[str, str, str], Served] = {}
        self._refused: dict[tuple[str, str, str], Served] = {}

    def clear(self) -> None:
        """Forget all, and tell nobody."""
        self.served, self._keys, self._refused = {}, {}, {}

    def find(self, source: str, target: str, service_class: str) -> Served | None:
        """The demand of one CKMS for another and a class."""
        return self._keys.get((source, target, service_class))

    def enter(self, demand: Demand, now: float) -> Served:
        """Take up a demand; one that was refused of late and never had anything goes on under its former id."""
        key = demand.source, demand.target, demand.service_class
        former = self._refused.pop(key, None)
        if former is not None and not former.recorded:
            demand = replace(demand, id=former.demand.id)
        served = Served(demand, now + LIFETIME, Standing(now), refusal=None if former is None else former.refusal)
        self.served[demand.id] = self._keys[key] = served
        return served

    def turn_away(self, served: Served) -> None:
        """A demand that is over was refused: who asks for it goes on asking, and operators want to know."""
        demand = served.demand
        self._refused[demand.source, demand.target, demand.service_class] = served

    def refused(self, now: float) -> tuple[Served, ...]:
        """The demands that were refused and are asked for still."""
        self._refused = {key: served for key, served in self._refused.items() if now < served.expires}
        return tuple(self._refused.values())

    def strike(self, served: Served, why: str) -> None:
        """A demand is over; `why`, as operators are told."""
        demand = served.demand
        del self.served[demand.id]
        del self._keys[demand.source, demand.target, demand.service_class]
        if served.recorded:
            self._emit(Ended(demand.id))
            self.note(Event.ENDED, served, why=why)

    def record(self, served: Served) -> None:
        """Record what a demand has and is about to get."""
        served.recorded = True
        generations = served.generations[::-1]
        admissions = [generation.admission for generation in generations]
        crossed = frozenset(node for generation in generations for node in generation.crossed)
        self._emit(Remember(promise_of(served.demand, *admissions), crossed))

    def note(self, kind: Event, served: Served, **facts: Any) -> None:
        """Tell operators what happens to a demand."""
        demand = served.demand
        ends = {"source": demand.source, "target": demand.target, "class": demand.service_class}
        self._emit(Note(kind, demand.id, ends | facts))
