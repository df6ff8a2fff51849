"""Which of the statements that were recorded make whole paths: what an earlier leader installed goes on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from controller.admission.admit import Demand
from controller.admission.reservations import Lease
from controller.paths.compute import Path
from controller.promises import Promise
from controller.steering.conversation import Held
from controller.steering.ledger import Ledger
from controller.steering.planning import along
from controller.steering.routes import Generation, policed
from controller.view import NetworkView
from keyhaul.agents.statements import EntryStatement, PathStatement, StatedHop


@dataclass(frozen=True, slots=True)
class Chain:
    """A path that statements make, from its start to where it delivers."""

    start: int
    """Serial of the path statement."""
    says: PathStatement
    nodes: tuple[str, ...]
    entries: tuple[tuple[str, int], ...]
    """Node and serial, from the near end on."""
    ends: float
    """When the first of its statements is over."""


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


def _chain(
    source: str, start: Held, says: PathStatement, entries: dict[tuple[str, str, str], tuple[Held, EntryStatement]]
) -> Chain | None:
    nodes = [source]
    passed: list[tuple[str, Held]] = []
    hop: StatedHop | None = says.first
    while hop is not None:
        entry = entries.get((hop.neighbour, nodes[-1], hop.label))
        if entry is None or hop.neighbour in nodes:
            return None
        nodes.append(hop.neighbour)
        passed.append((hop.neighbour, entry[0]))
        hop = entry[1].next
    if nodes[-1] != says.destination:
        return None
    ends = min(held.ends for held in (start, *(held for _, held in passed)))
    return Chain(start.serial, says, tuple(nodes), tuple((node, held.serial) for node, held in passed), ends)


def resumed(ledger: Ledger, demand: Demand, statements: Iterable[tuple[str, Held]], now: float) -> Generation | None:
    """What an earlier leader installed of a demand, as far as it is whole; nothing is reserved for it yet."""
    found = [
        (chain, path) for chain in chains(demand.source, statements) if (path := _path(ledger.view, chain)) is not None
    ]
    if not found or any(chain.says.shares not in (1, len(found)) for chain, _ in found):
        return None
    return Generation(
        policed(along(ledger, demand, [path for _, path in found])),
        None,
        entries=[entry for chain, _ in found for entry in chain.entries],
        starts=[chain.start for chain, _ in found],
        since=now,
        ends=min(chain.ends for chain, _ in found),
    )


def _path(view: NetworkView, chain: Chain) -> Path | None:
    """The path of a chain; None where the network has no such links any more."""
    topology = view.topology
    arcs = []
    for one, other in pairwise(chain.nodes):
        tail, head = topology.node_number.get(one), topology.node_number.get(other)
        found = [arc for to, arc in topology.arcs_from[tail] if to == head] if tail is not None else []
        if not found:
            return None
        arcs.append(found[0])
    return Path(chain.nodes, tuple(view.links[arc >> 1].id for arc in arcs), tuple(arcs), 0)


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
