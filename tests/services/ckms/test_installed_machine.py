"""Whatever comes, and however the process, the machine and its clock behave: what is in force is what a model says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from keyhaul.agents.signing import Verifier
from keyhaul.agents.statements import Statement, StatementRefused
from services.ckms.forwarding import Entry, ForwardingTable, Hop, Path, PathLabel
from services.ckms.held import Change, HighWater, KeptStatement
from services.ckms.installed import ADOPTION, SILENCE, Installed
from services.ckms.own_time import CHECKPOINT, Checkpoint, OwnTime, Reading
from tests.services.ckms.stated import (
    KEY,
    NEIGHBOURS,
    THIEF,
    Configured,
    Leader,
    Memory,
    Offer,
    Says,
    entry,
    make,
    path,
    withdrawal,
)

HARD_LIMIT = 1_000.0
CONFIGURED = Configured(
    (Entry(PathLabel("6" * 16), "ckms-16", None),), (Path("ckms-9", 0, Hop("ckms-16", PathLabel("5" * 16))),)
)
LABELS = "abcd"
PLACES: dict[str, Says] = {
    **{f"entry {label}": entry(label) for label in LABELS},
    **{f"path {rank}": path(str(rank), to=NEIGHBOURS[rank], rank=rank) for rank in range(3)},
}


@dataclass
class Modelled:
    """A statement in force, as the model sees it."""

    place: str
    accepted: float
    lifetime: float
    used: float
    """Seconds for which the process ran since its acceptance."""
    drained: float | None = None


class Steered(RuleBasedStateMachine):
    """A node, its store, its clocks, two leaders and a thief."""

    @initialize(doubt=st.booleans())
    def begin(self, doubt: bool) -> None:
        self.memory = Memory(HighWater(0, 0, doubt=doubt))
        self.checkpoint: Checkpoint | None = None
        self.boot, self.since_boot, self.wall = 0, 100.0, 1e9
        self.leader = Leader()
        self.former: Leader | None = None
        self.lives = 0
        self.model: dict[int, Modelled] = {}
        self.number = (0, 0)
        self.doubt = doubt
        self.contact: tuple[float, float] | None = None
        self.copy: tuple[HighWater, dict[int, KeptStatement], Checkpoint] | None = None
        self.own_time: OwnTime
        self.installed: Installed
        self.table: ForwardingTable
        self.start()

    @property
    def now(self) -> float:
        return self.own_time.at(self.since_boot)

    def reading(self) -> Reading:
        return Reading(str(self.boot), self.since_boot, self.wall)

    def start(self) -> None:
        self.lives += 1
        self.installed, self.table = make(CONFIGURED, hard_limit=HARD_LIMIT, incarnation=f"life {self.lives}")
        self.own_time = OwnTime(self.checkpoint, self.reading())
        change, dropped = self.installed.restore(self.memory.kept(self.installed), self.now)
        assert dropped == []
        self.keep(change)
        self.contact = None
        self.end_in_model()

    def keep(self, change: Change) -> None:
        self.memory.write(change)
        self.checkpoint = self.own_time.checkpoint(self.reading())

    # The model.

    def end_in_model(self) -> None:
        for serial, one in list(self.model.items()):
            if self.now >= min(one.accepted + HARD_LIMIT, math.inf if one.drained is None else one.drained):
                del self.model[serial]
            elif one.drained is None and self.contact is not None and self.now - self.contact[1] <= SILENCE:
                expires = one.accepted + one.lifetime
                if self.now >= expires and (expires >= self.contact[0] or self.now >= self.contact[0] + ADOPTION):
                    del self.model[serial]

    def accept_in_model(self, statements: list[Statement]) -> None:
        for statement in statements:
            says = statement.says
            [place] = [name for name, one in PLACES.items() if one == says] or [""]
            if place:
                self.model = {serial: one for serial, one in self.model.items() if one.place != place}
                self.model[statement.serial] = Modelled(place, self.now, statement.lifetime_s, 0.0)
                continue
            for serial in getattr(says, "serials", ()):
                found = self.model.get(serial)
                drain = getattr(says, "drain_s", 0.0)
                if found is not None and found.place.startswith("entry") and drain:
                    ends = self.now + drain
                    found.drained = ends if found.drained is None else min(ends, found.drained)
                elif found is not None:
                    del self.model[serial]
        self.number = statements[-1].number
        self.doubt = False

    # What may happen.

    @rule(
        places=st.lists(st.sampled_from(sorted(PLACES)), min_size=1, max_size=4, unique=True),
        lifetime=st.sampled_from([50, 400, 5_000]),
        crash=st.sampled_from(["", "", "", "before", "between"]),
        data=st.data(),
    )
    def say(self, places: list[str], lifetime: int, crash: str, data: st.DataObject) -> None:
        """The leader says something; the process may end before the store has it, or between store and table."""
        self.leader.incarnation = f"life {self.lives}" if self.doubt or data.draw(st.booleans()) else None
        says: list[Says] = [PLACES[place] for place in places]
        withdraws: bool = data.draw(st.booleans())
        if self.model and withdraws:
            serials = data.draw(st.lists(st.sampled_from(sorted(self.model)), min_size=1, unique=True))
            says.insert(0, withdrawal(*serials, drain=data.draw(st.sampled_from([0.0, 20.0]))))
        before = len(self.leader.signed)
        offer = self.leader.say(*says, lifetime=lifetime)
        change = self.installed.consider(self.installed.verified(offer), self.now)
        if crash == "before":
            self.start()
            return
        self.keep(change)
        self.accept_in_model([statement for statement, _ in self.leader.signed[before:]])
        if crash == "between":
            self.start()
        else:
            self.installed.take(change)

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """Anything that was ever signed comes again, alone or together with something new."""
        signed = self.leader.signed + (self.former.signed if self.former is not None else [])
        old = [(statement, one) for statement, one in signed if statement.number <= self.number]
        if not old:
            return
        statement, again = data.draw(st.sampled_from(old))
        offer: Offer = {statement.serial: again}
        if data.draw(st.booleans()):
            self.leader.incarnation = f"life {self.lives}"
            offer = self.leader.say(PLACES["entry a"]) | offer
        self.refused(offer)

    @rule(kind=st.sampled_from(["forged", "node", "epoch", "loop", "life"]), data=st.data())
    def attack(self, kind: str, data: st.DataObject) -> None:
        """Something new and good comes together with something wrong."""
        self.leader.incarnation = f"life {self.lives}"
        good = self.leader.say(PLACES["entry b"]) if data.draw(st.booleans()) else {}
        at = self.leader.serial
        match kind:
            case "forged":
                bad = Leader(self.leader.epoch, at, THIEF, f"life {self.lives}").say(PLACES["entry c"])
            case "node":
                bad = self.leader.say(PLACES["entry c"], node="ckms-3")
            case "epoch":
                known = self.installed.high.epoch  # a store that was put back knows of none since
                if known < 2:
                    return
                bad = Leader(known - 1, at, KEY, f"life {self.lives}").say(PLACES["entry c"])
            case "loop":
                bad = self.leader.say(entry("c", to="ckms-1"))
            case _:
                self.leader.incarnation = "life 0"
                bad = self.leader.say(PLACES["entry c"])
        self.refused(good | bad)

    def refused(self, offer: Offer) -> None:
        with pytest.raises(StatementRefused):
            self.installed.consider(self.installed.verified(offer), self.now)

    @rule()
    def change_leader(self) -> None:
        """A newer leader takes over and tells the node; the former one may still talk."""
        self.former = self.leader
        incarnation = f"life {self.lives}"
        self.leader = Leader(self.former.epoch + 1, self.former.serial, KEY, incarnation, list(self.former.signed))
        offer = self.leader.say(withdrawal())
        change = self.installed.consider(self.installed.verified(offer), self.now)
        self.keep(change)
        self.installed.take(change)
        self.accept_in_model([self.leader.signed[-1][0]])
        self.former.incarnation = incarnation
        self.former.serial += 100
        self.refused(self.former.say(PLACES["entry d"]))

    @rule(seconds=st.sampled_from([1.0, 15.0, 29.0, 60.0, 350.0]))
    def wait(self, seconds: float) -> None:
        self.since_boot += seconds
        self.wall += seconds
        for one in self.model.values():
            one.used += seconds
        self.tick()

    def tick(self) -> None:
        self.end_in_model()
        change = self.installed.elapse(self.now)
        if change is not None:
            self.installed.take(change)
        self.keep(change or Change(self.installed.high))

    @rule()
    def hear(self) -> None:
        if self.contact is None or self.now - self.contact[1] > SILENCE:
            self.contact = (self.now, self.now)
        self.contact = (self.contact[0], self.now)
        self.installed.heard(self.now)
        self.tick()

    @rule(seconds=st.sampled_from([-1e9, -500.0, 500.0]))
    def set_clock(self, seconds: float) -> None:
        """The machine's clock is set; while the machine is on, that changes nothing."""
        self.wall += seconds
        self.tick()

    @rule(unrecorded=st.floats(0, CHECKPOINT), away=st.sampled_from([0.0, 3.0, 300.0]))
    def restart(self, unrecorded: float, away: float) -> None:
        """The process is killed, runs on for less than a checkpoint before that, and is started again."""
        self.run_unrecorded(unrecorded)
        self.since_boot += away
        self.wall += away
        self.start()

    @rule(unrecorded=st.floats(0, CHECKPOINT), away=st.sampled_from([10.0, 300.0]), step=st.sampled_from([-1e9, 0.0]))
    def reboot(self, unrecorded: float, away: float, step: float) -> None:
        """The machine is off for a while, and perhaps has forgotten the time."""
        self.run_unrecorded(unrecorded)
        self.boot += 1
        self.since_boot = 5.0
        self.wall += away + step
        self.start()

    def run_unrecorded(self, seconds: float) -> None:
        self.since_boot += seconds
        self.wall += seconds
        for one in self.model.values():
            one.used += seconds

    @rule()
    def copy_store(self) -> None:
        assert self.checkpoint is not None
        self.copy = (self.memory.high, dict(self.memory.rows), self.checkpoint)

    @precondition(lambda self: self.copy is not None)
    @rule()
    def restore_store(self) -> None:
        """The store is put back from the copy; a neighbour's record says so."""
        assert self.copy is not None
        self.memory.high, rows, self.checkpoint = self.copy
        self.memory.rows = dict(rows)
        self.lives += 1
        self.installed, self.table = make(CONFIGURED, hard_limit=HARD_LIMIT, incarnation=f"life {self.lives}")
        self.own_time = OwnTime(self.checkpoint, self.reading())
        change, _ = self.installed.restore(self.memory.kept(self.installed), self.now)
        self.keep(change)
        doubt = self.installed.doubt()
        self.installed.take(doubt)
        self.keep(doubt)
        self.model.clear()
        self.contact = None
        self.doubt = True

    # What always holds.

    @invariant()
    def what_is_in_force_is_what_the_model_says(self) -> None:
        stated: list[Any] = [*self.table.entries, *self.table.paths]
        assert sorted(one.serial for one in stated if one.serial is not None) == sorted(self.model)
        assert {one for one in stated if one.serial is None} == {*CONFIGURED.entries, *CONFIGURED.paths}

    @invariant()
    def everything_in_force_is_signed_for_this_node_and_in_order(self) -> None:
        for serial, held in self.installed.held.items():
            statement = Verifier([KEY.public_key()]).verify(held.signed)
            assert (statement.node, statement.serial) == ("ckms-2", serial)
            assert statement.number <= self.installed.high.number

    @invariant()
    def nothing_is_used_for_longer_than_the_hard_limit(self) -> None:
        assert all(one.used < HARD_LIMIT + 1e-6 for one in self.model.values())

    @invariant()
    def the_store_has_what_is_in_force(self) -> None:
        assert set(self.memory.rows) == set(self.installed.held)
        assert self.memory.high == self.installed.high


Steered.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestSteered = Steered.TestCase
