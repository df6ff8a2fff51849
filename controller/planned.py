"""The network as the operator planned it, in CKMSs and the links between them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Protocol


class MalformedPlan(ValueError):
    """Nodes and links that make no network; the message names the one that is wrong."""


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """A CKMS."""

    id: str
    """Its service id, e.g. ``ckms-9``."""
    access: bool = True
    """Whether an AKMS stands beside it."""
    jurisdiction: str = ""
    place: str = ""
    """For people, e.g. a city."""
    target: str = ""
    """Where its agent listens, host:port."""


@dataclass(frozen=True, slots=True)
class PlannedLink:
    """Two adjacent CKMSs."""

    id: str
    a: str
    b: str
    quantum: bool = True
    rate: int = 0
    """What is expected of each direction, bits per second."""
    capacity: int = 0
    """What a direction's pool holds, bits."""
    suites: frozenset[str] = frozenset()
    """Protections allowed on it."""
    risk_groups: frozenset[str] = frozenset()
    """What it shares a fate with: ducts, bridges, buildings."""
    km: float = 0.0


@dataclass(frozen=True, slots=True)
class PlannedNetwork:
    """All of it; checked when it is made."""

    nodes: tuple[PlannedNode, ...]
    links: tuple[PlannedLink, ...]

    def __post_init__(self) -> None:
        nodes = {node.id for node in self.nodes}
        if len(nodes) < len(self.nodes):
            raise MalformedPlan("a node is there twice")
        if len({link.id for link in self.links}) < len(self.links):
            raise MalformedPlan("a link is there twice")
        if len({frozenset((link.a, link.b)) for link in self.links}) < len(self.links):
            raise MalformedPlan("two nodes are joined twice: facts name a link by its neighbour")
        for link in self.links:
            if link.a == link.b or not nodes.issuperset((link.a, link.b)):
                raise MalformedPlan(f"link {link.id} does not join two nodes: {link.a} and {link.b}")
            if link.rate < 0 or link.capacity < 0 or not (isfinite(link.km) and link.km >= 0):
                raise MalformedPlan(f"link {link.id}: rate, capacity and km are 0 or more")


class NodeLike(Protocol):
    """What has a CKMS's facts: of a plan's file, of a message, of a row of the database."""

    @property
    def id(self) -> str: ...
    @property
    def access(self) -> bool: ...
    @property
    def jurisdiction(self) -> str: ...
    @property
    def place(self) -> str: ...
    @property
    def target(self) -> str: ...


class LinkLike(Protocol):
    """What has a link's facts, likewise."""

    @property
    def id(self) -> str: ...
    @property
    def a(self) -> str: ...
    @property
    def b(self) -> str: ...
    @property
    def quantum(self) -> bool: ...
    @property
    def rate(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def suites(self) -> Collection[str]: ...
    @property
    def risk_groups(self) -> Collection[str]: ...
    @property
    def km(self) -> float: ...


def planned(nodes: Iterable[NodeLike], links: Iterable[LinkLike]) -> PlannedNetwork:
    """Return the network of these nodes and links.

    Raises:
        MalformedPlan: they make no network.
    """
    return PlannedNetwork(
        tuple(
            PlannedNode(
                node.id,
                access=node.access,
                jurisdiction=node.jurisdiction,
                place=node.place,
                target=node.target,
            )
            for node in nodes
        ),
        tuple(
            PlannedLink(
                link.id,
                link.a,
                link.b,
                quantum=link.quantum,
                rate=link.rate,
                capacity=link.capacity,
                suites=frozenset(link.suites),
                risk_groups=frozenset(link.risk_groups),
                km=link.km,
            )
            for link in links
        ),
    )
