"""Which way keys go through the carrier: pure functions over links and their lengths."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Hop = frozenset[str]
"""A link by the two nodes at its ends."""


@dataclass(frozen=True, slots=True)
class Routes:
    """The carrier's links, each with its length in km (0 or more)."""

    lengths: Mapping[Hop, float]

    def neighbours(self) -> dict[str, list[str]]:
        """Every node's neighbours in the order of their names."""
        found: dict[str, list[str]] = {}
        for hop in self.lengths:
            for node in hop:
                found.setdefault(node, []).extend(hop - {node})
        return {node: sorted(others) for node, others in found.items()}

    def shortest(self, source: str, destination: str, avoid: Iterable[Hop] = ()) -> tuple[str, ...] | None:
        """Return the nodes of the path with the fewest links to avoid and, of those, the shortest by km.

        None where no path leads there. Of equal paths the one with fewer hops, then the one whose nodes come
        first by name, is taken, so that the outcome does not depend on the order of anything.
        """
        unwanted = frozenset(avoid)
        neighbours = self.neighbours()
        waiting: list[tuple[int, float, int, tuple[str, ...]]] = [(0, 0.0, 0, (source,))]
        settled: set[str] = set()
        while waiting:
            shared, length, hops, path = heapq.heappop(waiting)
            here = path[-1]
            if here == destination:
                return path
            if here in settled:
                continue
            settled.add(here)
            for node in neighbours.get(here, []):
                hop = frozenset((here, node))
                if node not in settled:
                    further = (
                        shared + (hop in unwanted),
                        round(length + self.lengths[hop], 6),
                        hops + 1,
                        (*path, node),
                    )
                    heapq.heappush(waiting, further)
        return None

    def ranked(self, source: str, destination: str) -> list[tuple[str, ...]]:
        """Return the shortest path and, where there is another, the detour: as few links of the first as possible."""
        first = self.shortest(source, destination)
        if first is None:
            return []
        detour = self.shortest(source, destination, avoid=hops_of(first))
        return [first] if detour is None or detour == first else [first, detour]


def hops_of(path: Sequence[str]) -> list[Hop]:
    """Return the links of a path."""
    return [frozenset(pair) for pair in pairwise(path)]


def reachable(start: str, hops: Iterable[Hop]) -> set[str]:
    """Return every node that links lead to from `start`, itself included."""
    routes = Routes(dict.fromkeys(hops, 1.0))
    neighbours = routes.neighbours()
    found = {start}
    edge = [start]
    while edge:
        for node in neighbours.get(edge.pop(), []):
            if node not in found:
                found.add(node)
                edge.append(node)
    return found
