"""Admission: a demand gets its paths and what is reserved on them, or a refusal that says why and until when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from controller.admission.classes import CLASSES, ServiceClass
from controller.admission.diagnosis import Wanted, diagnose, most
from controller.admission.refusal import Reason, Refusal
from controller.admission.reservations import Lease, Reservations, hops_of
from controller.paths.compute import NoPath, Path, path_with_backup, paths_for_shares
from controller.paths.constraints import UNCONSTRAINED, Constraints
from controller.paths.diverse import Overlap
from controller.paths.policies import Policy
from controller.view import NetworkView

BURST_S = 2.0
"""Seconds of its rate that a demand may send at once."""
LEAST_BURST = 16_384
"""Bytes that each may send at once, so that a batch goes through at any rate."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Keys that are to be relayed from one access node to another."""

    id: str
    source: str
    """The CKMS that CN keys are handed in at."""
    target: str
    service_class: str
    rate: int
    """Payload, bits per second."""
    shares: int | None = None
    """Of class `split`: over how many paths; None: as its class says."""
    constraints: Constraints = UNCONSTRAINED
    """What is asked for beyond what its class demands."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What each hop lets through."""

    rate: float
    """Payload, bytes per second."""
    burst: int
    """Bytes at once."""


def limit_of(demand: Demand) -> Limit:
    """What each hop lets through of a demand."""
    return Limit(demand.rate / 8, max(LEAST_BURST, round(BURST_S * demand.rate / 8)))


@dataclass(frozen=True, slots=True)
class Admission:
    """The paths of a demand and what each hop polices; `lease` makes it a reservation."""

    demand: Demand
    paths: tuple[Path, ...]
    """The primary and its backup if there is one; of class `split` the paths of the shares."""
    shared: Overlap
    """What primary and backup share."""
    limit: Limit
    link_rate: int
    """What is reserved on each hop, bits per second."""

    @property
    def price(self) -> float:
        """Bits of link key that one bit of key costs while nothing fails."""
        service_class = CLASSES[self.demand.service_class]
        used = self.paths if service_class.shares > 1 else self.paths[:1]
        return max(service_class.expansion, 1.0) * sum(path.hops for path in used)

    def lease(self, identity: str, expires: float) -> Lease:
        """The reservation that the paths need, to be taken up by `Reservations.reserve`."""
        demand = self.demand
        ends = frozenset((demand.source, demand.target))
        return Lease(identity, demand.id, demand.service_class, self.link_rate, hops_of(self.paths), ends, expires)


def admit(
    view: NetworkView,
    reservations: Reservations,
    demand: Demand,
    now: float,
    policy: Policy = Policy.RESIDUAL,
    *,
    bare: bool = False,
) -> Admission | Refusal:
    """Find paths for a demand, as if it had no reservation yet. Nothing is reserved by that.

    Args:
        view: shows in each direction what is reserved (`Reservations.onto`).
        reservations: what is promised.
        demand: what is asked for.
        now: seconds.
        policy: by which paths are chosen.
        bare: be content with one path where the class demands a backup: for what is in force and lost its own.
    """
    service_class = CLASSES.get(demand.service_class)
    if service_class is None:
        return Refusal(Reason.UNKNOWN_CLASS)
    if demand.source == demand.target or not (_is_access(view, demand.source) and _is_access(view, demand.target)):
        return Refusal(Reason.UNKNOWN_NODE)
    view = reservations.onto(view, reservations.links_of(demand.id), without=demand.id)
    wanted = _wanted(demand, service_class, bare=bare)
    paths, shared = _chosen(view, wanted, policy)
    if paths:
        return Admission(demand, tuple(paths), shared, limit_of(demand), service_class.link_rate(demand.rate))
    refusal = diagnose(view, reservations, wanted, now)
    if refusal.least_rate is None:
        return refusal
    return replace(refusal, least_rate=service_class.payload(refusal.least_rate))


def possible(view: NetworkView, reservations: Reservations, demand: Demand) -> int:
    """The greatest rate (payload, bits per second) at which a demand would be admitted now; 0: at none."""
    view = reservations.onto(view, reservations.links_of(demand.id), without=demand.id)
    service_class = CLASSES[demand.service_class]
    return service_class.payload(most(view, _wanted(demand, service_class)))


def _wanted(demand: Demand, service_class: ServiceClass, *, bare: bool = False) -> Wanted:
    """The paths that a demand must have."""
    apart = service_class.shares > 1
    paths = max(service_class.shares, demand.shares or 0) if apart else 1 + (service_class.needs_backup and not bare)
    constraints = service_class.constraints(demand.rate, demand.constraints)
    return Wanted(demand.source, demand.target, constraints, paths, apart, demand.id)


def _is_access(view: NetworkView, identity: str) -> bool:
    number = view.topology.node_number.get(identity)
    return number is not None and view.nodes[number].access


def _chosen(view: NetworkView, wanted: Wanted, policy: Policy) -> tuple[Sequence[Path], Overlap]:
    """The paths and what they share; no paths where they do not suffice."""
    ends, constraints = (wanted.source, wanted.target), wanted.constraints
    try:
        if wanted.apart:
            return paths_for_shares(view, *ends, wanted.paths, constraints, policy), Overlap()
        pair = path_with_backup(view, *ends, constraints, policy)
    except NoPath:
        return (), Overlap()
    if pair.backup is not None:
        return (pair.primary, pair.backup), pair.shared
    return (() if wanted.paths > 1 else (pair.primary,)), pair.shared
