"""When demands are looked at: soon where a change concerns them, and all of them in turn, for what has become better.

What is urgent is done a part at a time, so that others have their turn in between (`Looking.go_on`): those of the
highest class first. In each round most demands are passed over, because a bound tells that they have nothing to gain;
demands for one target share what that costs.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from itertools import count
from math import inf

from controller.admission.classes import CLASSES
from controller.admission.reoptimise import is_surely_best, least_together, open_weights
from controller.paths.search import distances_to
from controller.steering.ledger import Ledger, Shift
from controller.steering.roll import Roll
from controller.steering.served import Served
from controller.steering.serving import Serving

LOOK = 5.0
"""Seconds between looks for better paths of a demand."""

MOST_URGENT = 16
"""Demands that are decided about at a time where it is urgent: a hundredth of a second or two."""

MOST_LOOKS = 24
"""Demands for which better paths are computed in one tick; a round of more takes longer than `LOOK`."""


class Looking:
    """Chooses the demands to look at.

    Args:
        ledger: what is known and promised.
        roll: the demands.
        serving: decides about them.
    """

    def __init__(self, ledger: Ledger, roll: Roll, serving: Serving) -> None:
        self._ledger = ledger
        self._roll = roll
        self._serving = serving
        self._urgent: list[tuple[int, int, str]] = []
        """A heap: of the highest class first, then who came first; and the id."""
        self._numbers = count()
        self._looked_at = -inf
        self._due: list[str] = []

    @property
    def behind(self) -> bool:
        """Whether something urgent waits."""
        return bool(self._urgent)

    def clear(self) -> None:
        """Forget all."""
        self._urgent, self._due = [], []

    def hurry(self, served: Served, *, renew: bool = False) -> None:
        """Have a demand looked at as soon as can be; with `renew`, its paths are installed anew even so."""
        if served.urgent is None:
            precedence = CLASSES[served.demand.service_class].precedence
            heappush(self._urgent, (-precedence, next(self._numbers), served.demand.id))
        served.urgent = renew or bool(served.urgent)

    def go_on(self, now: float) -> None:
        """Look at a part of what is urgent; paths of which nothing bad is known stay."""
        left = MOST_URGENT
        while left and self._urgent:
            urgent = self._roll.served.get(heappop(self._urgent)[-1])
            if urgent is None or urgent.urgent is None:
                continue
            if not urgent.urgent and self._serving.is_unheard(urgent):
                urgent.urgent = None
                continue
            self._serving.plan(urgent, now, renew=urgent.urgent)
            left -= 1

    def look(self, now: float) -> None:
        """Look for better paths, at a part of the demands each time."""
        if not self._roll.served:
            return
        if not self._due:
            self._due = sorted(self._roll.served, key=lambda identity: self._roll.served[identity].demand.target)
        elapsed = min(LOOK, now - self._looked_at)
        self._looked_at = now
        trees: dict[str, list[int]] = {}
        weights = open_weights(self._ledger.view, self._ledger.policy)
        left = MOST_LOOKS
        for _ in range(min(len(self._due), int(len(self._roll.served) * elapsed / LOOK) + 1)):
            served = self._roll.served.get(self._due.pop())
            if served is None or served.laying or not served.current or served.retry_at < inf:
                continue
            if self._serving.is_unheard(served):
                continue
            if self._has_nothing_to_gain(served, trees, weights):
                served.standing = replace(served.standing, better_since=None)
            else:
                self._serving.plan(served, now)
                left -= 1
            self._serving.calm(served, now)
            if not left:
                break

    def _has_nothing_to_gain(self, served: Served, trees: dict[str, list[int]], weights: list[int]) -> bool:
        """Whether a demand has all that its class demands, and a bound tells that there is nothing better."""
        current, view, demand = served.current, self._ledger.view, served.demand
        if current is None or served.refusal is not None or served.broken or current.admission.shared:
            return False
        if len(current.paths) < 2 or not view.topology.node_number.keys() >= {demand.source, demand.target}:
            return False
        topology = view.topology
        tree = trees.get(demand.target)
        if tree is None:
            tree, _ = distances_to(topology, weights, topology.node_number[demand.target])
            trees[demand.target] = tree
        least = least_together(view, weights, tree, demand.source, len(current.paths))
        reservations, policy = self._ledger.reservations, self._ledger.policy
        return is_surely_best(view, reservations, demand, current.paths, least, policy=policy)

    def affected(self, shift: Shift) -> list[Served]:
        """The demands that a change concerns."""
        return [
            served
            for served in self._roll.served.values()
            if self._is_concerned(served, shift) and not self._serving.is_unheard(served)
        ]

    def _is_concerned(self, served: Served, shift: Shift) -> bool:
        return (
            shift.everything
            or served.refusal is not None
            or not served.generations
            or any(
                not shift.links.isdisjoint(path.links) or not shift.nodes.isdisjoint(path.nodes)
                for generation in served.generations
                for path in generation.ways
            )
        )
