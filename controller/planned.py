"""The network as the operator planned it, in CKMSs and the links between them."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite


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
