"""What would happen if: these links or nodes fail, or the plan is changed; who is affected, do they still fit?

Pure: a view, what is promised and what would change in; what would become of each demand out. Nothing is reserved by
it, and it promises nothing: the network may have changed before it comes to that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from math import inf

from controller.admission.admit import Demand, admit
from controller.admission.classes import CLASSES
from controller.admission.refusal import Reason, Refusal
from controller.admission.reoptimise import stands
from controller.admission.reservations import Overbooked, Reservations
from controller.paths.compute import Path
from controller.paths.policies import Policy
from controller.planned import PlannedLink, PlannedNetwork, PlannedNode
from controller.view import Direction, Link, NetworkView, Node


class Unknown(ValueError):
    """Nodes, links or risk groups that the network has not got; the message names them."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What fails together."""

    nodes: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    risk_groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Kept:
    """A demand and the paths that it has."""

    demand: Demand
    paths: tuple[Path, ...]


class Fate(StrEnum):
    """What would become of a demand that is affected."""

    LOST = "lost"
    """None of its paths would carry, and none would be found."""
    REROUTED = "rerouted"
    """None would carry until others are installed, which are there."""
    WEAKENED = "weakened"
    """It would go on at once, with less than its class demands: no backup, or a rate or pool that does not suffice."""
    PROTECTED = "protected"
    """It would go on at once, and paths are there that give it again all that its class demands."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What would become of one demand."""

    kept: Kept
    fate: Fate
    paths: tuple[Path, ...]
    """Those that it would have in the end."""
    refusal: Refusal | None = None
    """Why not all that its class demands."""


def failed(view: NetworkView, failure: Failure) -> NetworkView:
    """The view after a failure: links are down, those of nodes that fail among them.

    Raises:
        Unknown: something is not in the view.
    """
    unknown = sorted(
        [
            *failure.nodes.difference(view.topology.node_number),
            *failure.links.difference(view.topology.link_number),
            *failure.risk_groups.difference(*(link.risk_groups for link in view.links)),
        ]
    )
    if unknown:
        raise Unknown(f"there is no {', '.join(unknown)}")
    return view.changed(
        replace(link, up=False)
        for link in view.links
        if link.id in failure.links
        or not failure.nodes.isdisjoint((link.a, link.b))
        or not failure.risk_groups.isdisjoint(link.risk_groups)
    )


def as_planned(view: NetworkView, planned: PlannedNetwork) -> NetworkView:
    """The view if another plan were in force.

    What is there stays as it is believed to be, within the new plan; what is new is taken to be up, with full pools
    and the rate that is planned. Protections that a plan adds to a link that is there count when its ends offer them.
    """
    quarantined = {view.nodes[number].id for number in view.quarantined}
    present = {link.id: link for link in view.links}
    return NetworkView(
        tuple(Node(node.id, node.access, node.jurisdiction, node.id in quarantined) for node in planned.nodes),
        tuple(_as_planned(present.get(link.id), link) for link in planned.links),
        view.version,
    )


def _as_planned(present: Link | None, plan: PlannedLink) -> Link:
    if present is None or {present.a, present.b} != {plan.a, plan.b}:
        full = Direction(plan.rate, plan.capacity, plan.capacity)
        present = Link(plan.id, plan.a, plan.b, plan.quantum, suites=plan.suites, ab=full, ba=full)
    ab, ba = (present.ab, present.ba) if present.a == plan.a else (present.ba, present.ab)
    return replace(
        present,
        a=plan.a,
        b=plan.b,
        quantum=present.quantum and plan.quantum,
        suites=present.suites & plan.suites,
        risk_groups=plan.risk_groups,
        km=plan.km,
        ab=ab,
        ba=ba,
    )


def judge(
    before: NetworkView,
    after: NetworkView,
    reservations: Reservations,
    demands: Sequence[Kept],
    now: float,
    policy: Policy = Policy.RESIDUAL,
) -> Iterator[Outcome]:
    """What would become of the demands that are affected: those with a path that stands before and not after.

    They are fitted in anew, by the precedence of their classes and then in the order given; what all others were
    promised stays theirs.

    Args:
        before: the network as it is.
        after: as it would be.
        reservations: what is promised; not changed.
        demands: those that have paths, the oldest first.
        now: seconds, by the clock of the reservations.
        policy: by which paths are chosen.
    """
    affected = [one for one in demands if _is_affected(before, after, one)]
    moving = {one.demand.id for one in affected}
    trial = Reservations(lease for lease in reservations.leases if lease.demand not in moving)
    view = trial.onto(after)
    for one in sorted(affected, key=lambda one: -CLASSES[one.demand.service_class].precedence):
        left = _standing(after, one)
        shares = CLASSES[one.demand.service_class].shares > 1
        carries = len(left) == len(one.paths) if shares else bool(left)
        answer = admit(view, trial, one.demand, now, policy)
        if not isinstance(answer, Refusal) and answer.link_rate:
            lease = answer.lease(one.demand.id, inf)
            try:
                trial.reserve(view, lease)
            except Overbooked:
                answer = Refusal(Reason.RATE)
            else:
                view = trial.onto(view, (link for link, _ in lease.hops))
        if isinstance(answer, Refusal):
            yield Outcome(one, Fate.WEAKENED if carries else Fate.LOST, left if carries else (), answer)
        else:
            yield Outcome(one, Fate.PROTECTED if carries else Fate.REROUTED, answer.paths)


def broken(view: NetworkView, demands: Sequence[Kept]) -> int:
    """How many demands have no path that works."""
    return sum(not _standing(view, one) for one in demands)


def _is_affected(before: NetworkView, after: NetworkView, one: Kept) -> bool:
    ends = one.demand.source, one.demand.target
    if any(_is_access(before, end) and not _is_access(after, end) for end in ends):
        return True
    return len(_standing(after, one)) < len(_standing(before, one))


def _standing(view: NetworkView, one: Kept) -> tuple[Path, ...]:
    """The paths of a demand that work, and that its class and its own constraints allow."""
    if not (_is_access(view, one.demand.source) and _is_access(view, one.demand.target)):
        return ()
    constraints = CLASSES[one.demand.service_class].constraints(one.demand.rate, one.demand.constraints)
    return tuple(path for path in one.paths if stands(view, path, constraints))


def _is_access(view: NetworkView, identity: str) -> bool:
    number = view.topology.node_number.get(identity)
    return number is not None and view.nodes[number].access


def islands(view: NetworkView, without: frozenset[str] = frozenset()) -> tuple[tuple[str, ...], ...]:
    """Access nodes that reach one another over links that are up, where not all do; the largest group first.

    Args:
        view: the network.
        without: nodes that failed: they are in no group.
    """
    barred = {view.topology.node_number[identity] for identity in without} | set(view.quarantined)
    seen = set(barred)
    groups = []
    for first in range(len(view.nodes)):
        if first in seen:
            continue
        seen.add(first)
        group = [first]
        for node in group:
            for neighbour, arc in view.topology.arcs_from[node]:
                if neighbour not in seen and view.links[arc >> 1].up:
                    seen.add(neighbour)
                    group.append(neighbour)
        access = tuple(view.nodes[number].id for number in sorted(group) if view.nodes[number].access)
        if access:
            groups.append(access)
    return tuple(sorted(groups, key=len, reverse=True)) if len(groups) > 1 else ()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference of two plans."""

    what: str
    """``node`` or ``link``."""
    id: str
    kind: str
    """``added``, ``removed`` or ``changed``."""
    fields: tuple[tuple[str, object, object], ...] = ()
    """Of what changed: name, before, after."""


def changes(before: PlannedNetwork, after: PlannedNetwork) -> Iterator[Change]:
    """What differs between two plans: first what goes, then what comes, then what changes."""
    for kind in ("removed", "added", "changed"):
        yield from _changes("node", kind, before.nodes, after.nodes)
        yield from _changes("link", kind, before.links, after.links)


def _changes(
    what: str, kind: str, before: Sequence[PlannedNode | PlannedLink], after: Sequence[PlannedNode | PlannedLink]
) -> Iterator[Change]:
    old, new = {one.id: one for one in before}, {one.id: one for one in after}
    match kind:
        case "removed":
            yield from (Change(what, identity, kind) for identity in old if identity not in new)
        case "added":
            yield from (Change(what, identity, kind) for identity in new if identity not in old)
        case _:
            for identity in old:
                one, other = old[identity], new.get(identity)
                if other is not None and one != other:
                    pairs = [
                        (field.name, getattr(one, field.name), getattr(other, field.name)) for field in fields(one)
                    ]
                    yield Change(what, identity, kind, tuple(pair for pair in pairs if pair[1] != pair[2]))


def fates(outcomes: Sequence[Outcome]) -> Counter[Fate]:
    """How many demands meet each fate."""
    return Counter(outcome.fate for outcome in outcomes)
