"""The k shortest loop-free paths: Yen's algorithm with Lawler's saving.

J. Y. Yen, Management Science 17 (1971) 712; E. L. Lawler, Management Science 18 (1972) 401. Each deviation is searched
for with A*, bounded by the exact distances to the target, so that it touches little more than the path it finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from controller.paths.search import (
    UNREACHED,
    Arcs,
    distances_to,
    hops_to,
    nodes_of,
    shortest_avoiding,
    weight_of,
)
from controller.view import Topology


def k_shortest(
    topology: Topology, weights: Sequence[int], source: int, target: int, limit: int | None = None
) -> Iterator[Arcs]:
    """Loop-free paths of at most `limit` hops, the lightest first, for as long as they are asked for."""
    bound, _ = distances_to(topology, weights, target)
    hops_left = hops_to(topology, weights, target) if limit is not None else ()
    if source == target or bound[source] >= UNREACHED:
        return
    heap: list[tuple[int, Arcs, int]] = []
    given: list[Arcs] = []

    def deviate(path: Arcs, spur: int) -> None:
        """Find the best path that has the first `spur` arcs of `path`, and then one that no path had so far."""
        root = path[:spur]
        nodes = nodes_of(topology, source, root)
        taken = {known[spur] for known in given if len(known) > spur and known[:spur] == root}
        tail = shortest_avoiding(
            topology,
            weights,
            nodes[-1],
            target,
            bound,
            frozenset(nodes[:-1]),
            taken,
            None if limit is None else limit - spur,
            hops_left,
        )
        if tail is not None:
            found = root + tail
            heappush(heap, (weight_of(weights, found), found, spur))

    deviate((), 0)
    while heap:
        _, path, first = heappop(heap)
        given.append(path)
        yield path
        for spur in range(first, len(path)):
            deviate(path, spur)
