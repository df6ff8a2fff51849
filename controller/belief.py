"""What is believed of one link: the less of what its two ends say, within bounds of the plan.

Whatever one end says, true or false, what is believed is never more than what the other end says. Where they say
different things, or things that cannot be, this is told as a `Disagreement`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite

from controller.facts import LinkFacts, PoolFacts
from controller.planned import PlannedLink

BOUND = 2.0
"""More than so many times the planned rate or capacity is not believed."""

RATES_DIFFER = 2.0
"""Rates of two ends that differ by more than this factor disagree; below, it is when they were measured."""

RATE_NOISE = 64.0
"""Bits per second below which rates are not compared: counting single blocks of key."""

LONGEST_LATENCY_US = 10e6
KM_PER_SECOND = 204_000.0
"""Light in fibre."""


class Kind(StrEnum):
    """What is not as it should be."""

    SILENT = "silent"
    """A planned node tells nothing, or nothing fresh; said by neighbours: that the link to it is up all the same."""
    IMPOSTOR = "impostor"
    """A node calls itself by another name than its certificate does; nothing that it says is believed."""
    MISSING = "missing"
    """Neither end knows of a planned link."""
    ONE_SIDED = "one-sided"
    """One end reports the link, the other denies it."""
    UNPLANNED = "unplanned"
    """A node or link is reported that is not planned."""
    NEIGHBOUR = "neighbour"
    """A planned link's id is reported between other nodes."""
    ID = "id"
    """An end calls the link by another id."""
    SUITE = "suite"
    """The ends use different protections, or one that is not allowed."""
    ENABLED = "enabled"
    UP = "up"
    QUANTUM = "quantum"
    """Whether there are QKD modules."""
    RATE = "rate"
    NONSENSE = "nonsense"
    """A figure that cannot be: negative, no number, an error ratio above 1."""
    ABSURD = "absurd"
    """A figure far above what was planned."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Something that is not as planned, or not the same at both ends."""

    kind: Kind
    subject: str
    """Id of the link or node."""
    said: tuple[tuple[str, str], ...] = ()
    """Who says what: node ids, ``plan``, or ``most`` for the bound of a figure."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What is believed of one direction at one moment, before smoothing."""

    rate: float = 0.0
    """Bits per second."""
    pool: float = 0.0
    """For payload, bits."""
    capacity: float = 0.0
    """Bits."""


@dataclass(frozen=True, slots=True)
class Belief:
    """What is believed of a link at one moment. By itself: nothing, as of a link whose end is silent."""

    up: bool = False
    quantum: bool = False
    suites: frozenset[str] = frozenset()
    latency_s: float = 0.0
    """One way."""
    qber: float | None = None
    """The worse of both ends'."""
    ab: Flow = Flow()
    ba: Flow = Flow()


def propagation(plan: PlannedLink) -> float:
    """Seconds that light needs."""
    return plan.km / KM_PER_SECOND


def believe(plan: PlannedLink, a: LinkFacts, b: LinkFacts) -> tuple[Belief, list[Disagreement]]:
    """Weigh what the two ends of a planned link say.

    Args:
        plan: the link.
        a: facts of its end a, about its link to b; fresh.
        b: facts of its end b.
    """
    found = [*_differences(plan, a, b)]
    ab = _flow(plan, (plan.a, a, a.outgoing), (plan.b, b, b.incoming), found)
    ba = _flow(plan, (plan.b, b, b.outgoing), (plan.a, a, a.incoming), found)
    round_trips = [
        _figure(plan, node, "latency", end.latency_us, LONGEST_LATENCY_US, found, Kind.NONSENSE)
        for node, end in _ends(plan, a, b)
    ]
    ratios = [
        _figure(plan, node, "qber", end.qber, 1.0, found, Kind.NONSENSE)
        for node, end in _ends(plan, a, b)
        if end.qber is not None
    ]
    belief = Belief(
        up=a.up and b.up and a.enabled and b.enabled and a.id == b.id == plan.id,
        quantum=plan.quantum and a.quantum and b.quantum,
        suites=plan.suites & a.suites & b.suites,
        latency_s=max(propagation(plan), *(value / 2e6 for value in round_trips)),
        qber=max(ratios, default=None),
        ab=ab,
        ba=ba,
    )
    return belief, list(dict.fromkeys(found))


def _ends(plan: PlannedLink, a: LinkFacts, b: LinkFacts) -> tuple[tuple[str, LinkFacts], ...]:
    return (plan.a, a), (plan.b, b)


def _differences(plan: PlannedLink, a: LinkFacts, b: LinkFacts) -> Iterator[Disagreement]:
    def told(kind: Kind, first: object, second: object, planned: object = None) -> Disagreement:
        said = [(plan.a, str(first)), (plan.b, str(second))]
        return Disagreement(kind, plan.id, (*said, *([("plan", str(planned))] if planned is not None else [])))

    if not a.id == b.id == plan.id:
        yield told(Kind.ID, a.id, b.id, plan.id)
    if a.enabled != b.enabled:
        yield told(Kind.ENABLED, a.enabled, b.enabled)
    if a.up != b.up:
        yield told(Kind.UP, a.up, b.up)
    if not a.quantum == b.quantum == plan.quantum:
        yield told(Kind.QUANTUM, a.quantum, b.quantum, plan.quantum)
    if a.up and b.up and (a.suite != b.suite or a.suite not in plan.suites):
        yield told(Kind.SUITE, a.suite, b.suite, " ".join(sorted(plan.suites)))
    low, high = sorted((a.rate, b.rate))
    if 0 <= RATES_DIFFER * low < high < inf and high > RATE_NOISE:
        yield told(Kind.RATE, a.rate, b.rate)


def _flow(
    plan: PlannedLink,
    sender: tuple[str, LinkFacts, PoolFacts | None],
    receiver: tuple[str, LinkFacts, PoolFacts | None],
    found: list[Disagreement],
) -> Flow:
    """The less of both ends' words on one direction."""
    rates, pools, capacities = [], [], []
    most = BOUND * plan.capacity
    for node, facts, pool in (sender, receiver):
        rates.append(_figure(plan, node, "rate", facts.rate, BOUND * plan.rate, found))
        told = pool or PoolFacts()
        available = _figure(plan, node, "available", 8 * told.available, most, found)
        # A reserve has no bound of its own: one that cannot be leaves nothing for payload.
        reserve = _figure(plan, node, "reserve", 8 * told.reserve, most, found)
        sound = isfinite(told.reserve) and told.reserve >= 0
        pools.append(max(0.0, available - reserve) if sound else 0.0)
        capacities.append(_figure(plan, node, "capacity", 8 * told.capacity, most, found))
    capacity = min(capacities)
    return Flow(min(rates), min(*pools, capacity), capacity)


def _figure(
    plan: PlannedLink,
    node: str,
    name: str,
    value: float | None,
    most: float,
    found: list[Disagreement],
    above: Kind = Kind.ABSURD,
) -> float:
    """A figure within its bounds; 0 for one that cannot be."""
    if value is None:
        return 0.0
    if not value >= 0:
        found.append(Disagreement(Kind.NONSENSE, plan.id, ((node, f"{name} {value:g}"),)))
        return 0.0
    if value > most:
        found.append(Disagreement(above, plan.id, ((node, f"{name} {value:g}"), ("most", f"{most:g}"))))
        return most
    return float(value)
