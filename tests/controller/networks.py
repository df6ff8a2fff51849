"""Small networks for the tests, drawn by Hypothesis or written down; and every path of them, by brute force."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from hypothesis import strategies as st

from controller.paths.search import Arcs
from controller.view import Direction, Link, NetworkView, Node, Topology

SUITES = ("otp", "aes-256-gcm", "ml-kem")


def line(*pairs: tuple[str, str], rate: int = 1_000, pool: int = 10_000) -> NetworkView:
    """A network with these links, named by their ends, `a-b`."""
    names = dict.fromkeys(name for pair in pairs for name in pair)
    direction = Direction(rate, pool, 10_000)
    return NetworkView(
        tuple(Node(name) for name in names),
        tuple(
            Link(f"{a}-{b}", a, b, suites=frozenset({"otp", "aes-256-gcm"}), ab=direction, ba=direction)
            for a, b in pairs
        ),
    )


RING = (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f"), ("f", "a"))


@st.composite
def directions(draw: st.DrawFn) -> Direction:
    """A direction of a link, with reservations that may have come to exceed its rate."""
    capacity = draw(st.sampled_from((0, 100, 1_000)))
    return Direction(
        draw(st.sampled_from((0, 10, 100, 1_000))),
        draw(st.integers(0, capacity)),
        capacity,
        draw(st.sampled_from((0, 5, 60, 600))),
    )


@st.composite
def views(draw: st.DrawFn, most_nodes: int = 6, most_links: int = 10) -> NetworkView:
    """A network of few nodes, with parallel links, links that are down, and whatever else there is."""
    count = draw(st.integers(2, most_nodes))
    nodes = tuple(
        Node(f"n{number}", True, draw(st.sampled_from("xy")), draw(st.integers(0, 9)) == 0) for number in range(count)
    )
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] != pair[1])
    links = tuple(
        Link(
            f"l{number}",
            f"n{a}",
            f"n{b}",
            quantum=draw(st.integers(0, 5)) > 0,
            up=draw(st.integers(0, 5)) > 0,
            suites=frozenset(draw(st.sets(st.sampled_from(SUITES)))),
            risk_groups=frozenset(draw(st.sets(st.sampled_from("rs"), max_size=1))),
            stream=draw(st.sampled_from((None, 120))),
            ab=draw(directions()),
            ba=draw(directions()),
        )
        for number, (a, b) in enumerate(draw(st.lists(ends, min_size=1, max_size=most_links)))
    )
    return NetworkView(nodes, links)


Weighted = tuple[Topology, list[int]]


@st.composite
def weighted(draw: st.DrawFn, most_nodes: int = 6, most_links: int = 9) -> Weighted:
    """Numbered nodes and links, and a weight for each arc: small ones, so that there are ties, and huge ones."""
    count = draw(st.integers(2, most_nodes))
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] != pair[1])
    pairs = draw(st.lists(ends, min_size=1, max_size=most_links))
    topology = Topology.of(
        [Node(str(number)) for number in range(count)],
        [Link(str(number), str(a), str(b)) for number, (a, b) in enumerate(pairs)],
    )
    one = st.sampled_from((0, 1, 1, 2, 3, 5, 9, 1 << 30))
    return topology, draw(st.lists(one, min_size=2 * len(pairs), max_size=2 * len(pairs)))


def all_paths(topology: Topology, weights: Sequence[int], source: int, target: int) -> list[Arcs]:
    """Every loop-free path."""

    def further(node: int, visited: frozenset[int], arcs: Arcs) -> Iterator[Arcs]:
        if node == target:
            yield arcs
            return
        for neighbour, arc in topology.arcs_from[node]:
            if weights[arc] and neighbour not in visited:
                yield from further(neighbour, visited | {neighbour}, (*arcs, arc))

    return list(further(source, frozenset((source,)), ()))


def between(topology: Topology, arcs: Arcs) -> frozenset[int]:
    """The nodes of a path between its ends."""
    return frozenset(topology.heads[arc] for arc in arcs[:-1])


def node_disjoint(topology: Topology, paths: Sequence[Arcs]) -> bool:
    """Whether paths have no node between the ends, and no link, in common."""
    return all(
        not between(topology, one) & between(topology, other)
        and not {arc >> 1 for arc in one} & {arc >> 1 for arc in other}
        for one, other in combinations(paths, 2)
    )
