"""Paths as statements: fresh labels for every hop, the entries in the order in which they go in, and how they end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from controller.admission.admit import Admission, Demand, Limit
from controller.admission.classes import CLASSES
from controller.paths.compute import Path
from controller.promises import Hop, Promise
from keyhaul.agents.statements import EntryStatement, PathStatement, StatedHop
from keyhaul.config.services import CARRIER_RATE
from keyhaul.randomness import Source, identifier, label

LIFETIME = 900
"""Seconds for which a path is installed; the CKMS asks again at half of it."""

ENTRY_LIFETIME = 604_800
"""Seconds for which an entry is installed. It is withdrawn when no path leads to it any more; until then it must
outlive a path whose source cannot be reached, and which lives on because the source hears no controller."""


@dataclass(frozen=True, slots=True)
class Route:
    """One path as the statements that make it."""

    rank: int
    path: Path
    entries: tuple[tuple[str, EntryStatement], ...]
    """Node and what it is told, from the far end on."""
    start: PathStatement
    """What the node at the near end is told when all entries are in force."""


@dataclass(slots=True, eq=False)
class Generation:
    """The paths that a demand was given at one time; the next time it gets others, or the same under other labels."""

    admission: Admission
    lease: str | None
    """Of its reservation; none where its class reserves nothing, or where what it reserves was lost."""
    entries: list[tuple[str, int]] = field(default_factory=list)
    """Node and serial of each entry that may be in force."""
    starts: list[int] = field(default_factory=list)
    """Serials of its path statements, at the demand's source."""
    since: float = 0.0
    """When its paths came into force."""
    ends: float = 0.0
    """When the first of their statements ends unless renewed."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """By rank."""
        return self.admission.paths

    def serials(self, source: str) -> list[tuple[str, int]]:
        """Node and serial of all its statements."""
        return [*((source, serial) for serial in self.starts), *self.entries]


def policed(admission: Admission) -> Admission:
    """An admission with the limit that hops are to police: of a class that reserves nothing, none but the usual."""
    if CLASSES[admission.demand.service_class].reserves:
        return admission
    return replace(admission, limit=Limit(float(CARRIER_RATE), CARRIER_RATE))


def routes_of(admission: Admission, source: Source) -> tuple[Route, ...]:
    """Draw labels and write the statements of an admission's paths."""
    group = identifier(source)
    split = CLASSES[admission.demand.service_class].shares > 1
    return tuple(
        _route(admission, path, rank, group, (rank, len(admission.paths)) if split else (0, 1), source)
        for rank, path in enumerate(admission.paths)
    )


def _route(admission: Admission, path: Path, rank: int, group: str, share: tuple[int, int], source: Source) -> Route:
    demand, limit = admission.demand, admission.limit
    labels = [label(source) for _ in path.links]
    hops = [StatedHop(neighbour=node, label=name) for node, name in zip(path.nodes[1:], labels, strict=True)]
    entries = [
        (
            hop.neighbour,
            EntryStatement(
                label=hop.label,
                previous=path.nodes[position],
                next=hops[position + 1] if position + 1 < len(hops) else None,
                service_class=demand.service_class,
                rate=limit.rate,
                burst=limit.burst,
            ),
        )
        for position, hop in enumerate(hops)
    ]
    start = PathStatement(
        destination=demand.target,
        service_class=demand.service_class,
        group=group,
        rank=rank,
        share=share[0],
        shares=share[1],
        first=hops[0],
        rate=limit.rate,
        burst=limit.burst,
    )
    return Route(rank, path, tuple(reversed(entries)), start)


def promise_of(demand: Demand, *admissions: Admission) -> Promise:
    """What is recorded of a demand: the paths that it gets, and behind them those that it may still have."""
    return Promise(
        demand.id,
        demand.source,
        demand.target,
        demand.service_class,
        demand.rate,
        float(LIFETIME),
        tuple(
            tuple(Hop(link, sender, one.link_rate) for link, sender in zip(path.links, path.nodes[:-1], strict=True))
            for one in admissions
            for path in one.paths
        ),
    )
