"""Local detours: where the node before a link sends what comes in while that link is down.

A detour leads from there to the end of the path, under labels of its own at every hop, and meets none of the nodes that
a batch has passed by then: so nothing comes back to where it was. It spares what is on its way, and what is still sent
until the sending CKMS knows of the failure and takes the backup. That is the more the farther from it the link is,
while a detour costs the fewer entries the nearer to the end it is: its worth is its distance from the sender for each
entry, and the best are taken as long as they have no more entries together than their path. On germany50 that spares
46 % of what detours around all links would, for 31 % more entries instead of 135 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controller.admission.admit import Demand
from controller.admission.classes import CLASSES
from controller.paths.compute import Path
from controller.paths.constraints import usable_weights
from controller.paths.policies import WEIGHTS, Policy
from controller.paths.search import Arcs, distances_to, hops_to, nodes_of, shortest_avoiding, weight_of
from controller.view import NetworkView

LONGER = 3
"""How many hops more than what is left of its path a detour has at most."""


@dataclass(frozen=True, slots=True)
class Detour:
    """A way around one link of a path, from the node before it to the path's end."""

    position: int
    """Of that node in the path: at least 1, since the sender has its backup."""
    path: Path


def detours(view: NetworkView, demand: Demand, path: Path, policy: Policy) -> tuple[Detour, ...]:
    """The detours that a path of a demand gets, by position; they keep to all that the path keeps to."""
    if not CLASSES[demand.service_class].detours:
        return ()
    found = _found(view, demand, path, policy)
    found.sort(key=lambda one: (-one.position / one.path.hops, -one.position))
    left, taken = path.hops, []
    for one in found:
        if one.path.hops <= left:
            left -= one.path.hops
            taken.append(one)
    return tuple(sorted(taken, key=lambda one: one.position))


def _found(view: NetworkView, demand: Demand, path: Path, policy: Policy) -> list[Detour]:
    """All detours that there are."""
    constraints = CLASSES[demand.service_class].constraints(demand.rate, demand.constraints)
    topology = view.topology
    weights = usable_weights(view, view.per_arc(WEIGHTS[policy]), constraints)
    numbers = [topology.node_number[name] for name in path.nodes]
    bound, _ = distances_to(topology, weights, numbers[-1])
    hops_left = hops_to(topology, weights, numbers[-1])
    found = []
    for position in range(1, path.hops):
        passed, here, following = numbers[:position], numbers[position], numbers[position + 1]
        limit = path.hops - position + LONGER
        if constraints.maximum_hops is not None:
            limit = min(limit, constraints.maximum_hops - position)

        def around(
            avoided: Sequence[int], here: int = here, following: int = following, limit: int = limit
        ) -> Arcs | None:
            parallel = {arc for to, arc in topology.arcs_from[here] if to == following}
            return shortest_avoiding(
                topology, weights, here, numbers[-1], bound, frozenset(avoided), parallel, limit, hops_left
            )

        # Where the next node is dead, all its links are down.
        arcs = around([*passed, following]) if following != numbers[-1] else None
        arcs = arcs or around(passed)
        if arcs:
            names = tuple(view.nodes[number].id for number in nodes_of(topology, here, arcs))
            links = tuple(view.links[arc >> 1].id for arc in arcs)
            found.append(Detour(position, Path(names, links, arcs, weight_of(weights, arcs))))
    return found
