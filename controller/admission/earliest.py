"""When a demand that does not fit now could: pools fill, and reservations end that nobody renews."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from controller.admission.reservations import Reservations
from controller.paths.constraints import Constraints, floor, usable_weights
from controller.paths.disjoint import disjoint
from controller.paths.diverse import diverse_pair
from controller.paths.policies import WEIGHTS, Policy
from controller.view import NetworkView


@dataclass(frozen=True, slots=True)
class Wait:
    """What a demand waits for."""

    for_rate: bool
    """Whether it waits for rate that is promised to others alone, and not for pools to fill."""
    seconds: float | None
    """None: for nothing that is known to come."""


def earliest(
    view: NetworkView,
    reservations: Reservations,
    source: str,
    target: str,
    constraints: Constraints,
    paths: int,
    *,
    disjoint_paths: bool,
    now: float,
    without: str | None = None,
) -> Wait | int:
    """When so many paths, without a common node or just different ones, will be there.

    Returns:
        What the demand waits for; or how many paths there are, where even empty reservations and full pools would not
        make them enough.
    """
    topology = view.topology
    start, end = topology.node_number[source], topology.node_number[target]
    standing = replace(constraints, rate=0, pool_floor=0.0)
    weights = usable_weights(view, view.per_arc(WEIGHTS[Policy.HOPS]), standing)

    def found(usable: Sequence[int]) -> int:
        if disjoint_paths:
            ways = disjoint(topology, usable, start, end, paths)
        else:
            ways = diverse_pair(view, usable, start, end, constraints.maximum_hops)
        limit = constraints.maximum_hops
        return sum(limit is None or len(way) <= limit for way in ways)

    if (there := found(weights)) < paths:
        return there
    pools = [_filled_in(view, arc, constraints) if weight else math.inf for arc, weight in enumerate(weights)]
    ready = [
        max(pool, _free_in(view, reservations, arc, constraints.rate, now, without)) if pool < math.inf else math.inf
        for arc, pool in enumerate(pools)
    ]

    def enough(seconds: float, times: Sequence[float]) -> bool:
        return found([weight if time <= seconds else 0 for weight, time in zip(weights, times, strict=True)]) >= paths

    times = sorted({time for time in ready if time < math.inf})
    low, high = 0, len(times)
    while low < high:
        middle = (low + high) // 2
        if enough(times[middle], ready):
            high = middle
        else:
            low = middle + 1
    return Wait(enough(0.0, pools), times[low] if low < len(times) else None)


def _filled_in(view: NetworkView, arc: int, constraints: Constraints) -> float:
    """Seconds until the pool of an arc reaches the floor, if all that is reserved is used."""
    link = view.links[arc >> 1]
    direction = link.direction(arc)
    missing = floor(direction, constraints.pool_floor) - direction.pool
    if missing <= 0:
        return 0.0
    spare = link.spare(direction)
    return missing / spare if spare > 0 else math.inf


def _free_in(
    view: NetworkView, reservations: Reservations, arc: int, rate: int, now: float, without: str | None
) -> float:
    """Seconds until an arc has the rate to spare."""
    link = view.links[arc >> 1]
    if link.spare(link.direction(arc)) >= rate:
        return 0.0
    at = reservations.free_at(view, (link.id, link.b if arc & 1 else link.a), rate, now, without)
    return math.inf if at is None else at - now
