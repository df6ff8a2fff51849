"""Where a demand goes from here: pure decisions over what is known and promised now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, isfinite

from controller.admission.admit import Admission, Demand, admit, limit_of, possible
from controller.admission.classes import CLASSES
from controller.admission.refusal import Reason, Refusal
from controller.admission.reoptimise import Standing, Verdict, reconsider, stands
from controller.paths.compute import Path, path_along
from controller.paths.constraints import Obstacle, link_obstacle, node_obstacle
from controller.paths.diverse import Overlap, overlap
from controller.steering.ledger import Ledger
from controller.view import NetworkView
from keyhaul.transport.messages.path import PathRefusal, PathReply

HEADROOM = 1.25
"""How much more is granted than was asked for, so that a rate that grows a little needs no new paths."""

SLACK = 2.5
"""A grant of up to so many times what is asked for is left as it is."""

MOST_ASKED = 1e12
"""Bytes a second: more is no rate of a link."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a demand: install these paths, or nothing; and why it does not get all that its class demands,
    where that is so.
    """

    standing: Standing
    verdict: Verdict = Verdict.STAY
    admission: Admission | None = None
    refusal: Refusal | None = None


def granted(asked: float, service_class: str, present: int | None) -> int:
    """The rate to grant to who asks for so many bytes a second and has `present` bits per second now."""
    needed = ceil(8 * min(asked, MOST_ASKED)) if isfinite(asked) and asked > 0 else 1
    if present is not None and needed <= present <= SLACK * needed:
        return present
    return ceil(needed * HEADROOM) if CLASSES[service_class].reserves else needed


def choose(
    ledger: Ledger,
    demand: Demand,
    present: Sequence[Path],
    standing: Standing,
    shunned: Iterable[str],
    now: float,
    *,
    renew: bool,
) -> Decision:
    """Decide about a demand.

    What is in force and has lost its backup stays, or goes to the one path that is left: only what is new is refused.

    Args:
        ledger: what is known and promised.
        demand: what is asked for.
        present: the paths that it has.
        standing: how it came to have them.
        shunned: nodes and links that are taken only where there is nothing else.
        now: seconds.
        renew: install the present paths anew rather than nothing.
    """
    decisions = []
    for without in _choices(demand, shunned):
        decisions.append(_choose(ledger, demand, without, present, standing, now, renew))
        if decisions[-1].refusal is None:
            return decisions[-1]
    return next((decision for decision in decisions if decision.admission is not None), decisions[-1])


def _choices(demand: Demand, shunned: Iterable[str]) -> list[Demand]:
    away = frozenset(shunned) - {demand.source, demand.target}
    if not away:
        return [demand]
    own = demand.constraints
    further = replace(own, excluded_nodes=own.excluded_nodes | away, excluded_links=own.excluded_links | away)
    return [replace(demand, constraints=further), demand]


def _choose(
    ledger: Ledger,
    demand: Demand,
    without: Demand,
    present: Sequence[Path],
    standing: Standing,
    now: float,
    renew: bool,
) -> Decision:
    view, reservations = ledger.view, ledger.reservations
    if not present:
        found = admit(view, reservations, without, now, ledger.policy)
        if isinstance(found, Refusal):
            return Decision(standing, refusal=found)
        return Decision(Standing(now), Verdict.FLEE, replace(found, demand=demand))
    advice = reconsider(view, reservations, without, present, standing, now, policy=ledger.policy)
    if advice.admission is not None:
        return Decision(advice.standing, advice.verdict, replace(advice.admission, demand=demand))
    refusal = advice.refusal
    working = present if refusal is None else _working(view, without, present)
    if not working and CLASSES[demand.service_class].needs_backup:
        found = admit(view, reservations, without, now, ledger.policy, bare=True)
        if isinstance(found, Admission):
            return Decision(Standing(now), Verdict.FLEE, replace(found, demand=demand), refusal)
    if renew and working:
        return Decision(advice.standing, Verdict.STAY, along(ledger, demand, working), refusal)
    return Decision(advice.standing, refusal=refusal)


def is_forbidden(view: NetworkView, demand: Demand, path: Path) -> bool:
    """Whether a demand may not use a path even if it works: a link that is down may be back, a node in quarantine, or a
    link that is planned no more, is to be left whatever comes.
    """
    constraints = CLASSES[demand.service_class].constraints(demand.rate, demand.constraints)
    nodes, links = view.topology.node_number, view.topology.link_number
    if not (nodes.keys() >= set(path.nodes) and links.keys() >= set(path.links)):
        return True
    return any(node_obstacle(view.node(name), constraints) for name in path.nodes) or any(
        link_obstacle(view.link(name), constraints) not in (None, Obstacle.DOWN) for name in path.links
    )


def _working(view: NetworkView, demand: Demand, paths: Sequence[Path]) -> list[Path]:
    """Those of a demand's paths that serve it without the others."""
    service_class = CLASSES[demand.service_class]
    constraints = service_class.constraints(demand.rate, demand.constraints)
    return [path for path in paths if service_class.shares == 1 and stands(view, path, constraints)]


def along(ledger: Ledger, demand: Demand, paths: Sequence[Path]) -> Admission:
    """An admission over paths that are known.

    Raises:
        KeyError: some of their links are not there any more.
    """
    view = ledger.view
    present = tuple(path_along(view, path.nodes, path.links, ledger.policy) for path in paths)
    service_class = CLASSES[demand.service_class]
    shared = Overlap()
    if service_class.shares == 1:
        shared = overlap(view, present[0].arcs, present[-1].arcs)
    return Admission(demand, present, shared, limit_of(demand), service_class.link_rate(demand.rate))


_REFUSALS = {
    Reason.UNKNOWN_CLASS: PathRefusal.NO_ROUTE,
    Reason.UNKNOWN_NODE: PathRefusal.UNKNOWN_DESTINATION,
    Reason.NO_PATH: PathRefusal.NO_ROUTE,
    Reason.CONSTRAINED: PathRefusal.NO_ROUTE,
    Reason.NO_BACKUP: PathRefusal.NOT_DISJOINT,
    Reason.TOO_FEW_PATHS: PathRefusal.NOT_DISJOINT,
    Reason.SLOW: PathRefusal.NO_CAPACITY,
    Reason.RATE: PathRefusal.NO_CAPACITY,
    Reason.POOL: PathRefusal.NO_CAPACITY,
}


def reply(ledger: Ledger, demand: Demand, refusal: Refusal) -> PathReply:
    """What the asking CKMS is told: why not, when it might be, and which rate would be granted now."""
    reason = PathRefusal.NO_ROUTE if refusal.paths_found == 0 else _REFUSALS[refusal.reason]
    rate = 0.0
    if refusal.reason in (Reason.SLOW, Reason.RATE):
        rate = floor(possible(ledger.view, ledger.reservations, demand) / HEADROOM) / 8
    return PathReply(refusal=reason, earliest_s=refusal.earliest_s or 0.0, rate=rate)
