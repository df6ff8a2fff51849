"""A path and a backup that fails when it does as seldom as the network allows: links, risk groups and nodes shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from controller.paths.disjoint import SHARED_GROUP, SHARED_LINK, SHARED_NODE, maximally_disjoint
from controller.paths.k_shortest import k_shortest
from controller.paths.search import Arcs, distances_to, hops_to, shortest_avoiding, weight_of
from controller.view import NetworkView

PRIMARIES = 8
"""How many of the lightest paths are tried as primaries where the exact algorithm does not apply."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two paths share between their ends; by ids, in the first one's order."""

    links: tuple[str, ...] = ()
    risk_groups: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[int, int, int]:
        """Less is better."""
        return len(self.links), len(self.risk_groups), len(self.nodes)

    def __bool__(self) -> bool:
        return any(self.rank)


def overlap(view: NetworkView, first: Arcs, second: Arcs) -> Overlap:
    """What two paths share, a link counted whichever way it is traversed."""
    others = {arc >> 1 for arc in second}
    visited = {view.topology.heads[arc] for arc in second[:-1]}
    groups = set().union(*(view.links[number].risk_groups for number in others))
    shared: dict[str, None] = {}
    for arc in first:
        shared |= dict.fromkeys(sorted(view.links[arc >> 1].risk_groups & groups))
    nodes = (view.topology.heads[arc] for arc in first[:-1])
    return Overlap(
        tuple(view.links[arc >> 1].id for arc in first if arc >> 1 in others),
        tuple(shared),
        tuple(view.nodes[number].id for number in nodes if number in visited),
    )


def diverse_pair(
    view: NetworkView, weights: Sequence[int], source: int, target: int, limit: int | None = None
) -> list[Arcs]:
    """Two paths of the least `Overlap.rank` and, of those, the least weight; the lighter first.

    One path where there are no two; none where there is none. Exact without risk groups and `limit` (of hops);
    otherwise the best over a few primaries, because the problem is NP-hard.
    """
    pair = maximally_disjoint(view.topology, weights, source, target)
    within = [arcs for arcs in pair if limit is None or len(arcs) <= limit]
    if len(within) == len(pair) and not (len(pair) == 2 and overlap(view, *pair).risk_groups):
        return pair
    backups = _Backups(view, weights, source, target, limit)
    tried: dict[Arcs, None] = {}
    best: tuple[tuple[int, int, int], int, list[Arcs]] | None = None
    if len(within) == 2:
        best = overlap(view, *pair).rank, sum(weight_of(weights, arcs) for arcs in pair), pair
    lightest = islice(k_shortest(view.topology, weights, source, target, limit), PRIMARIES)
    for primary in chain(within, lightest):
        if primary in tried:
            continue
        tried[primary] = None
        backup = backups.best(primary)
        if backup is None or backup == primary:
            continue
        two = sorted((primary, backup), key=lambda arcs: (weight_of(weights, arcs), arcs))
        option = overlap(view, *two).rank, sum(weight_of(weights, arcs) for arcs in two), two
        if best is None or option < best:
            best = option
        if primary not in within and not any(best[0]) and best[1] <= 2 * weight_of(weights, primary):
            break  # Those that follow weigh no less, and nor do their backups.
    return list(tried)[:1] if best is None else best[2]


@dataclass(slots=True)
class _Backups:
    """Finds backups for given primaries."""

    view: NetworkView
    weights: Sequence[int]
    source: int
    target: int
    limit: int | None
    bound: Sequence[int] = ()
    hops_left: Sequence[int] = ()
    members: dict[str, list[int]] = field(default_factory=dict)
    """The links of each risk group."""

    def __post_init__(self) -> None:
        topology = self.view.topology
        self.bound, _ = distances_to(topology, self.weights, self.target)
        if self.limit is not None:
            self.hops_left = hops_to(topology, self.weights, self.target)
        for number, link in enumerate(self.view.links):
            for group in link.risk_groups:
                self.members.setdefault(group, []).append(number)

    def best(self, primary: Arcs) -> Arcs | None:
        """The path that shares least with a primary: what it shares is priced, above all that weights can be."""
        topology, links = self.view.topology, self.view.links
        priced = list(self.weights)

        def add(arc: int, price: int) -> None:
            if priced[arc]:
                priced[arc] += price

        for arc in primary:
            add(arc, SHARED_LINK)
            add(arc ^ 1, SHARED_LINK)
        for arc in primary[:-1]:
            for _, leaving in topology.arcs_from[topology.heads[arc]]:
                add(leaving ^ 1, SHARED_NODE)
        own = {arc >> 1 for arc in primary}
        groups = frozenset[str]().union(*(links[number].risk_groups for number in own))
        for number in chain.from_iterable(self.members[group] for group in groups):
            if number not in own:
                add(2 * number, SHARED_GROUP)
                add(2 * number + 1, SHARED_GROUP)
        return shortest_avoiding(
            topology, priced, self.source, self.target, self.bound, limit=self.limit, hops_left=self.hops_left
        )
