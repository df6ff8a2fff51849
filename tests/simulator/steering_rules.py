"""What must hold of everything that controllers say and carrier KMSs do about it: checked as it happens.

What a controller says must be right by what it knew at that moment: the view that its core had when it decided. What a
carrier KMS accepts must be right whatever anybody knew: signed by a controller, and later than all before. Of what is
in force at all of them together, nothing runs in a circle, and each path leads to its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from typing import TYPE_CHECKING, Any

from controller.admission.classes import CLASSES
from controller.admission.reservations import Lease, Reservations
from controller.steering.effects import Effect, Say, Tell
from controller.steering.ledger import PATIENCE
from controller.steering.steering import Steering
from controller.view import Link, NetworkView
from keyhaul.agents.signing import SignedStatement
from keyhaul.agents.statements import EntryStatement, PathStatement, StatedHop, Statement
from services.ckms.forwarding import Entry, ForwardingTable, Hop, Path
from services.ckms.held import Change, Kept
from services.ckms.installed import Installed, Verified
from tests.simulator.lies import LYING

if TYPE_CHECKING:
    from tests.simulator.carriers import CkmsProcess
    from tests.simulator.world import World

SLACK = 5.0
"""Seconds by which a controller may be late to end what is promised of rates that are gone."""

Number = tuple[int, int]
Place = tuple[str, str, str]
"""Node, previous hop and label of an entry."""

Way = tuple[str, ...]
"""Nodes in their order."""


@dataclass(frozen=True, slots=True)
class Said:
    """An entry, and the demand that it is for."""

    says: EntryStatement
    demand: str


class SteeringRules:
    """Looks on; see `instruments`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._signed: dict[bytes, float] = {}
        """What controllers signed, and when."""
        self._said: dict[Place, Said] = {}
        """Entries that controllers' cores decided on."""
        self._last: defaultdict[str, Number] = defaultdict(lambda: (0, 0))
        """The highest epoch and serial that each node ever accepted."""
        self._bodies: defaultdict[str, set[bytes]] = defaultdict(set)
        """What each node ever accepted."""
        self._considered: tuple[Change, list[Verified]] | None = None
        self._overbooked: dict[tuple[int, str], float] = {}
        self.accepted = 0
        """Statements, at all nodes."""

    # What controllers say

    def signed(self, statement: SignedStatement) -> None:
        """A controller signed something."""
        self._signed[statement.body] = self._world.loop.time()

    def decided(self, steering: Steering, effects: Iterable[Effect]) -> None:
        """A controller's core decided what to do."""
        for effect in effects:
            if isinstance(effect, Tell):
                self._told(steering, effect)
        self._patience(steering)

    def reserved(self, reservations: Reservations, view: NetworkView, lease: Lease) -> None:
        """A controller promised something: never more than there is.

        Of the other direction of a link, unless both share a stream, more may be promised for a while: its rate fell.
        """
        for identity, sender in lease.hops:
            link = view.link(identity)
            if (excess := _excess(reservations, link, sender)) > 0:
                self._finding("reserved", f"{identity}: {excess} bit/s more were promised than there are")

    def _told(self, steering: Steering, tell: Tell) -> None:
        paths: list[tuple[Say, PathStatement, list[Way]]] = []
        for say in tell.says:
            if isinstance(say.says, EntryStatement):
                self._said[tell.node, say.says.previous, say.says.label] = Said(say.says, say.demand)
            elif isinstance(say.says, PathStatement):
                paths.append((say, say.says, list(self._ways(say.says, (tell.node,), say.says.first))))
        for say, says, ways in paths:
            for way in ways:
                self._judge(steering, say, says, way)
        for (_, one, first), (_, other, second) in combinations(paths, 2):
            if one.shares > 1 and one.group == other.group and one.share != other.share:
                self._disjoint(first, second)

    def _ways(self, says: PathStatement, passed: Way, hop: StatedHop) -> Iterator[Way]:
        """The nodes of a path, and of each of its detours, as they were said."""
        if hop.neighbour in passed:
            self._finding("loop", f"a path of {passed[0]} was said that comes to {hop.neighbour} again: {passed}")
            return
        said = self._said.get((hop.neighbour, passed[-1], hop.label))
        if said is None:
            self._finding("complete", f"a path of {passed[0]} was said before its entry at {hop.neighbour}")
            return
        passed = (*passed, hop.neighbour)
        if said.says.service_class != says.service_class or said.says.rate != says.rate:
            self._finding("constrained", f"an entry at {hop.neighbour} is not for the class and rate of its path")
        if said.says.next is None and hop.neighbour != says.destination:
            self._finding("complete", f"a path of {passed[0]} to {says.destination} leads to {hop.neighbour}")
        if said.says.next is None:
            yield passed
        for onward in (said.says.next, said.says.detour):
            if onward is not None:
                yield from self._ways(says, passed, onward)

    def _judge(self, steering: Steering, say: Say, says: PathStatement, nodes: Way) -> None:
        """Whether a path keeps to the constraints of its class, in the view of who says it, and has its promise."""
        wanted = CLASSES[says.service_class or ""]
        view = steering.view
        for node in nodes:
            if view.node(node).quarantined:
                self._finding("constrained", f"a path of {nodes[0]} crosses {node}, which is in quarantine")
        promised = [lease for lease in steering.reservations.leases if lease.demand == say.demand]
        for one, other in pairwise(nodes):
            link = _between(view, one, other)
            if link is None:
                self._finding("constrained", f"a path of {nodes[0]} goes from {one} to {other} without a link")
                continue
            if link.up and wanted.quantum_only and not link.quantum:
                self._finding("constrained", f"a path of {nodes[0]} of class {wanted.name} takes {link.id} without QKD")
            if link.up and wanted.suites is not None and not wanted.suites & link.suites:
                self._finding("constrained", f"a path of {nodes[0]} of class {wanted.name} takes {link.id}")
            needed = wanted.link_rate(int(8 * says.rate))
            had = max((lease.rate for lease in promised if (link.id, one) in lease.hops), default=0)
            if had < needed:
                self._finding("reserved", f"{link.id} from {one} polices {needed} bit/s, {had} are promised")

    def _disjoint(self, first: Iterable[Way], second: Iterable[Way]) -> None:
        for one, other in product(first, second):
            if met := set(one[1:-1]) & set(other[1:-1]):
                self._finding("disjoint", f"two shares of {one[0]} for {one[-1]} meet at {sorted(met)}")

    def _patience(self, steering: Steering) -> None:
        """Nothing stays promised for long of rates that are gone."""
        now = self._world.loop.time()
        booked = {identity for lease in steering.reservations.leases for identity, _ in lease.hops}
        for link in steering.view.links:
            key = id(steering), link.id
            if link.id not in booked or not link.up or _excess(steering.reservations, link) <= 0:
                self._overbooked.pop(key, None)
            elif now - self._overbooked.setdefault(key, now) > PATIENCE + SLACK and steering.epoch is not None:
                self._finding("reserved", f"more is promised of {link.id} than there is, since {PATIENCE} s")
                self._overbooked[key] = now

    # What nodes accept

    def considered(self, change: Change, offered: Iterable[Verified]) -> None:
        """A node would accept something."""
        self._considered = change, list(offered)

    def taken(self, installed: Installed, change: Change) -> None:
        """What a node has in force is another."""
        if self._considered is not None and self._considered[0] is change:
            for statement, signed in self._considered[1]:
                self._accepted(installed, statement, signed)
        self._look(installed)

    def restored(self, installed: Installed, kept: Kept) -> None:
        """A node started with what it had kept."""
        node = installed._own
        self._last[node] = max(self._last[node], installed.high.number)
        self._bodies[node].update(one.signed.body for one in kept.statements)
        self._look(installed)

    def _accepted(self, installed: Installed, statement: Statement, signed: SignedStatement) -> None:
        node = installed._own
        self.accepted += 1
        if not self._may_follow(node, statement, signed):
            last = self._last[node]
            self._finding("fenced", f"{node} accepted {statement.number} after {last}")
        self._last[node] = max(self._last[node], statement.number)
        self._bodies[node].add(signed.body)
        self._genuine(node, signed, statement)

    def _may_follow(self, node: str, statement: Statement, signed: SignedStatement) -> bool:
        """Whether it is later than all before; where both sides forgot how far they were, whether it is new."""
        if statement.number > self._last[node]:
            return True
        both_forgot = self._world.database.harmed and self._world.processes[node].disk.harmed
        return bool(both_forgot) and signed.body not in self._bodies[node]

    def _genuine(self, node: str, signed: SignedStatement, statement: Statement) -> None:
        if signed.body not in self._signed:
            self._finding("signed", f"{node} has a statement that no controller signed")
        elif statement.node != node:
            self._finding("signed", f"{node} has a statement for {statement.node}")

    def _look(self, installed: Installed) -> None:
        node = installed._own
        for held in installed.held.values():
            self._genuine(node, held.signed, held.statement)
        table = installed._table
        rows: list[Entry | Path] = [*table.entries, *table.paths]
        stated = {row.serial for row in rows if row.serial is not None}
        if stated != set(installed.held):
            self._finding("signed", f"{node} forwards by what is no statement: {stated ^ set(installed.held)}")
        tables = {process.name.id: process.table for process in self._live()}
        tables[node] = table
        self._no_loop(tables)
        self._complete(tables)

    # What is in force at all nodes together

    def _live(self) -> Iterator[CkmsProcess]:
        return (one for one in self._world.carriers if one.life is not None and one.installed is not None)

    def _no_loop(self, tables: Mapping[str, ForwardingTable]) -> None:
        """Follow labels from every path and every entry, by every way that it may take."""
        for node, table in tables.items():
            for path in table.paths:
                self._follow(tables, (node,), path.first)
            for entry in table.entries:
                for hop in _onward(entry):
                    self._follow(tables, (entry.previous, node), hop)

    def _follow(self, tables: Mapping[str, ForwardingTable], passed: tuple[str, ...], hop: Hop) -> None:
        if hop.neighbour in passed:
            self._finding("loop", f"what comes to {passed[-1]} goes to {hop.neighbour}, where it was: {passed}")
            return
        table = tables.get(hop.neighbour)
        entry = table.lookup(hop.label, passed[-1]) if table is not None else None
        if entry is not None:
            for onward in _onward(entry):
                self._follow(tables, (*passed, hop.neighbour), onward)

    def _complete(self, tables: Mapping[str, ForwardingTable]) -> None:
        """Every path that a controller put in force has all its entries, as far as nodes run."""
        for source, table in tables.items():
            for path in table.paths:
                if path.serial is not None:
                    self._leads_to_its_end(tables, source, path)

    def _leads_to_its_end(self, tables: Mapping[str, ForwardingTable], source: str, path: Path) -> None:
        left = [(source, path.first)]
        while left:
            previous, hop = left.pop()
            table = tables.get(hop.neighbour)
            if table is None:
                continue
            entry = table.lookup(hop.label, previous)
            if entry is not None:
                left += [(hop.neighbour, onward) for onward in _onward(entry)]
            elif not self._may_be_missing(source, path, hop.neighbour):
                where = f"{hop.neighbour} has no entry for what comes from {previous}"
                self._finding("complete", f"the path of {source} to {path.destination}: {where}")

    def _may_be_missing(self, source: str, path: Path, node: str) -> bool:
        """Whether a node, or the controllers, lost what they had since the path was said."""
        if self._world.lies.told:
            return True
        installed = self._world.ckms(source).installed
        held = None if installed is None else installed.held.get(path.serial or 0)
        since = 0.0 if held is None else self._signed.get(held.signed.body, 0.0)
        harmed = (*self._world.database.harmed, *self._world.processes[node].disk.harmed)
        return any(at >= since for at in harmed)

    # After everything has settled

    def disagreements(self) -> list[tuple[str, str]]:
        """What is not as it should be although nothing goes wrong any more, by rule."""
        if not self._world.controllers:
            return []
        leader = self._world.leader()
        if leader is None or leader.service.term is None:
            return [("steered", "no controller leads")]
        steering = leader.service.term.steering
        problems: list[tuple[str, str]] = []
        for process in self._world.carriers:
            node = process.name.id
            if process.life is None or process.installed is None or not steering.is_ready(node):
                problems.append(("steered", f"{node} is not ready"))
            elif not (self._world.lies.told and node == LYING):
                problems += self._differs(node, process.installed)
        problems += self._crossing(steering)
        problems += self._policed(steering)
        return problems

    def _differs(self, node: str, installed: Installed) -> Iterator[tuple[str, str]]:
        rows = self._world.database.raw.execute("SELECT serial FROM statements WHERE node = ?", (node,)).fetchall()
        recorded = {row[0] for row in rows}
        there = {serial for serial, held in installed.held.items() if held.drained is None}
        if there - recorded:
            yield "steered", f"{node} has {len(there - recorded)} statements that no record tells of"
        if recorded - there:
            yield "steered", f"{node} lacks {len(recorded - there)} statements"

    def _crossing(self, steering: Steering) -> Iterator[tuple[str, str]]:
        for process in self._live():
            for says in _held(process, PathStatement):
                for way in self._ways(says, (process.name.id,), says.first):
                    crossed = [node for node in way if steering.view.node(node).quarantined]
                    if crossed:
                        yield "constrained", f"a path of {process.name.id} still crosses {crossed}, in quarantine"

    def _policed(self, steering: Steering) -> Iterator[tuple[str, str]]:
        """What nodes let through of the classes that reserve is promised."""
        sums: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        for process in self._live():
            node = process.name.id
            for says in _held(process, EntryStatement):
                said = self._said.get((node, says.previous, says.label))
                link = _between(steering.view, says.previous, node)
                if said is None or link is None:
                    continue
                rate = CLASSES[says.service_class or ""].link_rate(int(8 * says.rate))
                demands = sums[link.id, says.previous]
                demands[said.demand] = max(rate, demands.get(said.demand, 0))
        for hop, demands in sums.items():
            if sum(demands.values()) > steering.reservations.reserved(hop):
                yield "reserved", f"{hop} polices {demands}, {steering.reservations.reserved(hop)} is promised"

    def _finding(self, rule: str, text: str) -> None:
        self._world.oracle.finding(rule, text)


def _held(process: CkmsProcess, kind: type[Any]) -> Iterator[Any]:
    """What a node has in force of a kind, and does not drain."""
    if process.installed is not None:
        for held in process.installed.held.values():
            if held.drained is None and isinstance(held.statement.says, kind):
                yield held.statement.says


def _onward(entry: Entry) -> Iterator[Hop]:
    return (hop for hop in (entry.next, entry.detour) if hop is not None)


def _between(view: NetworkView, one: str, other: str) -> Link | None:
    return next((link for link in view.links if {link.a, link.b} == {one, other}), None)


def _excess(reservations: Reservations, link: Link, of: str | None = None) -> int:
    """By how much what is promised of a link, or of the direction from one of its ends, exceeds what there is; every
    demand counts once, with the most.
    """
    sums = []
    for sender, direction in ((link.a, link.ab), (link.b, link.ba)):
        most: dict[str, int] = {}
        for lease in reservations.leases:
            if (link.id, sender) in lease.hops:
                most[lease.demand] = max(lease.rate, most.get(lease.demand, 0))
        sums.append((sum(most.values()), direction.rate))
    over = max(
        promised - rate for end, (promised, rate) in zip((link.a, link.b), sums, strict=True) if of in (None, end)
    )
    return over if link.stream is None else max(over, sum(promised for promised, _ in sums) - link.stream)
