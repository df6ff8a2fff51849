"""What the controller knows of the network at one moment, as path computation and admission read it.

A view never changes: what changes makes a new view, which shares with the old one all that stayed. Nodes, links and
the directions of links are numbered once, when the topology is first seen: link `i` has the two *arcs* `2 * i` (from
its end `a` to `b`) and `2 * i + 1` (from `b` to `a`), so that `arc ^ 1` is the way back and `arc >> 1` the link.

Everything is directed. A key is relayed from the CKMS that it is handed in at to the one that it is for: a CN key
from the AKMS that made it (B) to the one that asked (A). Over each hop it is sealed with key material of the hop's own
direction, so a path uses up the pool of each arc that it traverses, and nothing of the opposite arcs. Rates and
reservations are counted in link key material (bits per second), not in payload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any, TypeVar

Value = TypeVar("Value")

KEPT_TABLES = 16
"""Functions whose values for each arc a view keeps."""


@dataclass(frozen=True, slots=True)
class Node:
    """A CKMS."""

    id: str
    """Its service id, e.g. ``ckms-9``."""
    access: bool = True
    """Whether an AKMS stands beside it: paths begin and end at such nodes."""
    jurisdiction: str = ""
    quarantined: bool = False
    """Whether it may be in no path, because it may be compromised."""


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a link: key material with which its sender seals."""

    rate: int = 0
    """New key material, bits per second."""
    pool: int = 0
    """Key material ready for payload, bits."""
    capacity: int = 0
    """What the pool holds at most, bits."""
    reserved: int = 0
    """What was promised of the rate, bits per second."""


@dataclass(frozen=True, slots=True)
class Link:
    """Two adjacent CKMSs and the key material that they share."""

    id: str
    a: str
    b: str
    quantum: bool = True
    """Whether QKD modules make its key material."""
    up: bool = True
    suites: frozenset[str] = frozenset()
    """Protections that both ends offer (`otp`, `aes-256-gcm`, `ml-kem`, `hybrid`)."""
    risk_groups: frozenset[str] = frozenset()
    """What it shares a fate with: ducts, bridges, buildings."""
    km: float = 0.0
    latency_s: float = 0.0
    stream: int | None = None
    """What both directions together get of new key material, bits per second, where one stream (that of a pair of QKD
    modules) fills the pools of both, whichever has room; the rate of each is then what it can get while the other
    takes nothing. None: each direction's rate is its own."""
    ab: Direction = Direction()
    ba: Direction = Direction()

    def direction(self, arc: int) -> Direction:
        """The direction of an arc of this link."""
        return self.ba if arc & 1 else self.ab

    def spare(self, direction: Direction) -> int:
        """What of the rate of one of its directions is not promised yet, bits per second; less than 0 where rates fell
        since.
        """
        alone = direction.rate - direction.reserved
        return alone if self.stream is None else min(alone, self.stream - self.ab.reserved - self.ba.reserved)


class MalformedView(ValueError):
    """Nodes and links that make no network: an id twice, a link to nowhere or from a node to itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """Which nodes and links there are, by number."""

    node_number: Mapping[str, int]
    link_number: Mapping[str, int]
    arcs_from: tuple[tuple[tuple[int, int], ...], ...]
    """Of each node: neighbour and arc to it, of each link."""
    heads: tuple[int, ...]
    """Of each arc, the node that it leads to; its tail is the head of the way back."""

    @classmethod
    def of(cls, nodes: Iterable[Node], links: Iterable[Link]) -> Topology:
        """Number nodes and links in the order given.

        Raises:
            MalformedView: an id occurs twice, or a link does not join two of the nodes.
        """
        node_number: dict[str, int] = {}
        for node in nodes:
            if node.id in node_number:
                raise MalformedView(f"node {node.id} is there twice")
            node_number[node.id] = len(node_number)
        link_number: dict[str, int] = {}
        arcs_from: list[list[tuple[int, int]]] = [[] for _ in node_number]
        heads: list[int] = []
        for number, link in enumerate(links):
            if link.id in link_number:
                raise MalformedView(f"link {link.id} is there twice")
            link_number[link.id] = number
            a, b = node_number.get(link.a), node_number.get(link.b)
            if a is None or b is None or a == b:
                raise MalformedView(f"link {link.id} does not join two nodes: {link.a} and {link.b}")
            arcs_from[a].append((b, 2 * number))
            arcs_from[b].append((a, 2 * number + 1))
            heads += (b, a)
        return cls(node_number, link_number, tuple(map(tuple, arcs_from)), tuple(heads))

    def tail(self, arc: int) -> int:
        """The node that an arc leaves."""
        return self.heads[arc ^ 1]


@dataclass(frozen=True, slots=True)
class NetworkView:
    """All nodes and links with their figures at one moment."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    version: int = 0
    """Grows with each change, so that a result says what it was computed from."""
    numbered: InitVar[Topology | None] = None
    """The topology, where another view of the same nodes and links has numbered it."""
    topology: Topology = field(init=False, compare=False, repr=False)
    quarantined: tuple[int, ...] = field(default=(), init=False, compare=False, repr=False)
    """Numbers of the nodes that are."""
    _tables: dict[Callable[[Link, Direction], Any], list[Any]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def __post_init__(self, numbered: Topology | None) -> None:
        object.__setattr__(self, "topology", numbered or Topology.of(self.nodes, self.links))
        numbers = tuple(number for number, node in enumerate(self.nodes) if node.quarantined)
        object.__setattr__(self, "quarantined", numbers)

    def node(self, identity: str) -> Node:
        """A node by its id.

        Raises:
            KeyError: there is none.
        """
        return self.nodes[self.topology.node_number[identity]]

    def link(self, identity: str) -> Link:
        """A link by its id.

        Raises:
            KeyError: there is none.
        """
        return self.links[self.topology.link_number[identity]]

    def arc(self, link: str, origin: str) -> int:
        """The arc of a link that leaves a node.

        Raises:
            KeyError: there is no such link, or it does not end at the node.
        """
        number = self.topology.link_number[link]
        if origin not in (self.links[number].a, self.links[number].b):
            raise KeyError(origin)
        return 2 * number + (self.links[number].b == origin)

    def changed(self, links: Iterable[Link] = (), nodes: Iterable[Node] = ()) -> NetworkView:
        """The next view, in which these nodes and links (of this view, by id) are as given.

        Cost is a copy of the tuples, and work for each link that changed.

        Raises:
            KeyError: one of them is new; the topology changed, and a new view is built from all nodes and links.
        """
        topology = self.topology
        all_nodes, all_links = list(self.nodes), list(self.links)
        for node in nodes:
            all_nodes[topology.node_number[node.id]] = node
        numbers = []
        for link in links:
            number = topology.link_number[link.id]
            if (link.a, link.b) != (all_links[number].a, all_links[number].b):
                raise KeyError(link.id)
            all_links[number] = link
            numbers.append(number)
        view = NetworkView(tuple(all_nodes), tuple(all_links), self.version + 1, topology)
        for function, table in self._tables.items():
            table = table.copy()
            for number in numbers:
                link = all_links[number]
                table[2 * number] = function(link, link.ab)
                table[2 * number + 1] = function(link, link.ba)
            view._tables[function] = table
        return view

    def per_arc(self, function: Callable[[Link, Direction], Value]) -> list[Value]:
        """The value of a pure function for each arc, by number; not to be changed.

        It is computed once for a view, and after `changed` only for the links that did.
        """
        table = self._tables.get(function)
        if table is None:
            table = [value for link in self.links for value in (function(link, link.ab), function(link, link.ba))]
            while len(self._tables) >= KEPT_TABLES:
                del self._tables[next(iter(self._tables))]
            self._tables[function] = table
        return table
