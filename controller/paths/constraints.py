"""What a path must keep to, and what of the network does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from controller.view import Direction, Link, NetworkView, Node

FULL_S = 60.0
"""Seconds: a pool that holds what its link yields in these is full as far as floors go."""


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a path must keep to; the default is any path over links that are up."""

    rate: int = 0
    """Key material that each hop must have to spare, bits per second of link key."""
    pool_floor: float = 0.0
    """Share of its capacity that the pool of each hop must hold; see `floor`."""
    quantum_only: bool = False
    """No links without QKD."""
    suites: frozenset[str] | None = None
    """Each link must offer one of these protections; None: any will do."""
    jurisdictions: frozenset[str] | None = None
    """Each node must be in one of these; None: anywhere."""
    excluded_nodes: frozenset[str] = frozenset()
    excluded_links: frozenset[str] = frozenset()
    excluded_risk_groups: frozenset[str] = frozenset()
    maximum_hops: int | None = None


UNCONSTRAINED = Constraints()
"""Any path over links that are up and nodes that are not quarantined."""


class Obstacle(StrEnum):
    """Why a link or node cannot be in a path."""

    DOWN = "the link is down"
    NO_QUANTUM = "the link has no QKD"
    SUITE = "the link offers no protection of those required"
    EXCLUDED_LINK = "the link is excluded"
    RISK_GROUP = "the link is in an excluded risk group"
    POOL = "the pool is below the floor of the class"
    RATE = "too little of the rate is to spare"
    QUARANTINED = "the node is quarantined"
    JURISDICTION = "the node is in no jurisdiction of those allowed"
    EXCLUDED_NODE = "the node is excluded"


def node_obstacles(node: Node, constraints: Constraints) -> Iterator[Obstacle]:
    """Why a path may not visit a node."""
    if node.quarantined:
        yield Obstacle.QUARANTINED
    if node.id in constraints.excluded_nodes:
        yield Obstacle.EXCLUDED_NODE
    if constraints.jurisdictions is not None and node.jurisdiction not in constraints.jurisdictions:
        yield Obstacle.JURISDICTION


def node_obstacle(node: Node, constraints: Constraints) -> Obstacle | None:
    """The first reason why a path may not visit a node, if there is one."""
    return next(node_obstacles(node, constraints), None)


def link_obstacles(link: Link, constraints: Constraints) -> Iterator[Obstacle]:
    """Why a path may not traverse a link, either way."""
    if not link.up:
        yield Obstacle.DOWN
    if constraints.quantum_only and not link.quantum:
        yield Obstacle.NO_QUANTUM
    if constraints.suites is not None and constraints.suites.isdisjoint(link.suites):
        yield Obstacle.SUITE
    if link.id in constraints.excluded_links:
        yield Obstacle.EXCLUDED_LINK
    if not constraints.excluded_risk_groups.isdisjoint(link.risk_groups):
        yield Obstacle.RISK_GROUP


def link_obstacle(link: Link, constraints: Constraints) -> Obstacle | None:
    """The first reason why a path may not traverse a link, either way, if there is one."""
    return next(link_obstacles(link, constraints), None)


def floor(direction: Direction, share: float) -> float:
    """Bits that a pool must hold for a floor of `share`: of its capacity, or of `FULL_S` of its rate if that is less.

    At 300 bit/s a pool of 64 KiB takes half an hour to fill: a share of it would keep all others off the link for
    minutes. Where nothing new comes the capacity counts, so that what is left is kept for who needs it most.
    """
    full = min(direction.capacity, FULL_S * direction.rate) if direction.rate > 0 else direction.capacity
    return share * full


def direction_obstacle(link: Link, direction: Direction, constraints: Constraints) -> Obstacle | None:
    """Why a path may not use up key material of a link's direction, if so; in a while it may."""
    if direction.pool < floor(direction, constraints.pool_floor):
        return Obstacle.POOL
    if link.spare(direction) < constraints.rate:
        return Obstacle.RATE
    return None


def obstacle(view: NetworkView, arc: int, constraints: Constraints) -> Obstacle | None:
    """The first reason why a path may not traverse an arc, if there is one: its link, its direction, or its ends."""
    link = view.links[arc >> 1]
    topology = view.topology
    return (
        link_obstacle(link, constraints)
        or direction_obstacle(link, link.direction(arc), constraints)
        or node_obstacle(view.nodes[topology.tail(arc)], constraints)
        or node_obstacle(view.nodes[topology.heads[arc]], constraints)
    )


def lasting_obstacles(view: NetworkView, constraints: Constraints) -> list[frozenset[Obstacle]]:
    """Of each link, all reasons why a path may not traverse it, but for those that pass: pools and rates."""
    nodes = {node.id: frozenset(node_obstacles(node, constraints)) for node in view.nodes}
    return [nodes[link.a].union(nodes[link.b], link_obstacles(link, constraints)) for link in view.links]


@dataclass(frozen=True, slots=True)
class Fit:
    """What a class demands of each link, the same for all its demands: kept in a view's tables."""

    quantum_only: bool
    suites: frozenset[str] | None
    pool_floor: float

    def __call__(self, link: Link, direction: Direction) -> int:
        """What an arc has to spare, bits per second; -1 where the class cannot use it."""
        standing = Constraints(pool_floor=self.pool_floor, quantum_only=self.quantum_only, suites=self.suites)
        if link_obstacle(link, standing) or direction.pool < floor(direction, self.pool_floor):
            return -1
        return max(link.spare(direction), -1)


def usable_weights(view: NetworkView, weights: list[int], constraints: Constraints) -> list[int]:
    """The weights, with 0 for each arc for which there is an `obstacle`."""
    fits = view.per_arc(Fit(constraints.quantum_only, constraints.suites, constraints.pool_floor))
    rate = constraints.rate
    usable = [weight if spare >= rate else 0 for weight, spare in zip(weights, fits, strict=True)]
    topology = view.topology
    for identity in constraints.excluded_links:
        number = topology.link_number.get(identity)
        if number is not None:
            usable[2 * number] = usable[2 * number + 1] = 0
    if constraints.excluded_risk_groups:
        for number, link in enumerate(view.links):
            if not constraints.excluded_risk_groups.isdisjoint(link.risk_groups):
                usable[2 * number] = usable[2 * number + 1] = 0
    for number in _shunned(view, constraints):
        for _, arc in topology.arcs_from[number]:
            usable[arc] = usable[arc ^ 1] = 0
    return usable


def _shunned(view: NetworkView, constraints: Constraints) -> list[int]:
    """Nodes that no path may visit."""
    if constraints.jurisdictions is not None:
        return [number for number, node in enumerate(view.nodes) if node_obstacle(node, constraints)]
    numbers = view.topology.node_number
    named = [numbers[identity] for identity in constraints.excluded_nodes if identity in numbers]
    return named + list(view.quarantined)
