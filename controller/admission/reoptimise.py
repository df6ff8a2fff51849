"""Whether a demand is worth moving to a better path: with hysteresis, so that measurements that come and go move
nothing to and fro.

A path that no longer works is left at once. A better one is taken when it is better by a margin, has been so for a
while without a break, and the demand has stayed long enough where it is; how long that is doubles with each such move
that follows soon upon another. What the demand itself has reserved counts for neither path.

Pure functions: time (`now`, seconds) is an argument, and what is remembered between calls is a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from controller.admission.admit import Admission, Demand, admit
from controller.admission.classes import CLASSES
from controller.admission.refusal import Refusal
from controller.admission.reservations import Reservations
from controller.paths.compute import Path, path_along
from controller.paths.constraints import Constraints, link_obstacle, node_obstacle
from controller.paths.diverse import overlap
from controller.paths.policies import WEIGHTS, Policy
from controller.view import NetworkView


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """When to move."""

    gain: float = 0.25
    """By what share a path must weigh less than the present one."""
    steady_s: float = 10.0
    """For how long it must have done so at each look."""
    dwell_s: float = 60.0
    """How long a demand stays on a path at least, before it moves without need."""
    bare_s: float = 5.0
    """The same for one that should have a backup and has none: long enough for what comes up to stay up."""
    doublings: int = 6
    """How often the dwelling time may double."""
    bare_doublings: int = 2
    """How often that without a backup may: to have none is worse than to move."""


USUAL = Hysteresis()


@dataclass(frozen=True, slots=True)
class Standing:
    """What is remembered of a demand between looks."""

    since: float
    """When it took its present paths."""
    better_since: float | None = None
    """Since when there have been better ones at each look."""
    moves: int = 0
    """How many moves without need followed upon one another sooner than four times the dwelling time of then."""

    def dwell(self, hysteresis: Hysteresis, *, bare: bool = False) -> float:
        """How long it stays at least, seconds; `bare`: it has no backup and could have one."""
        if bare:
            return float(hysteresis.bare_s * 2 ** min(self.moves, hysteresis.bare_doublings))
        return float(hysteresis.dwell_s * 2 ** min(self.moves, hysteresis.doublings))


class Verdict(StrEnum):
    """What to do with a demand."""

    STAY = "stay"
    MOVE = "move"
    """To paths that are better."""
    FLEE = "flee"
    """To other paths, because the present ones no longer work or are no longer allowed."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do with a demand, and what to remember."""

    verdict: Verdict
    standing: Standing
    admission: Admission | None = None
    """Where to; none where it stays."""
    refusal: Refusal | None = None
    """Why there is nowhere to flee to, or no backup where the class demands one."""


def reconsider(
    view: NetworkView,
    reservations: Reservations,
    demand: Demand,
    paths: Sequence[Path],
    standing: Standing,
    now: float,
    hysteresis: Hysteresis = USUAL,
    policy: Policy = Policy.RESIDUAL,
) -> Advice:
    """Look at a demand's present paths again."""
    best = admit(view, reservations, demand, now, policy)
    alone = reservations.onto(view, reservations.links_of(demand.id), without=demand.id)
    service_class = CLASSES[demand.service_class]
    constraints = service_class.constraints(demand.rate, demand.constraints)
    if not all(stands(alone, path, constraints) for path in paths):
        if isinstance(best, Refusal):
            return Advice(Verdict.STAY, replace(standing, better_since=None), refusal=best)
        return Advice(Verdict.FLEE, replace(standing, since=now, better_since=None), best)
    if isinstance(best, Refusal):
        weakened = service_class.needs_backup and len(paths) < 2
        return Advice(Verdict.STAY, replace(standing, better_since=None), refusal=best if weakened else None)
    present = tuple(path_along(alone, path.nodes, path.links, policy) for path in paths)
    same = {path.links for path in present} == {path.links for path in best.paths}
    backed_up = service_class.shares == 1
    safer = backed_up and _risk(alone, best.paths) < _risk(alone, present)
    weight = sum(path.weight for path in present)
    lighter = sum(path.weight for path in best.paths) <= (1 - hysteresis.gain) * weight
    riskier = backed_up and _risk(alone, best.paths) > _risk(alone, present)
    better = not same and (safer or (lighter and not riskier))
    bare = backed_up and len(present) < 2 <= len(best.paths)
    verdict, standing = consider(standing, better, now, hysteresis, bare=bare)
    return Advice(verdict, standing, best if verdict is Verdict.MOVE else None)


def is_surely_best(
    view: NetworkView,
    reservations: Reservations,
    demand: Demand,
    paths: Sequence[Path],
    least: int,
    hysteresis: Hysteresis = USUAL,
    policy: Policy = Policy.RESIDUAL,
) -> bool:
    """Whether `reconsider` would find nothing better, as far as a bound tells that costs next to nothing.

    Args:
        view: the network, with what is reserved.
        reservations: what is promised.
        demand: whose.
        paths: all that its class demands; they share nothing.
        least: what they must weigh together at the least: see `least_together`.
        hysteresis: when to move.
        policy: by which paths are chosen.
    """
    service_class = CLASSES[demand.service_class]
    constraints = service_class.constraints(demand.rate, demand.constraints)
    if not all(stands(view, path, constraints) for path in paths):
        return False
    weigh = WEIGHTS[policy]
    arcs = [view.arc(link, origin) for path in paths for link, origin in zip(path.links, path.nodes, strict=False)]
    weight = alone = sum(map(view.per_arc(weigh).__getitem__, arcs))
    if service_class.reserves:
        # What the demand has reserved itself makes its own hops heavier, and no others.
        own = [(arc, reservations.stamped(view.links[arc >> 1], without=demand.id)) for arc in arcs]
        alone = sum(weigh(link, link.direction(arc)) for arc, link in own)
    return least - (weight - alone) > (1 - hysteresis.gain) * alone


def least_together(view: NetworkView, weights: Sequence[int], tree: Sequence[int], source: str, count: int) -> int:
    """What `count` paths that share no link weigh together, or less.

    Args:
        view: the network.
        weights: by `open_weights`.
        tree: with these, of each node the distance to where the paths lead.
        source: where they begin.
        count: of paths; where fewer links leave the source, what so many weigh.
    """
    leaving = view.topology.arcs_from[view.topology.node_number[source]]
    return sum(sorted(weights[arc] + tree[neighbour] for neighbour, arc in leaving if weights[arc])[:count])


def open_weights(view: NetworkView, policy: Policy = Policy.RESIDUAL) -> list[int]:
    """What arcs weigh by a policy, with 0 for those of links that are down."""
    return [weight if view.links[arc >> 1].up else 0 for arc, weight in enumerate(view.per_arc(WEIGHTS[policy]))]


def consider(
    standing: Standing, better: bool, now: float, hysteresis: Hysteresis = USUAL, *, bare: bool = False
) -> tuple[Verdict, Standing]:
    """Whether to move to paths that are `better` at this look; `bare`: there is no backup now and would be one."""
    if not better:
        return Verdict.STAY, replace(standing, better_since=None)
    since = now if standing.better_since is None else standing.better_since
    stayed, dwell = now - standing.since, standing.dwell(hysteresis, bare=bare)
    steady = min(hysteresis.steady_s, dwell)
    if now - since < steady or stayed < dwell:
        return Verdict.STAY, replace(standing, better_since=since)
    return Verdict.MOVE, Standing(now, None, standing.moves + 1 if stayed < 4 * dwell else 1)


def stands(view: NetworkView, path: Path, constraints: Constraints) -> bool:
    """Whether a path works and is allowed; a pool that is low for the moment, or a rate, is what weights are for."""
    if constraints.maximum_hops is not None and path.hops > constraints.maximum_hops:
        return False
    try:
        arcs = [view.arc(link, origin) for link, origin in zip(path.links, path.nodes[:-1], strict=True)]
    except KeyError:
        return False
    if any(link_obstacle(view.links[arc >> 1], constraints) for arc in arcs):
        return False
    return not any(node_obstacle(view.node(node), constraints) for node in path.nodes)


def _risk(view: NetworkView, paths: Sequence[Path]) -> tuple[int, tuple[int, int, int]]:
    """How much fails at once: without a backup, more than with any."""
    if len(paths) < 2:
        return 1, (0, 0, 0)
    return 0, overlap(view, paths[0].arcs, paths[1].arcs).rank
