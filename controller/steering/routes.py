"""Paths and their detours as statements: fresh labels for every hop, and which entry goes in after which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from controller.admission.admit import Admission, Demand, Limit
from controller.admission.classes import CLASSES
from controller.paths.compute import Path
from controller.promises import Hop, Promise
from controller.steering.detours import Detour
from keyhaul.agents.statements import EntryStatement, PathStatement, StatedHop
from keyhaul.config.services import CARRIER_RATE
from keyhaul.randomness import Source, identifier, label

LIFETIME = 900
"""Seconds for which a path is installed; the CKMS asks again at half of it."""

ENTRY_LIFETIME = 604_800
"""Seconds for which an entry is installed. It is withdrawn when no path leads to it any more; until then it must
outlive a path whose source cannot be reached, and which lives on because the source hears no controller."""


@dataclass(slots=True, eq=False)
class Lane:
    """A path as it is laid, with its detours: entries that lead nowhere else, and to which nothing else leads.

    It stays as it is when only another path of its demand is exchanged: then two generations have it in common.
    """

    path: Path
    detours: tuple[Detour, ...]
    first: StatedHop
    """Where it begins."""
    size: int
    """How many entries it has when it is whole."""
    entries: list[tuple[str, int]] = field(default_factory=list)
    """Node and serial of each that may be in force."""

    @property
    def ways(self) -> tuple[Path, ...]:
        """The path and its detours."""
        return (self.path, *(detour.path for detour in self.detours))

    def is_along(self, path: Path, around: Sequence[Detour] | None) -> bool:
        """Whether it is whole and leads along a path, with these detours, or with whichever."""
        same = around is None or [*map(_course, self.detours)] == [*map(_course, around)]
        return len(self.entries) == self.size and self.path.links == path.links and same


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of what is to be installed."""

    node: str
    says: EntryStatement
    rank: int
    """Of the lane that it is part of."""
    after: tuple[int, ...] = ()
    """Numbers of the steps that it leads to: they must be in force before."""


@dataclass(frozen=True, slots=True)
class Routes:
    """The paths of a demand as the statements that make them."""

    lanes: tuple[Lane, ...]
    """By rank."""
    steps: tuple[Step, ...]
    """Of lanes that are new."""
    starts: tuple[PathStatement, ...]
    """What the node at the near end is told when all entries are in force; by rank."""


@dataclass(slots=True, eq=False)
class Generation:
    """The paths that a demand was given at one time; the next time it gets others, or the same under other labels."""

    admission: Admission
    lanes: tuple[Lane, ...]
    """Its paths as they are laid, by rank."""
    calm: bool = False
    """Whether it has the detours that there were."""
    lease: str | None = None
    """Of its reservation; none where its class reserves nothing, or where what it reserves was lost."""
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

    @property
    def ways(self) -> tuple[Path, ...]:
        """Its paths and its detours."""
        return (*self.paths, *(way for lane in self.lanes for way in lane.ways[1:]))

    @property
    def crossed(self) -> frozenset[tuple[int, str]]:
        """Rank and node of all that is sent over it, or around what fails of it, may cross."""
        ways = ((rank, way) for rank, lane in enumerate(self.lanes) for way in lane.ways)
        return frozenset((rank, node) for rank, way in ways for node in way.nodes)

    @property
    def entries(self) -> list[tuple[str, int]]:
        """Node and serial of each entry that may be in force."""
        return [entry for lane in self.lanes for entry in lane.entries]

    def has(self, source: str, node: str, serial: int) -> bool:
        """Whether a statement is part of it, whose paths begin at `source`."""
        return (node, serial) in self.entries or (node == source and serial in self.starts)

    def lose(self, node: str, serial: int) -> None:
        """A node does not have a statement."""
        for lane in self.lanes:
            lane.entries = [one for one in lane.entries if one != (node, serial)]
        self.starts = [one for one in self.starts if one != serial]

    def beside(self, other: Generation | None) -> list[tuple[str, int]]:
        """Node and serial of each entry that another generation does not have too."""
        common = other.lanes if other else ()
        return [entry for lane in self.lanes if lane not in common for entry in lane.entries]


def policed(admission: Admission) -> Admission:
    """An admission with the limit that hops are to police: of a class that reserves nothing, none but the usual."""
    if CLASSES[admission.demand.service_class].reserves:
        return admission
    return replace(admission, limit=Limit(float(CARRIER_RATE), CARRIER_RATE))


def routes_of(admission: Admission, around: Sequence[Detour] | None, kept: Sequence[Lane], source: Source) -> Routes:
    """Draw labels and write the statements of an admission's paths.

    Args:
        admission: the paths.
        around: the detours of the first one; None: none, where it is new.
        kept: lanes that are in force and stay as they are where the admission has their paths.
        source: draws labels.
    """
    group = identifier(source)
    count = len(admission.paths)
    split = CLASSES[admission.demand.service_class].shares > 1
    lanes: list[Lane] = []
    steps: list[Step] = []
    for rank, path in enumerate(admission.paths):
        own = around if rank == 0 else None
        lane = next((lane for lane in kept if lane.is_along(path, own)), None)
        lanes.append(lane or _lane(steps, admission, path, rank, tuple(own or ()), source))
    starts = tuple(
        PathStatement(
            destination=admission.demand.target,
            service_class=admission.demand.service_class,
            group=group,
            rank=rank,
            share=rank if split else 0,
            shares=count if split else 1,
            first=lane.first,
            rate=admission.limit.rate,
            burst=admission.limit.burst,
        )
        for rank, lane in enumerate(lanes)
    )
    return Routes(tuple(lanes), tuple(steps), starts)


def _lane(
    steps: list[Step], admission: Admission, path: Path, rank: int, around: tuple[Detour, ...], source: Source
) -> Lane:
    """Add the steps of a path and of its detours; return the lane that they make."""
    before = len(steps)
    ready = {}
    for detour in around:
        ready[detour.position] = _lay_out(steps, admission, detour.path, rank, {}, source), len(steps) - 1
    first = _lay_out(steps, admission, path, rank, ready, source)
    return Lane(path, around, first, len(steps) - before)


def _course(detour: Detour) -> tuple[int, tuple[str, ...]]:
    return detour.position, detour.path.links


def _lay_out(
    steps: list[Step],
    admission: Admission,
    path: Path,
    rank: int,
    around: Mapping[int, tuple[StatedHop, int]],
    source: Source,
) -> StatedHop:
    """Add the steps of one way, from its far end on; return its first hop.

    Args:
        steps: what there is before.
        admission: whose it is.
        path: where it leads.
        rank: of its lane.
        around: by position of the node, the first hop of its detour and the step that puts that in force.
        source: draws labels.
    """
    hop: StatedHop | None = None
    for position in range(path.hops, 0, -1):
        detour, ready = around.get(position, (None, -1))
        says = EntryStatement(
            label=label(source),
            previous=path.nodes[position - 1],
            next=hop,
            detour=detour,
            service_class=admission.demand.service_class,
            rate=admission.limit.rate,
            burst=admission.limit.burst,
        )
        after = [len(steps) - 1] if hop is not None else []
        steps.append(Step(path.nodes[position], says, rank, (*after, *([ready] if detour else []))))
        hop = StatedHop(neighbour=path.nodes[position], label=says.label)
    assert hop is not None, "a path has a hop"
    return hop


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
