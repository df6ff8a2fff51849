"""Topology discovery: what both ends of each link report, compared with the planned network.

Pure: reports and the time in, a view and what disagrees out. A link is usable where both ends tell of it afresh and
agree that it is the same link; what a view says of it is the less of both, smoothed:

- *rates* are exponentially weighted means with a time constant of `RATE_SETTLES`, because QKD modules yield bits in
  bursts;
- *pools* are the less of what is there now and such a mean with `POOL_SETTLES`: a pool that drains is believed at
  once, one that fills slowly.

A link that is not usable counts as 0 in both means, so that a node gains nothing by falling silent and coming back,
and a link that returns is trusted little by little. All of it is monotone in what each end reports, so that whatever
one end says can only lower what the other end's reports alone would make believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from math import expm1

from controller.belief import Belief, Disagreement, Flow, Kind, believe, propagation
from controller.facts import LinkFacts, NodeReport, Received
from controller.planned import PlannedLink, PlannedNetwork, PlannedNode
from controller.reporters import Places, Wrong, aged, amended, is_trusted, wrong
from controller.view import Direction, Link, NetworkView, Node

RATE_SETTLES = 10.0
POOL_SETTLES = 5.0
"""Time constants of the means, seconds."""

_NEAR = 1e-9
_ROUNDING = 1e-6


class LinkState(StrEnum):
    """What was discovered of a planned link."""

    FOUND = "found"
    """Both ends report it and agree."""
    DISAGREEING = "disagreeing"
    """Both ends report it, but not the same."""
    ONE_SIDED = "one-sided"
    """One end reports it, the other tells of its links and not of this one."""
    MISSING = "missing"
    """Both ends tell of their links, and not of this one."""
    UNKNOWN = "unknown"
    """An end is silent, or what it told of the link is too old."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The means of one direction, bits per second and bits."""

    rate: float
    pool: float

    def has_reached(self, flow: Flow) -> bool:
        """Whether nothing changes any more while the flow does not."""
        return abs(self.rate - flow.rate) <= _NEAR * flow.rate and abs(self.pool - flow.pool) <= _NEAR * flow.pool

    def towards(self, flow: Flow, elapsed: float) -> Estimate:
        """The means after a time during which a flow was believed."""
        return Estimate(
            self.rate - (flow.rate - self.rate) * expm1(-elapsed / RATE_SETTLES),
            self.pool - (flow.pool - self.pool) * expm1(-elapsed / POOL_SETTLES),
        )


NOTHING = Belief()
_NO_MEAN = Estimate(0, 0)
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class LinkFinding:
    """What was discovered of one planned link."""

    state: LinkState
    belief: Belief = NOTHING
    disagreements: tuple[Disagreement, ...] = ()
    means: tuple[Estimate, Estimate] | None = None
    """Of a to b and of b to a, at `at`; none until the link was found for the first time."""
    at: float = 0.0
    """When it was looked at."""
    until: float = _NEVER
    """When it is to be looked at again, though nobody tells anything: facts age, and means move."""
    told: tuple[LinkFacts, LinkFacts] | None = None
    """What its ends said, where it was found."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """The network as it is believed to be at one moment."""

    planned: PlannedNetwork
    at: float
    view: NetworkView
    links: Mapping[str, LinkFinding]
    """In the order of the plan."""
    nodes: tuple[Disagreement, ...] = ()
    """What is wrong with nodes, and links that no plan knows."""
    wrong: Wrong = field(default_factory=dict, repr=False, compare=False)
    """The same by node."""
    places: Places | None = field(default=None, repr=False, compare=False)
    """Of the plan."""

    @property
    def disagreements(self) -> tuple[Disagreement, ...]:
        """All that is not as it should be, nodes first."""
        return (*self.nodes, *(one for finding in self.links.values() for one in finding.disagreements))


def discover(
    planned: PlannedNetwork,
    reports: Mapping[str, NodeReport],
    now: float,
    before: Discovery | None = None,
    *,
    quarantined: Set[str] = frozenset(),
    changed: Set[str] | None = None,
) -> Discovery:
    """Compare what was reported with the plan.

    Args:
        planned: the network.
        reports: by the service id in the certificate of who reported.
        now: seconds, by the clock of the reports' times.
        before: the discovery that this one follows; its means go on, and its view is the one that changes.
        quarantined: nodes that may be in no path.
        changed: nodes of which there are other reports, or none any more, than for `before`; None: any of them. Links
            of the others are taken over, with means as old as `Places.look`, until what was told of them ages.
    """
    if before is None or before.places is None or before.planned is not planned:
        return _anew(planned, reports, now, before, quarantined)
    places, view, found = before.places, before.view, dict(before.links)
    if changed is None:
        touched = {*places.number, *reports, *before.wrong}
        due: Iterable[int] = range(len(planned.links))
    else:
        touched = {*changed, *aged(places, reports, before.at, now)}
        due = {number for node in touched for number in places.links_of.get(node, ())}
        due.update(number for number, finding in enumerate(before.links.values()) if finding.until <= now)
    links = []
    for number in due:
        plan = planned.links[number]
        finding = found[plan.id] = _find(plan, reports, now, found[plan.id], before.at, places.look)
        link = _link(plan, finding)
        if link != view.links[number]:
            links.append(link)
    moved = {view.nodes[number].id for number in view.quarantined} ^ quarantined
    nodes = [_node(planned.nodes[places.number[node]], quarantined) for node in moved if node in places.number]
    amended_wrong = amended(before.wrong, touched, places, reports, now)
    return Discovery(
        planned,
        now,
        view.changed(links, nodes) if links or nodes else view,
        found,
        before.nodes if amended_wrong is before.wrong else _all(amended_wrong),
        amended_wrong,
        places,
    )


def _anew(
    planned: PlannedNetwork,
    reports: Mapping[str, NodeReport],
    now: float,
    before: Discovery | None,
    quarantined: Set[str],
) -> Discovery:
    """The first discovery of a plan; links that were in the plan before keep their means."""
    places = Places(planned)
    known: Mapping[str, LinkFinding] = before.links if before else {}
    last = before.at if before else now
    found = {link.id: _find(link, reports, now, known.get(link.id), last, places.look) for link in planned.links}
    links = tuple(_link(link, found[link.id]) for link in planned.links)
    nodes = tuple(_node(node, quarantined) for node in planned.nodes)
    amiss = wrong(places, reports, now)
    version = before.view.version + 1 if before else 1
    return Discovery(planned, now, NetworkView(nodes, links, version), found, _all(amiss), amiss, places)


def _all(amiss: Wrong) -> tuple[Disagreement, ...]:
    return tuple(chain.from_iterable(amiss.values()))


def _node(plan: PlannedNode, quarantined: Set[str]) -> Node:
    return Node(plan.id, access=plan.access, jurisdiction=plan.jurisdiction, quarantined=plan.id in quarantined)


def _find(
    plan: PlannedLink,
    reports: Mapping[str, NodeReport],
    now: float,
    before: LinkFinding | None,
    last: float,
    look: float,
) -> LinkFinding:
    """Look at one link.

    Args:
        plan: the link.
        reports: of all nodes.
        now: seconds.
        before: what was found when it was looked at before.
        last: when the discovery before this one was made: up to then it was as it had been.
        look: seconds after which it is looked at again where its means move.
    """
    state, belief, disagreements, until, told = _weigh(plan, reports.get(plan.a), reports.get(plan.b), now, before)
    flows = belief.ab, belief.ba
    means = before.means if before else None
    if before is not None and means is not None:
        if last > before.at:
            was, idle = before.belief, last - before.at
            means = means[0].towards(was.ab, idle), means[1].towards(was.ba, idle)
        elapsed = max(0.0, now - max(last, before.at))
        means = means[0].towards(flows[0], elapsed), means[1].towards(flows[1], elapsed)
    elif state in (LinkState.FOUND, LinkState.DISAGREEING):
        means = Estimate(flows[0].rate, flows[0].pool), Estimate(flows[1].rate, flows[1].pool)
    if means is not None and not (means[0].has_reached(flows[0]) and means[1].has_reached(flows[1])):
        until = min(until, now + look)
    return LinkFinding(state, belief, disagreements, means, now, until, told)


_Weighed = tuple[LinkState, Belief, tuple[Disagreement, ...], float, tuple[LinkFacts, LinkFacts] | None]
"""With when it ages, and what it was made of."""


def _weigh(
    plan: PlannedLink, a: NodeReport | None, b: NodeReport | None, now: float, before: LinkFinding | None
) -> _Weighed:
    if a is None or b is None or not (is_trusted(a, now) and is_trusted(b, now)):
        return LinkState.UNKNOWN, Belief(latency_s=propagation(plan)), (), _NEVER, None
    first, second = a.links.get(plan.b), b.links.get(plan.a)
    left = min(_left(a, first, now), _left(b, second, now))
    if not left >= 0:
        return LinkState.UNKNOWN, Belief(latency_s=propagation(plan)), (), _NEVER, None
    until = now + left - _ROUNDING
    if first is None or second is None:
        nothing = Belief(latency_s=propagation(plan))
        if first is None and second is None:
            return LinkState.MISSING, nothing, (Disagreement(Kind.MISSING, plan.id),), until, None
        who, what = (plan.b, second) if second else (plan.a, first)
        assert what is not None
        said = (who, f"link {what.facts.id} to {what.facts.neighbour}")
        return LinkState.ONE_SIDED, nothing, (Disagreement(Kind.ONE_SIDED, plan.id, (said,)),), until, None
    told = first.facts, second.facts
    if before is not None and before.told == told:
        return before.state, before.belief, before.disagreements, until, told
    belief, disagreements = believe(plan, *told)
    state = LinkState.DISAGREEING if disagreements else LinkState.FOUND
    return state, belief, tuple(disagreements), until, told


def _left(report: NodeReport, end: Received | None, now: float) -> float:
    """Seconds for which what a node told of one end of a link holds yet; negative: it does not."""
    return report.left(report.at if end is None else min(report.at, end.at), now)


def _link(plan: PlannedLink, finding: LinkFinding) -> Link:
    belief, means = finding.belief, finding.means or (_NO_MEAN, _NO_MEAN)
    ab, ba = _direction(belief.ab, means[0]), _direction(belief.ba, means[1])
    return Link(
        plan.id,
        plan.a,
        plan.b,
        quantum=belief.quantum,
        up=belief.up,
        suites=belief.suites,
        risk_groups=plan.risk_groups,
        km=plan.km,
        latency_s=belief.latency_s,
        # A pair of QKD modules makes one stream of keys, which either direction may take.
        stream=min(ab.rate, ba.rate) if belief.quantum else None,
        ab=ab,
        ba=ba,
    )


def _direction(flow: Flow, mean: Estimate) -> Direction:
    pool = mean.pool if mean.pool < flow.pool else flow.pool
    return Direction(rate=int(mean.rate), pool=int(pool), capacity=int(flow.capacity))
