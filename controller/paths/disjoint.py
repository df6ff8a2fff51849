"""Paths that share as little as possible: Suurballe's algorithm on the node-split graph, and its like for more paths.

J. W. Suurballe, Networks 4 (1974) 125. Each node is split into where paths come in and where they leave, joined by an
arc that one path may use; paths are added one after the other, each the shortest in what the former left over, where
a former path's arcs can be taken back. Here the graph is not copied: what is split or turned round lies along the
former paths alone. The distances to the target serve as potentials, which makes the second search goal-directed, and
are exact only as near as the source is, which is enough: farther nodes count as if they were as far as it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from controller.paths.search import UNREACHED, Arcs, distances_to, followed, shortest, weight_of
from controller.view import Topology

SHARED_NODE = 1 << 48
"""More than any path weighs: 2**30 an arc, 2**17 arcs."""
SHARED_GROUP = SHARED_NODE << 20
"""More than any number of shared nodes."""
SHARED_LINK = SHARED_GROUP << 20
"""More than any number of shared risk groups."""


@dataclass(slots=True)
class _Flow:
    """Paths found so far, and the potentials that keep what is left over free of negative arcs.

    Node `v` is split into the states `2 * v`, where paths come in, and `2 * v + 1`, where they leave.
    """

    topology: Topology
    weights: Sequence[int]
    source: int
    target: int
    sharing: bool
    """Whether paths may share links and nodes, at a price above everything else."""
    potential: dict[int, int] = field(default_factory=dict)
    """Of states whose potential is no longer that of their node."""
    distance: list[int] = field(default_factory=list)
    used: dict[int, int] = field(default_factory=dict)
    """How many paths traverse an arc."""
    entering: dict[int, int] = field(default_factory=dict)
    """Of each node between the ends that a path visits, the arc by which it comes; no node has two before sharing."""

    def first(self) -> bool:
        """Find the shortest path."""
        distance, onward = distances_to(self.topology, self.weights, self.target, self.source)
        arcs = followed(self.topology, onward, self.source, self.target)
        if arcs is None:
            return False
        far = distance[self.source]
        self.distance = [min(one, far) for one in distance]
        self._augment(arcs, ())
        return True

    def further(self) -> bool:
        """Find one path more, where there is one."""
        arcs_from, weights, distance, potential = self.topology.arcs_from, self.weights, self.distance, self.potential
        used, entering = self.used, self.entering
        start, end = 2 * self.source + 1, 2 * self.target
        reached = {start: 0}
        origins: dict[int, tuple[int, int]] = {}
        settled: set[int] = set()
        heap = [(0, start)]

        def relax(state: int, origin: int, arc: int, through: int) -> None:
            """`through` is the length to the state, with the potential of the origin taken off already."""
            through += potential.get(state, distance[state >> 1])
            if through < reached.get(state, UNREACHED):
                reached[state] = through
                origins[state] = origin, arc
                heappush(heap, (through, state))

        while heap:
            here, state = heappop(heap)
            if state in settled:
                continue
            settled.add(state)
            if state == end:
                break
            node = state >> 1
            base = here - potential.get(state, distance[node])
            if not state & 1:
                arc = entering.get(node)
                if arc is None:
                    if potential and (state in potential or state + 1 in potential):
                        relax(state + 1, state, -1, base)
                        continue
                else:
                    relax(2 * self.topology.tail(arc) + 1, state, arc, base - weights[arc])
                    if self.sharing:
                        relax(state + 1, state, -1, base + SHARED_NODE)
                    continue
            elif node in entering:
                relax(state - 1, state, -1, base)
            for neighbour, arc in arcs_from[node]:
                weight = weights[arc]
                if not weight:
                    continue
                if arc in used:
                    if not self.sharing:
                        continue
                    weight += SHARED_LINK
                into = 2 * neighbour
                through = base + weight + potential.get(into, distance[neighbour])
                if through < reached.get(into, UNREACHED):
                    reached[into] = through
                    origins[into] = state, arc
                    heappush(heap, (through, into))
        if end not in settled:
            return False
        forward: list[int] = []
        backward: list[int] = []
        state = end
        while state != start:
            origin, arc = origins[state]
            if arc >= 0:
                turned_round = not origin & 1 and entering.get(origin >> 1) == arc
                (backward if turned_round else forward).append(arc)
            state = origin
        whole = reached[end]
        for state in settled:
            potential[state] = potential.get(state, distance[state >> 1]) + whole - reached[state]
            if not state & 1 and (state >> 1) not in entering and state + 1 not in reached:
                potential[state + 1] = distance[state >> 1] + whole - reached[state]
        self._augment(forward, backward)
        return True

    def _augment(self, forward: Sequence[int], backward: Sequence[int]) -> None:
        for arc in backward:
            self.used[arc] -= 1
            if not self.used[arc]:
                del self.used[arc]
        for arc in forward:
            self.used[arc] = self.used.get(arc, 0) + 1
        ends = (self.source, self.target)
        heads = self.topology.heads
        self.entering = {heads[arc]: arc for arc in self.used if heads[arc] not in ends}

    def paths(self) -> list[Arcs]:
        """The paths, the lightest first."""
        left = dict(self.used)
        found = []
        for _ in range(sum(count for arc, count in left.items() if self.topology.tail(arc) == self.source)):
            lightest = self._lightest(left)
            found.append(lightest)
            for arc in lightest:
                left[arc] -= 1
                if not left[arc]:
                    del left[arc]
        return sorted(found, key=lambda arcs: (weight_of(self.weights, arcs), arcs))

    def _lightest(self, left: dict[int, int]) -> Arcs:
        by_tail: dict[int, list[int]] = {}
        for arc in left:
            by_tail.setdefault(self.topology.tail(arc), []).append(arc)
        if all(len(arcs) == 1 for node, arcs in by_tail.items() if node != self.source):
            options = [self._walk(by_tail, arc) for arc in by_tail[self.source]]
            return min(options, key=lambda arcs: (weight_of(self.weights, arcs), arcs))
        kept = [0] * len(self.weights)
        for arc in left:
            kept[arc] = self.weights[arc]
        arcs = shortest(self.topology, kept, self.source, self.target)
        assert arcs is not None, "as much leaves the source as comes to the target"
        return arcs

    def _walk(self, by_tail: dict[int, list[int]], arc: int) -> Arcs:
        arcs = [arc]
        while (node := self.topology.heads[arcs[-1]]) != self.target:
            arcs.append(by_tail[node][0])
        return tuple(arcs)


def disjoint(topology: Topology, weights: Sequence[int], source: int, target: int, count: int) -> list[Arcs]:
    """`count` paths that have no node between the ends in common, of least weight together, the lightest first.

    Where there are fewer, as many as there are: the maximum.
    """
    flow = _Flow(topology, weights, source, target, sharing=False)
    if not count or not flow.first():
        return []
    for _ in range(count - 1):
        if not flow.further():
            break
    return flow.paths()


def maximally_disjoint(topology: Topology, weights: Sequence[int], source: int, target: int) -> list[Arcs]:
    """Two paths with the fewest links in common; of those, with the fewest nodes between the ends in common; of those,
    of least weight together. The lighter is first.

    Only one path where there are no two different ones; none where there is no path.
    """
    flow = _Flow(topology, weights, source, target, sharing=True)
    if not flow.first():
        return []
    flow.further()
    paths = flow.paths()
    return paths if len(set(paths)) == 2 else paths[:1]
