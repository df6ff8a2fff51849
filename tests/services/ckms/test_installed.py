"""Statements take effect all or none, once, in the order in which they were said, and for their time."""

from __future__ import annotations

import pytest

from keyhaul.agents.signing import SignedStatement
from keyhaul.agents.statements import StatementRefusal, StatementRefused
from services.ckms.forwarding import Entry, ForwardingTable, Hop, Path, PathLabel
from services.ckms.held import HighWater, Kept
from services.ckms.installed import ADOPTION, MAXIMUM_SET, SILENCE, Installed
from tests.services.ckms.stated import (
    KEY,
    OWN,
    THIEF,
    Configured,
    Leader,
    Memory,
    Offer,
    accept,
    entry,
    make,
    path,
    withdrawal,
)

STATIC_PATH = Path("ckms-9", 0, Hop("ckms-16", PathLabel("5" * 16)))
STATIC_ENTRY = Entry(PathLabel("6" * 16), "ckms-16", None)
CONFIGURED = Configured((STATIC_ENTRY,), (STATIC_PATH,))


class Node:
    """One CKMS whose process can end and start again."""

    def __init__(self, configured: Configured = CONFIGURED, high: HighWater | None = None) -> None:
        self.memory = Memory(high)
        self.configured = configured
        self.lives = 0
        self.installed: Installed
        self.table: ForwardingTable
        self.start(0.0)

    def start(self, now: float) -> list[StatementRefusal]:
        self.lives += 1
        self.installed, self.table = make(self.configured, incarnation=f"life {self.lives}")
        change, dropped = self.installed.restore(self.memory.kept(self.installed), now)
        self.memory.write(change)
        return [one.why for one in dropped]

    def accept(self, offer: Offer, now: float = 0.0) -> None:
        accept(self.installed, self.memory, offer, now)

    def refuses(self, offer: Offer, now: float = 0.0) -> StatementRefusal:
        before = (dict(self.installed.held), self.table.entries, self.table.paths, self.installed.high)
        with pytest.raises(StatementRefused) as refused:
            self.accept(offer, now)
        assert (dict(self.installed.held), self.table.entries, self.table.paths, self.installed.high) == before
        return refused.value.refusal

    def elapse(self, now: float) -> None:
        change = self.installed.elapse(now)
        if change is not None:
            self.memory.write(change)
            self.installed.take(change)

    @property
    def serials(self) -> list[int]:
        stated: list[Entry | Path] = [*self.table.entries, *self.table.paths]
        return sorted(one.serial for one in stated if one.serial is not None)


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def leader() -> Leader:
    return Leader()


def test_a_set_takes_effect_whole(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a", detour=None), path("b"), path("c", to="ckms-4", rank=1)))

    found = node.table.lookup("a" * 16, "ckms-1")
    assert found is not None
    assert found.next == Hop("ckms-3", PathLabel("a" * 16))
    assert [one.serial for one in node.table.paths_to("ckms-9")] == [2, 3, None]
    assert node.table.lookup("6" * 16, "ckms-16") == STATIC_ENTRY


def test_one_bad_statement_spoils_the_set(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a")))
    good = leader.say(entry("b"), path("c"))
    forged = good | {3: SignedStatement(good[3].body, good[2].signature)}
    mixed = good | Leader(serial=3, key=THIEF).say(entry("d"))
    elsewhere = good | leader.say(entry("d"), node="ckms-3")
    replayed = good | {1: leader.signed[0][1]}
    misfit = good | leader.say(entry("e", to="ckms-77"))
    back = good | leader.say(entry("e", to="ckms-1"))
    swapped = {2: good[3], 3: good[2]}

    assert node.refuses(forged) == StatementRefusal.FORGED
    assert node.refuses(mixed) == StatementRefusal.FORGED
    assert node.refuses(elsewhere) == StatementRefusal.OTHER_NODE
    assert node.refuses(replayed) == StatementRefusal.REPLAYED
    assert node.refuses(misfit) == StatementRefusal.UNFIT
    assert node.refuses(back) == StatementRefusal.UNFIT
    assert node.refuses(swapped) == StatementRefusal.MALFORMED
    assert node.refuses({}) == StatementRefusal.TOO_MANY
    assert node.refuses(dict.fromkeys(range(MAXIMUM_SET + 1), good[2])) == StatementRefusal.TOO_MANY
    node.accept(good)


def test_what_was_accepted_is_not_accepted_again_whatever_happened_to_it(node: Node, leader: Leader) -> None:
    first = leader.say(entry("a"), entry("b"))
    node.accept(first)
    assert node.refuses(first) == StatementRefusal.REPLAYED
    node.accept(leader.say(withdrawal(1)))
    assert node.refuses({1: first[1]}) == StatementRefusal.REPLAYED
    node.start(1.0)
    assert node.refuses({1: first[1]}) == StatementRefusal.REPLAYED
    assert node.serials == [2]


def test_what_was_signed_but_overtaken_is_not_accepted(node: Node, leader: Leader) -> None:
    held_back = leader.say(entry("a"))
    node.accept(leader.say(entry("b")))

    assert node.refuses(held_back) == StatementRefusal.REPLAYED


def test_a_newer_leader_fences_the_older_one_off_also_after_a_restart(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a")))
    newer = Leader(epoch=2, serial=7)
    node.accept(newer.say(withdrawal()))

    leader.serial = 100
    assert node.refuses(leader.say(entry("b"))) == StatementRefusal.OLD_EPOCH
    assert node.refuses(leader.say(withdrawal(1))) == StatementRefusal.OLD_EPOCH
    node.start(1.0)
    assert node.refuses(leader.say(entry("b"))) == StatementRefusal.OLD_EPOCH
    assert node.serials == [1]  # it was adopted
    node.accept(newer.say(withdrawal(1)))
    assert node.serials == []


def test_two_leaders_do_not_speak_in_one_set(node: Node, leader: Leader) -> None:
    offer = leader.say(entry("a")) | Leader(epoch=2, serial=5).say(entry("b"))

    assert node.refuses(offer) == StatementRefusal.OLD_EPOCH


def test_a_new_leader_may_count_anew_but_not_under_a_serial_in_force(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a"), entry("b")))

    assert node.refuses(Leader(epoch=2).say(entry("c"))) == StatementRefusal.UNFIT
    node.accept(Leader(epoch=2, serial=2).say(entry("c")))


def test_a_later_statement_of_the_same_label_takes_the_place_of_the_earlier(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a"), path("b")), 0.0)
    node.accept(leader.say(entry("a"), path("c", to="ckms-4")), 90.0)

    assert node.serials == [3, 4]
    assert node.installed.held[3].remaining(90.0) == 100.0
    assert [one.first.neighbour for one in node.table.paths_to("ckms-9")] == ["ckms-4", "ckms-16"]


def test_ranks_are_swapped_in_one_set(node: Node, leader: Leader) -> None:
    node.accept(leader.say(path("b"), path("c", to="ckms-4", rank=1)))
    node.accept(leader.say(path("c", to="ckms-4"), path("b", rank=1)))

    assert [one.first.label[0] for one in node.table.paths_to("ckms-9")] == ["c", "b", "5"]


def test_a_withdrawn_entry_drains_and_a_withdrawn_path_takes_nothing_new(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a"), path("b")), 0.0)
    node.accept(leader.say(withdrawal(1, 2, drain=5.0), entry("d"), path("e", to="ckms-4")), 10.0)

    assert node.serials == [1, 4, 5]
    assert node.installed.held[1].remaining(12.0) == 3.0
    node.start(12.0)
    assert node.serials == [1, 4, 5]
    node.elapse(14.9)
    assert node.table.lookup("a" * 16, "ckms-1") is not None
    node.elapse(15.0)
    assert node.table.lookup("a" * 16, "ckms-1") is None
    assert node.serials == [4, 5]


def test_nothing_makes_a_drain_longer(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a")), 0.0)
    node.accept(leader.say(withdrawal(1, drain=5.0)), 0.0)
    node.accept(leader.say(withdrawal(1, drain=50.0)), 1.0)
    node.elapse(5.0)

    assert node.serials == []


def test_a_withdrawal_of_what_is_gone_or_to_come(node: Node, leader: Leader) -> None:
    leader.serial = 5
    node.accept(leader.say(withdrawal(1, 2)))

    assert node.refuses(leader.say(withdrawal(9))) == StatementRefusal.UNFIT
    assert node.refuses(leader.say(withdrawal(8))) == StatementRefusal.UNFIT  # itself
    node.accept(leader.say(entry("a"), withdrawal(9)))
    assert node.serials == []


def test_a_statement_ends_with_its_lifetime_while_a_controller_is_there(node: Node, leader: Leader) -> None:
    node.accept(leader.say(path("b"), lifetime=100), 0.0)
    for now in range(0, 100, 10):
        node.installed.heard(float(now))
        node.elapse(float(now))
        assert node.serials == [1]
    node.elapse(100.0)

    assert node.table.paths_to("ckms-9") == (STATIC_PATH,)


def test_without_a_controller_it_lives_on_to_the_hard_limit_over_restarts(node: Node, leader: Leader) -> None:
    node.accept(leader.say(path("b"), lifetime=100), 0.0)
    for now in (99.0, 100.0, 500.0, 999.0):
        node.elapse(now)
        node.start(now)
        assert node.serials == [1]
        assert node.installed.held[1].remaining(now) == max(0.0, 100.0 - now)
    node.start(1000.0)

    assert node.table.paths_to("ckms-9") == (STATIC_PATH,)
    assert node.memory.rows == {}


def test_a_lifetime_is_cut_to_the_hard_limit(node: Node, leader: Leader) -> None:
    node.accept(leader.say(path("b"), lifetime=50_000), 0.0)
    node.elapse(999.0)
    assert node.serials == [1]
    node.elapse(1000.0)

    assert node.serials == []


def test_a_controller_that_comes_back_has_time_to_renew(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a"), entry("b"), lifetime=100), 0.0)
    back = 300.0
    node.installed.heard(back)
    node.elapse(back)
    assert node.serials == [1, 2]
    node.accept(leader.say(entry("a"), lifetime=500), back + 1)
    now = back
    while now < back + ADOPTION - 10:
        now += 10
        node.installed.heard(now)
        node.elapse(now)
        assert node.serials == [2, 3]
    node.installed.heard(back + ADOPTION)
    node.elapse(back + ADOPTION)

    assert node.serials == [3]


def test_a_controller_that_comes_and_goes_ends_nothing(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a"), lifetime=100), 0.0)
    now = 200.0
    while now < 900.0:
        node.installed.heard(now)
        node.elapse(now)
        now += SILENCE + 1
        assert not node.installed.in_contact(now)
    assert node.serials == [1]


def test_a_kept_statement_is_verified_again(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a"), entry("b"), path("c")))
    rows = node.memory.rows
    spoiled = rows[2].signed.body.replace(b"ckms-3", b"ckms-4")
    rows[2] = type(rows[2])(2, SignedStatement(spoiled, rows[2].signed.signature), 0.0, None)

    assert node.start(1.0) == [StatementRefusal.FORGED]
    assert node.serials == [1, 3]
    assert node.start(2.0) == []


def test_a_row_does_not_take_another_ones_place(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a"), entry("b")))
    rows = node.memory.rows
    rows[2] = type(rows[2])(2, rows[1].signed, 0.0, None)

    assert node.start(1.0) == [StatementRefusal.MALFORMED]
    assert node.serials == [1]


def test_what_does_not_fit_a_changed_configuration_is_dropped_and_the_rest_stays(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a"), entry("b"), path("c")))
    clash = Entry(PathLabel("b" * 16), "ckms-1", None)
    node.configured = Configured((STATIC_ENTRY, clash), (STATIC_PATH,))

    assert node.start(1.0) == [StatementRefusal.UNFIT]
    assert node.serials == [1, 3]
    assert node.table.lookup("b" * 16, "ckms-1") == clash


def test_a_new_store_accepts_only_what_was_signed_for_this_very_process(leader: Leader) -> None:
    node = Node(high=HighWater())
    old = leader.say(entry("a"))
    other = Leader(serial=10, incarnation="life 0")
    fresh = Leader(serial=20, incarnation="life 1")

    assert node.refuses(old) == StatementRefusal.NOT_FRESH
    assert node.refuses(other.say(entry("a"))) == StatementRefusal.NOT_FRESH
    assert node.refuses(fresh.say(entry("b")) | leader.say(entry("a"))) == StatementRefusal.NOT_FRESH
    later = Leader(serial=30).say(entry("a"))
    assert node.refuses(fresh.say(entry("b")) | later) == StatementRefusal.NOT_FRESH
    node.accept(fresh.say(entry("b")))
    assert node.refuses(old) == StatementRefusal.REPLAYED
    leader.serial = 40
    node.accept(leader.say(entry("a")))


def test_what_names_a_process_is_for_no_other(node: Node) -> None:
    leader = Leader(incarnation="life 1")
    held_back = leader.say(entry("a"))
    node.start(0.0)

    assert node.refuses(held_back) == StatementRefusal.NOT_FRESH


def test_in_doubt_nothing_of_the_store_holds_and_the_doubt_survives_a_restart(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a")))
    change = node.installed.doubt()
    node.installed.take(change)
    node.memory.write(change)

    assert node.serials == []
    assert node.table.entries == (STATIC_ENTRY,)
    node.start(1.0)
    assert node.refuses(leader.say(entry("b"))) == StatementRefusal.NOT_FRESH
    leader.incarnation = node.installed.incarnation
    node.accept(leader.say(entry("b")))


def test_doubt_spares_what_was_said_since_a_statement_for_this_process(node: Node, leader: Leader) -> None:
    node.accept(leader.say(entry("a")))
    node.start(1.0)
    later = Leader(serial=1)
    node.accept(later.say(entry("b")))
    later.incarnation = node.installed.incarnation
    node.accept(later.say(entry("c")))
    later.incarnation = None
    node.accept(later.say(entry("d")))
    for _ in range(2):
        change = node.installed.doubt()
        node.memory.write(change)
        node.installed.take(change)
        assert node.serials == [3, 4]
    node.accept(later.say(entry("a")))
    node.start(2.0)

    assert node.serials == [3, 4, 5]


def test_under_other_keys_serials_begin_anew_and_with_a_fresh_statement(leader: Leader) -> None:
    memory = Memory()
    installed, _ = make()
    installed.restore(memory.kept(installed), 0.0)
    accept(installed, memory, Leader(epoch=2**62, serial=9).say(entry("a")), 0.0)
    kept = memory.kept(installed)

    rolled, _ = make(keys=[THIEF, KEY])
    rolled.restore(kept, 1.0)
    assert rolled.high.epoch == 2**62
    anew, table = make(keys=[THIEF])
    _, dropped = anew.restore(kept, 1.0)
    assert [one.why for one in dropped] == [StatementRefusal.FORGED]
    assert table.entries == ()
    stale = Leader(key=THIEF).say(entry("a"))
    with pytest.raises(StatementRefused, match="incarnation"):
        accept(anew, memory, stale, 1.0)
    accept(anew, memory, Leader(key=THIEF, incarnation="one").say(entry("a")), 1.0)


def test_a_node_without_a_past_is_in_doubt() -> None:
    installed, _ = make(own=OWN)
    installed.restore(Kept(), 0.0)

    assert installed.high == HighWater(0, 0, doubt=True)
