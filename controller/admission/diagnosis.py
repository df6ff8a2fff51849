"""Why a demand does not fit, and when it could: pools fill, and reservations end that nobody renews."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from controller.admission.refusal import BARRIERS, TOO_LONG, Reason, Refusal
from controller.admission.reservations import Reservations
from controller.paths.constraints import Constraints, Obstacle, floor, lasting_obstacles, usable_weights
from controller.paths.disjoint import disjoint
from controller.paths.diverse import diverse_pair
from controller.paths.policies import WEIGHTS, Policy
from controller.view import Direction, Link, NetworkView


@dataclass(frozen=True, slots=True)
class Wanted:
    """So many paths from one node to another, without a common node (`apart`) or just different ones."""

    source: str
    target: str
    constraints: Constraints
    paths: int
    apart: bool
    demand: str
    """What it has reserved counts as free."""

    def found(self, view: NetworkView, usable: Sequence[int], limit: int | None) -> int:
        """How many of them there are over arcs that can be used."""
        numbers = view.topology.node_number
        start, end = numbers[self.source], numbers[self.target]
        if self.apart:
            ways = disjoint(view.topology, usable, start, end, self.paths)
        else:
            ways = diverse_pair(view, usable, start, end, limit)
        return sum(limit is None or len(way) <= limit for way in ways)


def diagnose(view: NetworkView, reservations: Reservations, wanted: Wanted, now: float) -> Refusal:
    """Say why there are too few paths, and when there will be enough.

    `view` shows in each direction what is reserved, but for what the demand itself has.
    """
    constraints = wanted.constraints
    bars = lasting_obstacles(view, constraints)
    weights = [int(not one) for one in bars for _ in range(2)]

    def enough(usable: Sequence[int]) -> bool:
        return wanted.found(view, usable, constraints.maximum_hops) >= wanted.paths

    if (there := wanted.found(view, weights, constraints.maximum_hops)) < wanted.paths:
        barriers = _barriers(view, wanted, bars)
        if wanted.apart:
            return Refusal(Reason.TOO_FEW_PATHS, paths_found=there, barriers=barriers)
        if there:
            return Refusal(Reason.NO_BACKUP, barriers=barriers)
        constrained = bool(barriers) and barriers != (BARRIERS[Obstacle.DOWN],)
        return Refusal(Reason.CONSTRAINED if constrained else Reason.NO_PATH, barriers=barriers)
    makes = _per_arc(view, _makes)
    if not enough(_over(weights, makes, constraints.rate)):
        return Refusal(Reason.SLOW, least_rate=_widest(weights, makes, enough))
    pools = [_filled_in(view, arc, constraints) if weight else math.inf for arc, weight in enumerate(weights)]
    ready = [
        max(pool, _free_in(view, reservations, arc, constraints.rate, now, wanted.demand)) if pool < math.inf else pool
        for arc, pool in enumerate(pools)
    ]

    def enough_in(seconds: float, times: Sequence[float]) -> bool:
        return enough([weight if time <= seconds else 0 for weight, time in zip(weights, times, strict=True)])

    times = sorted({time for time in ready if time < math.inf})
    low, high = 0, len(times)
    while low < high:
        middle = (low + high) // 2
        if enough_in(times[middle], ready):
            high = middle
        else:
            low = middle + 1
    reason = Reason.RATE if enough_in(0.0, pools) else Reason.POOL
    return Refusal(reason, times[low] if low < len(times) else None)


def most(view: NetworkView, wanted: Wanted) -> int:
    """Link key in bits per second that so many paths have to spare now on each of their hops; 0: none have any."""
    free = replace(wanted.constraints, rate=0)
    weights = usable_weights(view, view.per_arc(WEIGHTS[Policy.HOPS]), free)
    limit = free.maximum_hops
    spare = _per_arc(view, lambda link, direction: max(0, link.spare(direction)))
    return _widest(weights, spare, lambda usable: wanted.found(view, usable, limit) >= wanted.paths)


def _widest(weights: Sequence[int], widths: Sequence[int], enough: Callable[[Sequence[int]], bool]) -> int:
    """The greatest width that enough paths have; 0 where there are none."""
    known = sorted({width for width, weight in zip(widths, weights, strict=True) if weight and width > 0})
    low, high = 0, len(known)
    while low < high:
        middle = (low + high) // 2
        if enough(_over(weights, widths, known[middle])):
            low = middle + 1
        else:
            high = middle
    return known[low - 1] if low else 0


def _over(weights: Sequence[int], widths: Sequence[int], width: int) -> list[int]:
    """The weights of the arcs that are so wide."""
    return [weight if has >= width else 0 for weight, has in zip(weights, widths, strict=True)]


def _per_arc(view: NetworkView, function: Callable[[Link, Direction], int]) -> list[int]:
    return [value for link in view.links for value in (function(link, link.ab), function(link, link.ba))]


def _makes(link: Link, direction: Direction) -> int:
    """Link key of a direction, bits per second, if nothing were promised."""
    return direction.rate if link.stream is None else min(direction.rate, link.stream)


def _barriers(view: NetworkView, wanted: Wanted, bars: Sequence[frozenset[Obstacle]]) -> tuple[str, ...]:
    """What bars the paths: each thing alone or, where it takes more than one, all that bar any."""
    limit = wanted.constraints.maximum_hops

    def opens(gone: frozenset[Obstacle], limit: int | None) -> bool:
        usable = [int(one <= gone) for one in bars for _ in range(2)]
        return wanted.found(view, usable, limit) >= wanted.paths

    kinds = frozenset[Obstacle]().union(*bars)
    if not opens(kinds, None):
        return ()
    alone = [BARRIERS[kind] for kind in Obstacle if kind in kinds and opens(frozenset((kind,)), limit)]
    if limit is not None and opens(frozenset(), None):
        alone.append(TOO_LONG)
    if alone:
        return tuple(alone)
    several = [BARRIERS[kind] for kind in Obstacle if kind in kinds]
    return tuple(several if limit is None or opens(kinds, limit) else [*several, TOO_LONG])


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
