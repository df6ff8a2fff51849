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

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from math import expm1

from controller.belief import Belief, Disagreement, Flow, Kind, believe, propagation
from controller.facts import FRESH, LinkFacts, NodeReport
from controller.planned import PlannedLink, PlannedNetwork
from controller.view import Direction, Link, NetworkView, Node

RATE_SETTLES = 10.0
POOL_SETTLES = 5.0
"""Time constants of the means, seconds."""


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

    def towards(self, flow: Flow, elapsed: float) -> Estimate:
        """The means after a time during which a flow was believed."""
        return Estimate(
            self.rate - (flow.rate - self.rate) * expm1(-elapsed / RATE_SETTLES),
            self.pool - (flow.pool - self.pool) * expm1(-elapsed / POOL_SETTLES),
        )


NOTHING = Belief()


@dataclass(frozen=True, slots=True)
class LinkFinding:
    """What was discovered of one planned link."""

    state: LinkState
    belief: Belief = NOTHING
    disagreements: tuple[Disagreement, ...] = ()
    means: tuple[Estimate, Estimate] | None = None
    """Of a to b and of b to a; none until the link was found for the first time."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """The network as it is believed to be at one moment."""

    planned: PlannedNetwork
    at: float
    view: NetworkView
    links: Mapping[str, LinkFinding]
    nodes: tuple[Disagreement, ...] = field(default=())
    """What is wrong with nodes, and links that no plan knows."""

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
    reserved: Mapping[tuple[str, str], int] | None = None,
) -> Discovery:
    """Compare what was reported with the plan.

    Args:
        planned: the network.
        reports: by the service id in the certificate of who reported.
        now: seconds, by the clock of the reports' times.
        before: the discovery that this one follows; its means go on, and its view is the one that changes.
        quarantined: nodes that may be in no path.
        reserved: bits per second promised, by link and the node that sends.
    """
    elapsed = max(0.0, now - before.at) if before else 0.0
    known = before.links if before else {}
    promised = reserved or {}
    found = {link.id: _find(link, reports, now, known.get(link.id), elapsed) for link in planned.links}
    links = [_link(link, found[link.id], promised) for link in planned.links]
    nodes = [
        Node(node.id, access=node.access, jurisdiction=node.jurisdiction, quarantined=node.id in quarantined)
        for node in planned.nodes
    ]
    return Discovery(planned, now, _view(nodes, links, before), found, (*_nodes(planned, reports, now),))


def trusted(report: NodeReport | None, now: float) -> bool:
    """Whether a node tells of itself, afresh and by its own name."""
    return report is not None and now - report.at <= FRESH and report.service_id in ("", report.node)


def _find(
    plan: PlannedLink, reports: Mapping[str, NodeReport], now: float, before: LinkFinding | None, elapsed: float
) -> LinkFinding:
    state, belief, disagreements = _weigh(plan, reports.get(plan.a), reports.get(plan.b), now)
    means = before.means if before else None
    flows = belief.ab, belief.ba
    if means is not None:
        means = means[0].towards(flows[0], elapsed), means[1].towards(flows[1], elapsed)
    elif state in (LinkState.FOUND, LinkState.DISAGREEING):
        means = Estimate(flows[0].rate, flows[0].pool), Estimate(flows[1].rate, flows[1].pool)
    return LinkFinding(state, belief, disagreements, means)


def _weigh(
    plan: PlannedLink, a: NodeReport | None, b: NodeReport | None, now: float
) -> tuple[LinkState, Belief, tuple[Disagreement, ...]]:
    nothing = Belief(latency_s=propagation(plan))
    if a is None or b is None or not (trusted(a, now) and trusted(b, now)):
        return LinkState.UNKNOWN, nothing, ()
    first, second = a.links.get(plan.b), b.links.get(plan.a)
    if any(one is not None and not now - one.at <= FRESH for one in (first, second)):
        return LinkState.UNKNOWN, nothing, ()
    if first is None and second is None:
        return LinkState.MISSING, nothing, (Disagreement(Kind.MISSING, plan.id),)
    if first is None or second is None:
        who, what = (plan.b, second) if second else (plan.a, first)
        assert what is not None
        said = (who, f"link {what.facts.id} to {what.facts.neighbour}")
        return LinkState.ONE_SIDED, nothing, (Disagreement(Kind.ONE_SIDED, plan.id, (said,)),)
    belief, disagreements = believe(plan, first.facts, second.facts)
    return LinkState.DISAGREEING if disagreements else LinkState.FOUND, belief, tuple(disagreements)


def _link(plan: PlannedLink, finding: LinkFinding, reserved: Mapping[tuple[str, str], int]) -> Link:
    belief, means = finding.belief, finding.means or (Estimate(0, 0), Estimate(0, 0))

    def direction(flow: Flow, mean: Estimate, sender: str) -> Direction:
        return Direction(
            rate=int(mean.rate),
            pool=int(min(flow.pool, mean.pool)),
            capacity=int(flow.capacity),
            reserved=reserved.get((plan.id, sender), 0),
        )

    ab, ba = direction(belief.ab, means[0], plan.a), direction(belief.ba, means[1], plan.b)
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


def _view(nodes: list[Node], links: list[Link], before: Discovery | None) -> NetworkView:
    """The next view; it shares with the last one what stayed."""
    if before is None:
        return NetworkView(tuple(nodes), tuple(links), 1)
    old = before.view
    if [(link.id, link.a, link.b) for link in links] != [(link.id, link.a, link.b) for link in old.links] or [
        node.id for node in nodes
    ] != [node.id for node in old.nodes]:
        return NetworkView(tuple(nodes), tuple(links), old.version + 1)
    changed_links = [new for new, was in zip(links, old.links, strict=True) if new != was]
    changed_nodes = [new for new, was in zip(nodes, old.nodes, strict=True) if new != was]
    return old.changed(changed_links, changed_nodes) if changed_links or changed_nodes else old


def _nodes(planned: PlannedNetwork, reports: Mapping[str, NodeReport], now: float) -> Iterator[Disagreement]:
    pairs = {frozenset((link.a, link.b)) for link in planned.links}
    ids = {link.id for link in planned.links}
    for node in planned.nodes:
        report = reports.get(node.id)
        if report is None or not now - report.at <= FRESH:
            yield Disagreement(Kind.SILENT, node.id, (*_hear(node.id, reports, now),))
    names = {node.id for node in planned.nodes}
    for report in reports.values():
        if report.node not in names:
            yield Disagreement(Kind.UNPLANNED, report.node)
        elif report.service_id not in ("", report.node):
            yield Disagreement(Kind.IMPOSTOR, report.node, ((report.node, report.service_id),))
        for neighbour, received in report.links.items():
            if now - received.at <= FRESH and frozenset((report.node, neighbour)) not in pairs:
                yield _stray(report.node, received.facts, ids)


def _hear(silent: str, reports: Mapping[str, NodeReport], now: float) -> Iterator[tuple[str, str]]:
    """The neighbours for which the link to a silent node is up: it is cut off from the controller alone."""
    for report in reports.values():
        received = report.links.get(silent)
        if received is not None and now - received.at <= FRESH and received.facts.up and trusted(report, now):
            yield report.node, "the link is up"


def _stray(node: str, facts: LinkFacts, planned: Set[str]) -> Disagreement:
    kind = Kind.NEIGHBOUR if facts.id in planned else Kind.UNPLANNED
    return Disagreement(kind, facts.id, ((node, f"neighbour {facts.neighbour}"),))
