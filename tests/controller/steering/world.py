"""A network of CKMSs as far as statements go, and a driver of the steering core that may lose, delay and refuse.

The CKMSs are real ones in what they accept and hold (`services.ckms.installed`); signatures are left out.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

import msgspec

from controller.admission.admit import admit
from controller.admission.refusal import Refusal
from controller.belief import Disagreement, Kind
from controller.planned import PlannedNetwork
from controller.promises import Promise
from controller.steering.effects import (
    Confirm,
    Ended,
    Forget,
    InForce,
    Memory,
    Note,
    Read,
    Recorded,
    Remember,
    Tell,
)
from controller.steering.served import LONGEST_PAUSE, Served
from controller.steering.steering import Steering
from controller.topology import Discovery
from controller.view import Direction, Link, NetworkView, Node
from keyhaul.agents.signing import SignedStatement
from keyhaul.agents.statements import (
    Statement,
    StatementRefusal,
    StatementRefused,
    Withdrawal,
    encode,
)
from keyhaul.transport.messages.path import PathReply
from services.ckms.forwarding import Entry, ForwardingTable, Path
from services.ckms.installed import Installed

Hop = tuple[str, str]
"""A node and the label under which something comes in there."""

UNSIGNED = SignedStatement(b"", b"")


class Fate(StrEnum):
    """What becomes of something that is on its way to a node."""

    ANSWERED = "answered"
    LOST = "lost"
    """It never arrives."""
    UNANSWERED = "unanswered"
    """It takes effect, and nobody hears of it."""
    REFUSED = "refused"
    LATE = "late"
    """It takes effect long after it was given up."""


class Ckms:
    """What one CKMS accepts and holds."""

    def __init__(self, name: str, neighbours: Iterable[str]) -> None:
        self.name = name
        self.neighbours = tuple(neighbours)
        self.processes = 0
        self.wipe()

    def wipe(self) -> None:
        """Another process, and a new store."""
        self.table = ForwardingTable(self.name, self.neighbours, delivers=True)
        self.installed = Installed(self.name, "", [], self.table, hard_limit=604_800)
        self.restart()

    def restart(self) -> None:
        """Another process over the same store."""
        self.processes += 1
        self.installed.incarnation = f"{self.processes:016x}"

    def accept(self, statements: list[Statement], now: float) -> StatementRefusal | None:
        """Take statements, all or none; return why not."""
        try:
            self.installed.take(self.installed.consider([(one, UNSIGNED) for one in statements], now))
        except StatementRefused as refused:
            return refused.refusal
        self.installed.heard(now)
        return None

    def elapse(self, now: float) -> None:
        """End what is over."""
        if change := self.installed.elapse(now):
            self.installed.take(change)

    def in_force(self, now: float) -> list[InForce]:
        """All that it has, as its agent tells it: an entry that only drains has no number any more."""
        held = self.installed.held
        return [InForce(serial, held[serial].remaining(now)) for serial in held if serial in self.serials]

    @property
    def serials(self) -> set[int]:
        """Of what is in force and does not drain."""
        return {serial for serial, held in self.installed.held.items() if held.drained is None}

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those that start here."""
        return self.table.paths


@dataclass(slots=True)
class Underway:
    """An effect that has left."""

    effect: Tell | Read
    epoch: int
    serials: tuple[int, ...]


class World:
    """The network, the database, and the core."""

    def __init__(self, view: NetworkView, seed: int = 0) -> None:
        self.now = 1_000.0
        self.view = view
        draw = random.Random(seed)
        self.source = draw.randbytes
        neighbours: dict[str, set[str]] = {node.id: set() for node in view.nodes}
        for link in view.links:
            neighbours[link.a].add(link.b)
            neighbours[link.b].add(link.a)
        self.nodes = {name: Ckms(name, sorted(others)) for name, others in neighbours.items()}
        self.silent: dict[str, bool] = {}
        """Nodes that tell nothing, and whether their neighbours hear nothing of them either."""
        self.epoch = 0
        self.serial = 0
        self.core = Steering(self.source)
        self.underway: list[Underway] = []
        self.late: list[Underway] = []
        self.promises: dict[str, Promise] = {}
        self.crossed: defaultdict[tuple[str, str, str], set[tuple[int, str]]] = defaultdict(set)
        """Rank and node of all that was ever recorded as crossed, by source, target and class."""
        self.statements: dict[int, Recorded] = {}
        self.confirmed: set[int] = set()
        self.notes: list[Note] = []
        self.told: set[tuple[str, int, int]] = set()
        self.wiped = False
        """Whether a node ever lost its store: then a path in force may lead nowhere for a while."""

    # The controller

    def lead(self) -> None:
        """Another controller takes over."""
        self.epoch += 1
        self.core = Steering(self.source)
        self.late += self.underway
        self.underway = []
        self.core.led(self.epoch, Memory(tuple(self.promises.values()), tuple(self.statements.values())), self.now)
        self.see()
        for node in self.nodes.values():
            if node.name not in self.silent:
                self.core.appeared(node.name, node.installed.incarnation, self.now)
        self.carry()

    def see(self) -> None:
        """The core is shown the network."""
        down = self.silent.keys()
        links = [replace(link, up=link.up and down.isdisjoint((link.a, link.b))) for link in self.view.links]
        changed = [new for new, old in zip(links, self.view.links, strict=True) if new != old]
        shown = self.view.changed(changed) if changed else self.view
        nodes = tuple(Disagreement(Kind.SILENT, name, tuple(self._heard(name))) for name in self.silent)
        self.core.see(Discovery(PlannedNetwork((), ()), self.now, shown, {}, nodes), self.now)
        self.carry()

    def _heard(self, silent: str) -> Iterator[tuple[str, str]]:
        """What the neighbours of a silent node say of it that are not silent themselves."""
        for neighbour in self.nodes[silent].neighbours:
            if neighbour not in self.silent and not self.silent[silent]:
                yield neighbour, "the link is up"

    def wanted(
        self, source: str, target: str, service_class: str, rate: float = 10.0, failed: str | None = None
    ) -> PathReply:
        """A CKMS asks."""
        reply = self.core.wanted(source, target, service_class, rate, failed, self.now)
        self.carry()
        return reply

    def carry(self) -> None:
        """Carry out what the core decided."""
        while self.core.behind:
            self.core.go_on(self.now)
        for effect in self.core.effects():
            match effect:
                case Remember(promise, crossed):
                    self.promises[promise.id] = promise
                    self.crossed[promise.source, promise.target, promise.service_class] |= crossed
                case Ended(demand):
                    self.promises.pop(demand, None)
                case Confirm(serials):
                    self.confirmed.update(serials)
                case Forget(serials):
                    for serial in serials:
                        self.statements.pop(serial, None)
                case Note():
                    self.notes.append(effect)
                case Read(_, node):
                    self._leave(Underway(effect, self.epoch, ()), node)
                case Tell(_, node, _, says):
                    first = self.serial + 1
                    self.serial += len(says)
                    serials = tuple(range(first, self.serial + 1))
                    for serial, say in zip(serials, says, strict=True):
                        if not isinstance(say.says, Withdrawal):
                            self.statements[serial] = Recorded(serial, node, say.demand, say.rank, say.says)
                    self._leave(Underway(effect, self.epoch, serials), node)

    def _leave(self, one: Underway, node: str) -> None:
        assert all(other.effect.node != node for other in self.underway), "two things under way for a node"
        self.underway.append(one)

    def deliver(self, number: int, fate: Fate) -> None:
        """What is on its way meets its fate."""
        one = self.underway.pop(number % len(self.underway))
        if one.effect.node in self.silent and fate is not Fate.LATE:
            fate = Fate.LOST
        match one.effect:
            case Tell() as tell:
                self._deliver(one, tell, fate)
            case Read(reading, name):
                node = self.nodes[name]
                if fate is Fate.ANSWERED:
                    self.core.found(reading, node.installed.incarnation, node.in_force(self.now), self.now)
                else:
                    self.core.unread(reading, self.now)
        self.carry()

    def _deliver(self, one: Underway, tell: Tell, fate: Fate) -> None:
        if fate is Fate.REFUSED:
            self.core.refused(tell.sending, StatementRefusal.UNFIT, self.now, one.serials)
            return
        if fate is Fate.LATE:
            self.late.append(one)
        if fate in (Fate.LOST, Fate.LATE):
            self.core.unreachable(tell.sending, one.serials, self.now)
            return
        refusal = self.arrive(one)
        if fate is Fate.UNANSWERED:
            self.core.unreachable(tell.sending, one.serials, self.now)
        elif refusal is None:
            self.core.confirmed(tell.sending, one.serials, self.now)
        else:
            self.core.refused(tell.sending, refusal, self.now, one.serials)

    def arrive(self, one: Underway) -> StatementRefusal | None:
        """Statements reach their node."""
        tell = one.effect
        if not isinstance(tell, Tell):
            return None
        statements = [
            Statement(
                v=1,
                node=tell.node,
                incarnation=tell.incarnation,
                epoch=one.epoch,
                serial=serial,
                lifetime_s=say.lifetime_s,
                says=say.says,
            )
            for serial, say in zip(one.serials, tell.says, strict=True)
        ]
        assert all(msgspec.json.decode(encode(one), type=Statement) == one for one in statements), "not a statement"
        refusal = self.nodes[tell.node].accept(statements, self.now)
        if refusal is None:
            numbers = {(tell.node, statement.epoch, statement.serial) for statement in statements}
            assert not numbers & self.told, "a number twice"
            self.told |= numbers
        return refusal

    # The network

    def link(self, identity: str, **changes: object) -> None:
        """A link changes, and the core sees it."""
        self.view = self.view.changed([replace(self.view.link(identity), **changes)])  # type: ignore[arg-type]
        self.see()

    def quarantine(self, node: str, quarantined: bool) -> None:
        """A node is quarantined, or released."""
        self.view = self.view.changed(nodes=[replace(self.view.node(node), quarantined=quarantined)])
        self.see()

    def restart(self, name: str, *, wipe: bool = False) -> None:
        """A CKMS's process starts again."""
        node = self.nodes[name]
        if wipe:
            self.wiped = True
            node.wipe()
        else:
            node.restart()
        if name not in self.silent:
            self.core.appeared(name, node.installed.incarnation, self.now)
        self.carry()

    def hush(self, name: str, *, dead: bool = False) -> None:
        """A node is cut off from the controller, or dead: it tells nothing."""
        self.silent[name] = dead
        self.see()

    def speak(self, name: str) -> None:
        """It is back."""
        self.silent.pop(name, None)
        self.core.appeared(name, self.nodes[name].installed.incarnation, self.now)
        self.see()

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        for node in self.nodes.values():
            node.elapse(self.now)
        self.core.tick(self.now)
        self.carry()

    def settle(self, steps: int = 60) -> None:
        """Everything is reachable, and answered at once, until nothing more happens."""
        for name in sorted(self.silent):
            self.speak(name)
        for _ in range(steps):
            while self.underway:
                self.deliver(0, Fate.ANSWERED)
            self.wait(1.0)
            self.see()
        while self.underway:
            self.deliver(0, Fate.ANSWERED)

    # What must hold

    def follow(self, hop: Hop, *before: str) -> Iterator[list[str]]:
        """The nodes that a batch may visit which comes to a node under a label, as forwarding is now; the way without
        detours first.
        """
        name, label = hop
        assert name not in before, f"a loop: {before} {name}"
        entry = self.nodes[name].table.lookup(label, before[-1])
        if entry is None:
            yield [*before, name, "nowhere"]
        elif entry.next is None:
            yield [*before, name]
        else:
            for onward in (entry.next, entry.detour):
                if onward is not None:
                    yield from self.follow((onward.neighbour, onward.label), *before, name)

    def entries(self) -> list[tuple[str, Entry]]:
        """All of them, each with its node."""
        return [(node.name, entry) for node in self.nodes.values() for entry in node.table.entries]

    def check(self) -> None:
        """What holds at every step."""
        for name, entry in self.entries():
            list(self.follow((name, entry.label), entry.previous))
        for node in self.nodes.values():
            ways: dict[str, list[list[str]]] = {}
            for path in node.paths:
                held = node.installed.held[path.serial or 0]
                for number, way in enumerate(self.follow((path.first.neighbour, path.first.label), node.name)):
                    assert not number or path.service_class in ("silver", "bronze"), "a detour"
                    # What lives on because its node hears no controller may lead to where one was heard.
                    if not self.wiped and held.remaining(self.now) > 0:
                        assert way[-1] == path.destination, f"{node.name} to {path.destination}: {way}"
                    if way[-1] == path.destination:
                        self.check_class(way, path.service_class)
                        self.check_crossed(way, path.service_class or "", path.rank)
                    if path.shares > 1:
                        ways.setdefault(path.group, []).append(way[1:-1])
            for shares in ways.values():
                if not self.wiped:
                    assert len({one for way in shares for one in way}) == sum(map(len, shares)), "shares meet"
        self.check_reservations()

    def check_class(self, way: list[str], service_class: str | None) -> None:
        """A path keeps to what its class demands of links."""
        for pair in pairwise(way):
            link = next(one for one in self.view.links if {one.a, one.b} == set(pair))
            assert service_class == "bronze" or link.quantum
            assert service_class != "gold" or "otp" in link.suites

    def check_crossed(self, way: list[str], service_class: str, rank: int) -> None:
        """What keys may cross is on record, and nobody says that they cross it no more."""
        kind = way[0], way[-1], service_class
        assert self.crossed[kind] >= {(rank, name) for name in way}, f"{way} is not on record"
        for name in way:
            assert not self.core.has_left(*kind, {name}), f"{kind} is said to have left {name}"

    def check_reservations(self) -> None:
        """Nothing is promised that was never there: rates that fall give their leases half a minute."""
        for link in self.core.view.links:
            for direction in (link.ab, link.ba):
                assert direction.reserved <= max(direction.rate, MOST_RATE)
        for link in self.core.view.links:
            for direction, origin in ((link.ab, link.a), (link.ba, link.b)):
                assert direction.reserved == self.core.reservations.reserved((link.id, origin))

    def check_settled(self) -> None:
        """Everything half-installed was installed or withdrawn; the record says what there is."""
        there = {(node.name, serial) for node in self.nodes.values() for serial in node.serials}
        wanted = {
            one
            for served in self.core.served
            if served.current is not None
            for one in (*((served.demand.source, start) for start in served.current.starts), *served.current.entries)
        }
        assert there == wanted
        assert {(one.node, one.serial) for one in self.statements.values()} == wanted
        assert set(self.promises) == {served.demand.id for served in self.core.served}
        leases = {lease.id for lease in self.core.reservations.leases}
        assert leases == {one.current.lease for one in self.core.served if one.current and one.current.lease}
        for served in self.core.served:
            assert served.laying is None
            assert not served.adopting
            self.check_told(served)
            assert not any(self.view.node(name).quarantined for path in served.ways for name in path.nodes)
            promised = [tuple((hop.link, hop.sender) for hop in path) for path in self.promises[served.demand.id].paths]
            assert promised == [tuple(zip(path.links, path.nodes, strict=False)) for path in served.paths]

    def check_told(self, served: Served) -> None:
        """A demand has what can be had, and where that is less than its class demands, it says so."""
        found = admit(self.core.view, self.core.reservations, served.demand, self.now)
        if served.current is None:
            assert isinstance(found, Refusal) or served.retry_at <= self.now + LONGEST_PAUSE
        else:
            less = served.weakened or self._is_broken(served)
            assert (served.refusal is not None) == less, (served.demand, served.refusal, served.paths)

    def _is_broken(self, served: Served) -> bool:
        return not all(self.view.link(link).up for path in served.paths for link in path.links)


MOST_RATE = 1_000


def network(*pairs: tuple[str, str], plain: Iterable[str] = ()) -> NetworkView:
    """A network of links named by their ends; those that are `plain` have no QKD."""
    names = dict.fromkeys(name for pair in pairs for name in pair)
    direction = Direction(MOST_RATE, 100_000, 100_000)
    without = set(plain)
    return NetworkView(
        tuple(Node(f"ckms-{name}") for name in names),
        tuple(
            Link(
                f"{a}-{b}",
                f"ckms-{a}",
                f"ckms-{b}",
                quantum=f"{a}-{b}" not in without,
                suites=frozenset({"ml-kem"} if f"{a}-{b}" in without else {"otp", "aes-256-gcm"}),
                ab=direction,
                ba=direction,
            )
            for a, b in pairs
        ),
    )
