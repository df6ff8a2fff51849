"""The oracle: outside of the services it sees every bit used, released, handed out and recorded, and judges."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from keyhaul.identity.names import Role
from keyhaul.transport.messages.link import Stream
from tests.simulator.astray import Astray
from tests.simulator.exposure_rule import ExposureRule
from tests.simulator.steering_rules import SteeringRules
from tests.simulator.unnoticed import Unnoticed

if TYPE_CHECKING:
    from keyhaul.link.link import Link
    from tests.simulator.processes import SimulatedProcess
    from tests.simulator.world import World

MOST = 200
"""Findings that are kept."""

WINDOW = 8
"""Bytes of pad by which a second use is recognised."""


@dataclass(frozen=True)
class Finding:
    """A rule that did not hold."""

    rule: str
    text: str
    at: float
    step: int
    """Of the loop."""


@dataclass(eq=False)
class KnownKey:
    """One KSA key, as the oracle follows it."""

    key_id: UUID
    master: str
    slaves: list[str]
    akms: set[str]
    born: float
    batch: str
    handed: float | None = None
    """When the master got it."""
    bits: bytes | None = None
    taken: dict[str, float] = field(default_factory=dict)
    """Slaves that got it, and when."""
    uncertain: set[str] = field(default_factory=set)
    """Slaves that asked for it and heard no outcome."""
    released: bool = False


class Oracle:
    """What must hold, checked while the network runs and after it has settled."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.findings: list[Finding] = []
        self.keys: dict[UUID, KnownKey] = {}
        self.attending = True
        self._pads: set[bytes] = set()
        self._cn: set[bytes] = set()
        self._nonces: set[tuple[bytes, bytes]] = set()
        self._sealed: set[tuple[bytes, bytes, bytes, bytes]] = set()
        self._opened: set[bytes] = set()
        self._labels: dict[str, str] = {}
        self._released: set[str] = set()
        self._seen: dict[str, int] = defaultdict(int)
        self._harms: dict[str, int] = defaultdict(int)
        self._stolen: dict[str, list[tuple[UUID, float]]] = defaultdict(list)
        self._astray = Astray()
        self._unnoticed = Unnoticed()
        self.steering = SteeringRules(world)
        self.exposures = ExposureRule(world)
        self.withdrawn_by_liar: set[str] = set()
        """Batches of others of which the lying UKMS said that their keys expired."""
        self.delivered = 0
        self.fetched = 0

    def finding(self, rule: str, text: str) -> None:
        """A rule did not hold."""
        if self.attending and len(self.findings) < MOST:
            self.findings.append(Finding(rule, text, self._world.loop.time(), self._world.loop.steps))

    # Links

    def pad_used(self, bits: bytes) -> None:
        """A sender took pad: no run of it may ever have been taken."""
        if self._seen_before(self._pads, bits):
            self.finding("once", f"{len(bits)} bytes of pad were used before")

    def cn_used(self, bits: bytes) -> None:
        """CN bits protected a transfer."""
        if self._seen_before(self._cn, bits):
            self.finding("once", f"{len(bits)} bytes of CN key were used before")

    def nonce_used(self, key: bytes, nonce: bytes) -> None:
        """An AEAD key encrypted under a nonce."""
        if (key, nonce) in self._nonces:
            self.finding("once", "an AEAD key and nonce were used before")
        self._nonces.add((key, nonce))

    def sealed(self, header: bytes, clear: bytes, secret: bytes, tag: bytes) -> None:
        """An end of a link sealed a message."""
        self._sealed.add((header, clear, secret, tag))
        head = json.loads(header)
        if head["kind"] == "relay.forward":
            message = json.loads(clear)
            for name in (message["label"], message["reference"]):
                if self._labels.setdefault(name, head["link"]) != head["link"]:
                    self.finding("blind", f"a label or reference of {head['link']} was seen on {self._labels[name]}")

    def opened(self, header: bytes, clear: bytes, secret: bytes, tag: bytes) -> None:
        """An end of a link accepted a message."""
        if (header, clear, secret, tag) not in self._sealed:
            self.finding("authentic", f"a message was accepted that nobody sealed: {header[:80]!r}")
        if header in self._opened:
            self.finding("authentic", f"a message was accepted twice: {header[:80]!r}")
        self._opened.add(header)
        self.exposures.relayed(header, clear)

    @staticmethod
    def _seen_before(known: set[bytes], bits: bytes) -> bool:
        found = any(bits[place : place + WINDOW] in known for place in range(0, len(bits) - WINDOW + 1, WINDOW))
        known.update(bits[place : place + WINDOW] for place in range(len(bits) - WINDOW + 1))
        return found

    # Stores

    def committed(self, process: SimulatedProcess) -> None:
        """A service's store changed."""
        if process.name.role is Role.AKMS and self.attending:
            self._look_at_batches(process)

    def put_back(self, process: SimulatedProcess) -> None:
        """A service's store was put back to an older state."""
        from tests.simulator.world import AKMS_OF

        if process.name.id in AKMS_OF:
            self._unnoticed.put_back(process, self._world.processes[AKMS_OF[process.name.id]])

    def _look_at_batches(self, process: SimulatedProcess) -> None:
        raw = process.disk.raw
        own = process.name.id
        now = self._world.loop.time()
        self._astray.look(process, now)
        if len(process.disk.harmed) != self._harms[own]:
            # Rows are numbered anew.
            self._harms[own] = len(process.disk.harmed)
            self._seen[own] = 0
        newest = self._seen[own]
        columns = "rowid, batch, part, peer, master, slaves, key_ids, state, master_ukms"
        for row in raw.execute(
            f"SELECT {columns} FROM batches WHERE rowid > ? OR (state = 'released' AND part != 'maker')", (newest,)
        ).fetchall():
            self._seen[own] = max(self._seen[own], row[0])
            _, batch, part, peer, master, slaves, key_ids, state, master_ukms = row
            names = json.loads(slaves)
            if part != "maker" and state != "void" and self._site(master) != master_ukms:
                self.finding("granted", f"{own} made keys of {master} for {master_ukms}")
            if peer == "akms-9" and part == "maker" and master != "stolen-west":
                self.finding("granted", f"the stolen AKMS got keys made for {master}")
            for place in range(0, len(key_ids), 16):
                key_id = UUID(bytes=key_ids[place : place + 16])
                known = self.keys.setdefault(key_id, KnownKey(key_id, master, names, set(), now, batch))
                known.akms |= {own, peer} - {""}
                if state == "released" and part != "maker" and not known.released:
                    known.released = True
                    self._astray.released(process, master_ukms, batch, now)
                    self._check_held(known, master_ukms)

    def stolen(self, grant: str, key_ids: Sequence[UUID]) -> None:
        """The stolen AKMS was given keys: those that its slaves have, or may get, are within the allowance.

        Unless the maker's store, which counts them, or that of the slaves' UKMS was lost or put back meanwhile.
        """
        known = {key_id for key_id, _ in self._stolen[grant]}
        now = self._world.loop.time()
        self._stolen[grant] += [(key_id, now) for key_id in key_ids if key_id not in known]
        number = 0
        for key_id, at in self._stolen[grant]:
            copy = self.copy("ukms-6", key_id, "slave", "stolen-east")
            harmed = self._harmed_since("akms-5", at) or self._harmed_since("ukms-6", at)
            number += copy is not None and copy[0] in ("held", "issued") and not harmed
        if number > self._world.allowance:
            self.finding("granted", f"{number} keys came to be under an allowance of {self._world.allowance}")

    def _check_held(self, key: KnownKey, master_ukms: str) -> None:
        for slave in key.slaves:
            ukms = self._site(slave)
            if ukms == master_ukms or self._harmed_since(ukms, key.born) or self._liar(ukms):
                continue
            if self.copy(ukms, key.key_id, "slave", slave) is None:
                self.finding("held", f"{key.key_id} was released before {ukms} held it for {slave}")

    def copy(self, ukms: str, key_id: UUID, side: str, holder: str) -> tuple[str, float] | None:
        """State and end of life of a copy in a UKMS's store."""
        raw: sqlite3.Connection = self._world.processes[ukms].disk.raw
        query = "SELECT state, until FROM copies WHERE key_id = ? AND side = ? AND holder = ?"
        found = raw.execute(query, (key_id.bytes, side, holder)).fetchone()
        return None if found is None else (found[0], found[1])

    # Users

    def handed(self, master: str, slaves: list[str], key_id: UUID, bits: bytes) -> None:
        """A UKMS handed a key to a master."""
        self.delivered += 1
        known = self.keys.get(key_id)
        if known is None:
            self.finding("same", f"{master} got {key_id}, which no AKMS ever recorded")
            return
        if known.master != master or set(known.slaves) != set(slaves):
            self.finding("same", f"{master} got {key_id}, which was made for {known.master} and {known.slaves}")
        if known.handed is not None and not self._unnoticed.may_come_twice(self._site(master), known.handed):
            self.finding("one-delivery", f"{master} got {key_id} twice")
        if known.handed is None:
            known.handed = self._world.loop.time()
        self._same(known, master, bits)
        for slave in slaves:
            ukms = self._site(slave)
            if self._harmed_since(ukms, known.born) or self._liar(ukms):
                continue
            if self.copy(ukms, key_id, "slave", slave) is None:
                self.finding("held", f"{master} got {key_id}, which {ukms} does not hold for {slave}")

    def taken(self, slave: str, key_id: UUID, bits: bytes) -> None:
        """A UKMS handed a key to a slave."""
        self.fetched += 1
        known = self.keys.get(key_id)
        if known is None:
            self.finding("same", f"{slave} got {key_id}, which no AKMS ever recorded")
            return
        before = known.taken.get(slave)
        if before is not None and not self._unnoticed.may_come_twice(self._site(slave), before):
            self.finding("one-delivery", f"{slave} got {key_id} twice")
        known.taken[slave] = self._world.loop.time()
        self._same(known, slave, bits)

    def refused(self, slave: str, key_id: UUID) -> None:
        """A slave was told that a key which its master got is not there."""
        known = self.keys[key_id]
        ukms = self._site(slave)
        if slave in known.taken or slave in known.uncertain or self._lied_about(known):
            return
        if self._harmed_since(ukms, known.born):
            return
        copy = self.copy(ukms, key_id, "slave", slave)
        if copy is not None and copy[0] in ("expired", "held") and self._may_have_expired(known, ukms, *copy):
            return
        if copy is not None and copy[0] == "issued":
            return  # taken between the request and this look
        known.uncertain.add(slave)
        self.finding("there", f"{key_id} of {known.master} is not there for {slave}: {copy}")

    def _may_have_expired(self, key: KnownKey, ukms: str, state: str, until: float) -> bool:
        if state == "held" and until > self._world.processes[ukms].wall():
            return False
        if self._stepped(key):
            return True
        return key.handed is not None and self._world.loop.time() - key.handed > self._world.guard - 1.0

    def _stepped(self, key: KnownKey) -> bool:
        """Whether a clock that its life is measured by moved by more than the guard time."""
        places = [self._world.processes[place] for place in self._places(key) if place in self._world.processes]
        return any(place.wall_stepped >= self._world.guard - 1.0 for place in places)

    def _same(self, key: KnownKey, sae: str, bits: bytes) -> None:
        if key.bits is None:
            key.bits = bits
        elif key.bits != bits:
            self.finding("same", f"{sae} got other bits under {key.key_id}")

    # After everything has settled

    def disagreements(self) -> list[tuple[str, str]]:
        """What does not agree although nothing goes wrong any more, by rule."""
        problems: list[tuple[str, str]] = []
        for plan in self._world.plans.values():
            problems += [("whole", text) for text in self._link_disagrees(plan.id)]
        problems += self._usage()
        problems += self.steering.disagreements()
        return problems + self._orphans() + self._exposed()

    def excused(self, key: KnownKey) -> bool:
        """Whether a store that knew of the key was lost or put back since."""
        return any(self._harmed_since(place, key.born) for place in self._places(key))

    def _harmed_since(self, service: str, since: float) -> bool:
        process = self._world.processes.get(service)
        return process is not None and any(at >= since for at in process.disk.harmed)

    def _places(self, key: KnownKey) -> set[str]:
        return {self._site(sae) for sae in [key.master, *key.slaves]} | key.akms

    def _lied_about(self, key: KnownKey) -> bool:
        return any(self._liar(place) for place in self._places(key))

    def _liar(self, ukms: str) -> bool:
        return ukms not in self._world.processes or (ukms == "ukms-7" and self._world.settings.liar)

    def _site(self, sae: str) -> str:
        from tests.simulator.world import SAES

        return SAES.get(sae, "ukms-9")

    def _link_disagrees(self, link_id: str) -> list[str]:
        ends = []
        for process in self._world.processes.values():
            for link in getattr(getattr(process, "links", None), "all", list)():
                if link.id == link_id and process.life is not None:
                    ends.append(link)
        if len(ends) != 2 or not all(end.up for end in ends):
            return [f"the link {link_id} is not up at both ends"]
        one, other = ends
        if one._core.session.id != other._core.session.id:
            return [f"the ends of {link_id} are in different sessions"]
        return self._pads_differ(one, other) + self._pads_differ(other, one)

    @staticmethod
    def _pads_differ(sender: Link, receiver: Link) -> list[str]:
        out, into = sender._core.outgoing, receiver._core.incoming
        for stream in Stream:
            pads = out.streams[stream]
            for block in pads.blocks:
                start = max(block.start, pads.position)
                if start >= block.end:
                    continue
                mine = pads._copy(start, block.end - start)
                if mine != into.streams[stream]._copy(start, block.end - start):
                    return [f"the ends of {sender.id} have different pad in {stream} at {start}"]
        return []

    def _recorded(self) -> dict[UUID, str]:
        raw = self._world.processes[self._world.aaa].disk.raw
        return {UUID(hex=row[0]): row[1] for row in raw.execute("SELECT key_id, state FROM usage_keys").fetchall()}

    def _usage(self) -> list[tuple[str, str]]:
        recorded = self._recorded()
        problems = []
        for key in self.keys.values():
            home = self._site(key.master)
            if self._lied_about(key) or any(
                self._harmed_since(place, key.born) for place in self._places(key) - {home}
            ):
                continue
            state = recorded.get(key.key_id)
            if key.handed is not None and state != "delivered":
                # Also where the store of its UKMS was lost: nobody can say any more that it was not handed out.
                problems.append(("counted", f"{key.key_id} was delivered to {key.master}, AAA has {state}"))
            elif self._harmed_since(home, key.born) or self._astray.may_be(key.batch, home):
                continue
            elif key.handed is None and state == "delivered" and not self._in_reserve(key):
                copy = self.copy(self._site(key.master), key.key_id, "master", key.master)
                if copy is not None and copy[0] in ("expired", "destroyed") and self._stepped(key):
                    continue  # its record at the AKMS may have ended before the word that nobody took it
                text = f"{key.key_id} is counted as delivered and {key.master} can never get it: {copy}"
                problems.append(("counted", text))
        lied = {key.batch for key in self.keys.values() if self._lied_about(key)} | self.withdrawn_by_liar
        refused = 0
        for process in self._world.processes.values():
            if process.name.role is Role.AKMS:
                rows = process.disk.raw.execute("SELECT batch FROM usage WHERE refused").fetchall()
                refused += sum(row[0] not in lied for row in rows)
        if refused and not any(process.disk.harmed for process in self._world.processes.values()):
            problems.append(("counted", f"AAA refused {refused} records"))
        return problems

    def _in_reserve(self, key: KnownKey) -> bool:
        """Whether the master's UKMS has it, or handed it out to somebody who had given up."""
        copy = self.copy(self._site(key.master), key.key_id, "master", key.master)
        return copy is not None and copy[0] in ("released", "issued")

    def _orphans(self) -> list[tuple[str, str]]:
        """Copies of slaves whose master can never get the key."""
        problems = []
        for key in self.keys.values():
            if key.handed is not None or self.excused(key) or self._lied_about(key):
                continue
            if self._in_reserve(key) or self._astray.may_be(key.batch, self._site(key.master)):
                continue
            for slave in key.slaves:
                ukms = self._site(slave)
                copy = self.copy(ukms, key.key_id, "slave", slave)
                mine = self.copy(self._site(key.master), key.key_id, "master", key.master)
                if mine is not None and mine[0] in ("expired", "destroyed") and self._stepped(key):
                    continue  # as above: it ends by itself a guard time later
                if copy is not None and copy[0] == "held" and copy[1] > self._world.processes[ukms].wall():
                    problems.append(("whole", f"{key.key_id} stays held for {slave}; {key.master} can never get it"))
        return problems

    def _exposed(self) -> list[tuple[str, str]]:
        """Keys that a master may still get though a node in quarantine knows CN bits under which they went out."""
        problems = []
        for key in self.keys.values():
            if not self.exposures.is_exposed(key.batch) or self.excused(key) or self._lied_about(key):
                continue
            mine = self.copy(self._site(key.master), key.key_id, "master", key.master)
            if mine is not None and mine[0] == "released":
                problems.append(("exposed", f"{key.key_id} is exposed, and {key.master} may get it"))
        return problems


def raw_rows(process: SimulatedProcess, query: str) -> list[Any]:
    """Rows of a store, for the adversaries."""
    return process.disk.raw.execute(query).fetchall()
