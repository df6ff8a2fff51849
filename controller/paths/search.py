"""Shortest paths over numbered arcs.

Weights are whole numbers, one for each arc, so that sums are exact and equal means equal; an arc of weight 0 cannot
be used. Where several paths weigh the same, the numbers of the nodes decide: one view has one answer.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from heapq import heappop, heappush

from controller.view import Topology

Arcs = tuple[int, ...]
"""A path as the arcs that it traverses, in order."""

UNREACHED = 1 << 120
"""More than any path weighs."""


def distances_to(
    topology: Topology, weights: Sequence[int], target: int, source: int = -1
) -> tuple[list[int], list[int]]:
    """Dijkstra's algorithm backwards from `target`.

    Returns:
        Of each node, its distance to the target and the first arc on the way. With a `source`, the search ends there;
        nodes farther away than it then have no, or no final, distance: at least that of the source.
    """
    arcs_from = topology.arcs_from
    distance = [UNREACHED] * len(arcs_from)
    onward = [-1] * len(arcs_from)
    distance[target] = 0
    heap = [(0, target)]
    while heap:
        here, node = heappop(heap)
        if here > distance[node]:
            continue
        if node == source:
            break
        for neighbour, arc in arcs_from[node]:
            weight = weights[arc ^ 1]
            if weight and (through := here + weight) < distance[neighbour]:
                distance[neighbour] = through
                onward[neighbour] = arc ^ 1
                heappush(heap, (through, neighbour))
    return distance, onward


def followed(topology: Topology, onward: Sequence[int], source: int, target: int) -> Arcs | None:
    """The path from `source` along the arcs that `distances_to` found."""
    arcs = []
    node = source
    while node != target:
        arc = onward[node]
        if arc < 0:
            return None
        arcs.append(arc)
        node = topology.heads[arc]
    return tuple(arcs)


def shortest(topology: Topology, weights: Sequence[int], source: int, target: int) -> Arcs | None:
    """The path of least weight; None where there is none."""
    _, onward = distances_to(topology, weights, target, source)
    return followed(topology, onward, source, target)


def hops_to(topology: Topology, weights: Sequence[int], target: int) -> list[int]:
    """Of each node, the fewest hops to `target` over arcs that can be used; `UNREACHED` where there is no way."""
    hops = [UNREACHED] * len(topology.arcs_from)
    hops[target] = 0
    level = [target]
    while level:
        following = []
        for node in level:
            for neighbour, arc in topology.arcs_from[node]:
                if weights[arc ^ 1] and hops[neighbour] == UNREACHED:
                    hops[neighbour] = hops[node] + 1
                    following.append(neighbour)
        level = following
    return hops


def shortest_avoiding(
    topology: Topology,
    weights: Sequence[int],
    source: int,
    target: int,
    bound: Sequence[int],
    avoided_nodes: Container[int] = (),
    avoided_arcs: Container[int] = (),
    limit: int | None = None,
    hops_left: Sequence[int] = (),
) -> Arcs | None:
    """The path of least weight that avoids nodes and arcs, and has at most `limit` hops.

    A* over labels (weight, hops): among labels of a node only those count that no other beats in both.

    Args:
        bound: of each node, no more than its distance to the target, and consistent along arcs: the distances with
            nothing avoided, or zeros.
        hops_left: of each node, the fewest hops to the target; needed with a `limit`.
    """
    arcs_from = topology.arcs_from
    if bound[source] >= UNREACHED:
        return None
    fewest: dict[int, int] = {}
    lightest: dict[int, int] = {source: 0}
    origins: list[tuple[int, int]] = [(-1, -1)]
    heap = [(bound[source], 0, source, 0)]
    while heap:
        estimate, hops, node, label = heappop(heap)
        if fewest.get(node, UNREACHED) <= hops or (limit is None and node in fewest):
            continue
        fewest[node] = hops
        if node == target:
            arcs = []
            while label:
                label, arc = origins[label]
                arcs.append(arc)
            return tuple(reversed(arcs))
        here = estimate - bound[node]
        for neighbour, arc in arcs_from[node]:
            weight = weights[arc]
            if not weight or neighbour in avoided_nodes or arc in avoided_arcs or bound[neighbour] >= UNREACHED:
                continue
            through = here + weight
            if limit is None:
                if through >= lightest.get(neighbour, UNREACHED):
                    continue
                lightest[neighbour] = through
            elif hops + 1 + hops_left[neighbour] > limit or fewest.get(neighbour, UNREACHED) <= hops + 1:
                continue
            origins.append((label, arc))
            heappush(heap, (through + bound[neighbour], hops + 1, neighbour, len(origins) - 1))
    return None


def shortest_within(
    topology: Topology, weights: Sequence[int], source: int, target: int, limit: int | None
) -> Arcs | None:
    """The path of least weight among those of at most `limit` hops."""
    bound, onward = distances_to(topology, weights, target, source if limit is None else -1)
    found = followed(topology, onward, source, target)
    if found is None or limit is None or len(found) <= limit:
        return found
    hops_left = hops_to(topology, weights, target)
    return shortest_avoiding(topology, weights, source, target, bound, limit=limit, hops_left=hops_left)


def weight_of(weights: Sequence[int], arcs: Arcs) -> int:
    """What a path weighs."""
    return sum(weights[arc] for arc in arcs)


def nodes_of(topology: Topology, source: int, arcs: Arcs) -> tuple[int, ...]:
    """The nodes of a path, ends included."""
    return (source, *(topology.heads[arc] for arc in arcs))
