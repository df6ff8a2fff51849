"""What the controller keeps, put as messages; and what tools ask, put as the controller's own types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controller import whatif
from controller.admission.admit import Admission
from controller.admission.classes import CLASSES
from controller.admission.refusal import Refusal
from controller.admission.reservations import Reservations
from controller.belief import Disagreement, Kind
from controller.northbound.interface import DemandAsKept
from controller.paths.compute import Path
from controller.paths.constraints import Constraints
from controller.paths.explain import Candidate, Hop
from controller.state.events import Event
from controller.state.rollup import Key, Summary
from controller.topology import Discovery, LinkFinding
from controller.view import Direction, Link, NetworkView
from keyhaul.transport.messages import foresight as foreseen
from keyhaul.transport.messages import network as messages
from keyhaul.transport.messages.measured import PeriodFacts


def nodes(discovery: Discovery) -> Iterator[messages.NodeFacts]:
    """The planned nodes."""
    silent = silent_nodes(discovery)
    for planned, node in zip(discovery.planned.nodes, discovery.view.nodes, strict=True):
        yield messages.NodeFacts(
            id=node.id,
            place=planned.place,
            access=node.access,
            jurisdiction=node.jurisdiction,
            quarantined=node.quarantined,
            silent=node.id in silent,
        )


def silent_nodes(discovery: Discovery) -> frozenset[str]:
    """The planned nodes that tell nothing that is fresh and believed."""
    return frozenset(one.subject for one in discovery.nodes if one.kind in (Kind.SILENT, Kind.IMPOSTOR))


def link(link: Link, finding: LinkFinding, reservations: Reservations) -> messages.LinkFacts:
    """A planned link as it is believed to be."""
    return messages.LinkFacts(
        id=link.id,
        a=link.a,
        b=link.b,
        state=finding.state,
        up=link.up,
        quantum=link.quantum,
        suites=sorted(link.suites),
        risk_groups=sorted(link.risk_groups),
        km=link.km,
        latency_us=round(link.latency_s * 1e6, 1),
        qber=finding.belief.qber,
        directions=[
            _direction(link.id, link.a, link.ab, reservations),
            _direction(link.id, link.b, link.ba, reservations),
        ],
        disagreements=[disagreement(one) for one in finding.disagreements],
    )


def _direction(identity: str, sender: str, one: Direction, reservations: Reservations) -> messages.DirectionFacts:
    return messages.DirectionFacts(
        sender=sender,
        rate=one.rate,
        pool=one.pool,
        capacity=one.capacity,
        reserved=reservations.reserved((identity, sender)),
    )


def disagreement(one: Disagreement) -> messages.DisagreementFacts:
    """Something that is not as it should be."""
    return messages.DisagreementFacts(one.kind, one.subject, [messages.Said(who, what) for who, what in one.said])


def demand(kept: DemandAsKept, view: NetworkView) -> messages.DemandFacts:
    """A demand with its paths, as they are in a view."""
    return messages.DemandFacts(
        id=kept.demand.id,
        source=kept.demand.source,
        target=kept.demand.target,
        service_class=kept.demand.service_class,
        rate=kept.demand.rate,
        since_s=round(kept.since_s, 1),
        paths=[path(one.path, one.rank, one.state, _down(one.path, view)) for one in kept.paths],
        refusal=None if kept.refusal is None else refusal(kept.refusal),
    )


def path(path: Path, rank: int, state: str = "", down: Iterable[str] = ()) -> messages.PathFacts:
    """A path."""
    return messages.PathFacts(rank=rank, nodes=list(path.nodes), links=list(path.links), state=state, down=list(down))


def _down(path: Path, view: NetworkView) -> Iterator[str]:
    """The links of a path that may not be used now."""
    for link in path.links:
        if link not in view.topology.link_number or not view.link(link).up:
            yield link


def paths(several: Iterable[Path]) -> list[messages.PathFacts]:
    """Paths by rank."""
    return [path(one, rank) for rank, one in enumerate(several)]


def refusal(one: Refusal) -> messages.RefusalFacts:
    """Why a demand is not served."""
    return messages.RefusalFacts(one.why, one.earliest_s, one.paths_found)


def reservations(view: NetworkView, promised: Reservations) -> Iterator[messages.ReservationFacts]:
    """What is promised of the directions of links, in the order of the plan."""
    leases: dict[tuple[str, str], dict[str, messages.LeaseFacts]] = {}
    for lease in promised.leases:
        for hop in lease.hops if lease.rate else ():
            known = leases.setdefault(hop, {})
            rate = max(lease.rate, known[lease.demand].rate if lease.demand in known else 0)
            known[lease.demand] = messages.LeaseFacts(demand=lease.demand, service_class=lease.service_class, rate=rate)
    for one in view.links:
        for sender, direction in ((one.a, one.ab), (one.b, one.ba)):
            if (one.id, sender) in leases:
                yield messages.ReservationFacts(
                    link=one.id,
                    sender=sender,
                    rate=direction.rate,
                    reserved=promised.reserved((one.id, sender)),
                    leases=list(leases[one.id, sender].values()),
                )


def event(one: Event) -> messages.EventFacts:
    """Something that happened."""
    return messages.EventFacts(number=one.number, at=one.at, kind=one.kind, subject=one.subject, facts=dict(one.facts))


def period(key: Key, summary: Summary) -> PeriodFacts:
    """How one direction of a link was in a minute, hour or day."""
    return PeriodFacts(
        start=key.start,
        sender=key.sender,
        samples=summary.samples,
        availability=round(summary.availability, 6),
        rate=round(summary.rate, 1),
        rate_least=summary.rate_least,
        rate_most=summary.rate_most,
        pool=round(summary.pool, 1),
        pool_least=summary.pool_least,
        pool_most=summary.pool_most,
        latency_most_us=round(summary.latency_most * 1e6, 1),
        qber=summary.qber,
        qber_most=summary.qber_most if summary.qber_samples else None,
    )


def constraints(asked: foreseen.ConstraintFacts) -> Constraints:
    """What a path must keep to beyond what its class demands."""
    return Constraints(
        excluded_nodes=frozenset(asked.excluded_nodes),
        excluded_links=frozenset(asked.excluded_links),
        excluded_risk_groups=frozenset(asked.excluded_risk_groups),
        jurisdictions=None if asked.jurisdictions is None else frozenset(asked.jurisdictions),
        maximum_hops=asked.maximum_hops,
    )


def candidate(one: Candidate) -> foreseen.CandidateFacts:
    """A path that was looked at."""
    return foreseen.CandidateFacts(
        verdict=one.verdict,
        reason=one.reason,
        weight=one.weight,
        nodes=list(one.nodes),
        hops=[_hop(hop) for hop in one.hops],
    )


def _hop(one: Hop) -> foreseen.HopFacts:
    return foreseen.HopFacts(
        link=one.link,
        origin=one.origin,
        to=one.to,
        weight=one.weight,
        rate=one.rate,
        spare=one.spare,
        pool=one.pool,
        capacity=one.capacity,
        obstacle=one.obstacle or "",
    )


def shared(admission: Admission) -> list[str]:
    """What primary and backup share, by name."""
    if len(admission.paths) < 2 or CLASSES[admission.demand.service_class].shares > 1:
        return []
    overlap = admission.shared
    return [
        *(f"link {one}" for one in overlap.links),
        *(f"risk group {one}" for one in overlap.risk_groups),
        *(f"node {one}" for one in overlap.nodes),
    ]


def outcome(one: whatif.Outcome) -> foreseen.OutcomeFacts:
    """What would become of one demand."""
    asked = one.kept.demand
    return foreseen.OutcomeFacts(
        demand=asked.id,
        source=asked.source,
        target=asked.target,
        service_class=asked.service_class,
        rate=asked.rate,
        fate=one.fate,
        before=paths(one.kept.paths),
        after=paths(one.paths),
        refusal=None if one.refusal is None else refusal(one.refusal),
    )


def change(one: whatif.Change) -> foreseen.ChangeFacts:
    """One difference of two plans."""
    return foreseen.ChangeFacts(
        what=one.what,
        id=one.id,
        change=one.kind,
        fields={name: [_shown(before), _shown(after)] for name, before, after in one.fields},
    )


def _shown(value: object) -> str:
    return " ".join(sorted(value)) if isinstance(value, frozenset) else str(value)
