"""Which of the statements that were recorded make whole paths: what an earlier leader installed goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from controller.admission.admit import Demand
from controller.admission.reservations import Lease
from controller.paths.compute import Path
from controller.promises import Promise
from controller.steering.conversation import Held
from controller.steering.detours import Detour
from controller.steering.ledger import Ledger
from controller.steering.planning import along
from controller.steering.routes import Generation, Lane, policed
from controller.view import NetworkView
from keyhaul.agents.statements import EntryStatement, PathStatement, StatedHop

Entries = Mapping[tuple[str, str, str], tuple[Held, EntryStatement]]
"""By node, previous hop and label."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where a hop leads, to where it is delivered."""

    nodes: tuple[str, ...]
    entries: tuple[tuple[str, Held, EntryStatement], ...]
    """Each with its node, from the near end on."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A path that statements make, from its start to where it delivers."""

    start: Held
    says: PathStatement
    way: Way
    detours: tuple[tuple[int, Way], ...]
    """That are whole, with the positions of the nodes that they leave from."""

    @property
    def held(self) -> list[tuple[str, Held]]:
        """Its entries, each with its node."""
        ways = (self.way, *(way for _, way in self.detours))
        return [(node, held) for way in ways for node, held, _ in way.entries]


def chains(source: str, statements: Iterable[tuple[str, Held]]) -> list[Chain]:
    """The whole paths that a demand's statements, each with its node, make; by rank, of each the latest."""
    entries: dict[tuple[str, str, str], tuple[Held, EntryStatement]] = {}
    starts: dict[int, tuple[Held, PathStatement]] = {}
    for node, held in sorted(statements, key=lambda one: one[1].serial):
        match held.say.says:
            case EntryStatement() as says:
                entries[node, says.previous, says.label] = held, says
            case PathStatement() as says if node == source:
                starts[says.rank] = held, says
            case _:
                pass
    latest = max((held.serial for held, _ in starts.values()), default=0)
    group = next((says.group for held, says in starts.values() if held.serial == latest), "")
    found = (_chain(source, *starts[rank], entries) for rank in sorted(starts) if starts[rank][1].group == group)
    return [chain for chain in found if chain is not None]


def _chain(source: str, start: Held, says: PathStatement, entries: Entries) -> Chain | None:
    way = _way(source, says.first, entries)
    if way is None or way.nodes[-1] != says.destination:
        return None
    detours = []
    for position, (node, _, entry) in enumerate(way.entries, 1):
        around = _way(node, entry.detour, entries) if entry.detour else None
        if around and around.nodes[-1] == says.destination and set(around.nodes).isdisjoint(way.nodes[:position]):
            detours.append((position, around))
    return Chain(start, says, way, tuple(detours))


def _way(source: str, first: StatedHop, entries: Entries) -> Way | None:
    """Follow a hop; None where an entry is missing, or a node is visited twice."""
    nodes = [source]
    passed: list[tuple[str, Held, EntryStatement]] = []
    hop: StatedHop | None = first
    while hop is not None:
        entry = entries.get((hop.neighbour, nodes[-1], hop.label))
        if entry is None or hop.neighbour in nodes:
            return None
        nodes.append(hop.neighbour)
        passed.append((hop.neighbour, *entry))
        hop = entry[1].next
    return Way(tuple(nodes), tuple(passed))


def resumed(ledger: Ledger, demand: Demand, statements: Iterable[tuple[str, Held]], now: float) -> Generation | None:
    """What an earlier leader installed of a demand, as far as it is whole; nothing is reserved for it yet."""
    view = ledger.view
    found = [
        (chain, path)
        for chain in chains(demand.source, statements)
        if (path := _path(view, chain.way.nodes)) is not None
    ]
    if not found or any(chain.says.shares not in (1, len(found)) for chain, _ in found):
        return None
    lanes = tuple(_lane(view, chain, path) for chain, path in found)
    return Generation(
        policed(along(ledger, demand, [path for _, path in found])),
        lanes,
        calm=bool(lanes[0].detours),
        starts=[chain.start.serial for chain, _ in found],
        since=now,
        ends=min(held.ends for chain, _ in found for held in (chain.start, *(held for _, held in chain.held))),
    )


def is_torn(generation: Generation, statements: Iterable[tuple[str, Held]]) -> bool:
    """Whether an entry of it names a detour that is not whole."""
    own = set(generation.entries)
    says = [held.say.says for node, held in statements if (node, held.serial) in own]
    whole = sum(len(lane.detours) for lane in generation.lanes)
    return whole < sum(isinstance(one, EntryStatement) and one.detour is not None for one in says)


def _lane(view: NetworkView, chain: Chain, path: Path) -> Lane:
    """A path that is in force, as it was laid."""
    around = [(position, _path(view, way.nodes)) for position, way in chain.detours]
    entries = [(node, held.serial) for node, held in chain.held]
    detours = tuple(Detour(position, way) for position, way in around if way is not None)
    return Lane(path, detours, chain.says.first, len(entries), entries)


def _path(view: NetworkView, nodes: tuple[str, ...]) -> Path | None:
    """The path over these nodes; None where the network has no such links any more."""
    topology = view.topology
    arcs = []
    for one, other in pairwise(nodes):
        tail, head = topology.node_number.get(one), topology.node_number.get(other)
        found = [arc for to, arc in topology.arcs_from[tail] if to == head] if tail is not None else []
        if not found:
            return None
        arcs.append(found[0])
    return Path(nodes, tuple(view.links[arc >> 1].id for arc in arcs), tuple(arcs), 0)


def demand_of(promise: Promise) -> Demand:
    """The demand of a promise."""
    return Demand(promise.id, promise.source, promise.target, promise.service_class, promise.rate)


def lease_of(promise: Promise, expires: float) -> Lease | None:
    """What is reserved for a demand until it is known what it has."""
    rate = max((hop.rate for path in promise.paths for hop in path), default=0)
    if not rate:
        return None
    hops = tuple(dict.fromkeys((hop.link, hop.sender) for path in promise.paths for hop in path))
    ends = frozenset((promise.source, promise.target))
    return Lease(promise.id, promise.id, promise.service_class, rate, hops, ends, expires)
