"""One demand at a time: how paths go in, move, are taken back, and outlive controllers."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from controller.planned import PlannedNetwork
from controller.steering import installation
from controller.steering.effects import Read, Tell
from controller.steering.events import Event
from controller.steering.looking import MOST_URGENT
from controller.topology import Discovery
from keyhaul.agents.statements import EntryStatement, PathStatement, Withdrawal
from keyhaul.transport.messages.path import PathRefusal
from tests.controller.steering.looks import (
    LADDER,
    LINE,
    SQUARE,
    begun,
    kinds,
    only,
    reserved,
    said,
    served_serials,
    ways,
)
from tests.controller.steering.world import Fate, World, network


def test_every_node_hears_of_a_new_leader_before_anything_else() -> None:
    world = World(SQUARE)
    world.lead()
    assert said(world) == [(f"ckms-{number}", Withdrawal) for number in (1, 2, 4, 3)]
    world.wanted("ckms-1", "ckms-4", "gold")
    while world.underway and not all(world.core.is_ready(name) for name in world.nodes):
        assert all(kind is Withdrawal or world.core.is_ready(node) for node, kind in said(world))
        world.deliver(0, Fate.ANSWERED)


def test_entries_go_in_from_the_far_end_and_the_path_comes_last() -> None:
    world = begun(World(LINE))
    assert world.wanted("ckms-1", "ckms-7", "silver").refusal is None
    order = []
    while world.underway:
        order += said(world)
        world.deliver(0, Fate.ANSWERED)
        world.check()
    assert order == [*((f"ckms-{number}", EntryStatement) for number in range(7, 1, -1)), ("ckms-1", PathStatement)]
    assert ways(world) == [tuple("1234567")]


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.LOST, Fate.UNANSWERED, Fate.LATE])
def test_a_set_that_fails_at_the_fifth_of_seven_nodes_leaves_nothing(fate: Fate) -> None:
    world = begun(World(LINE))
    world.wanted("ckms-1", "ckms-7", "silver")
    for _ in range(4):
        world.deliver(0, Fate.ANSWERED)
    assert said(world) == [("ckms-3", EntryStatement)]
    world.deliver(0, fate)
    world.link("2-3", up=False)
    world.settle(2)
    assert Event.NOT_INSTALLED in kinds(world)
    world.wait(61.0)
    assert not world.entries()
    for one in world.late:
        assert world.arrive(one) is not None
    world.check_settled()


def test_gold_has_a_disjoint_backup_and_reserves_on_both() -> None:
    world = begun(World(SQUARE))
    assert world.wanted("ckms-1", "ckms-4", "gold", 40.0).refusal is None
    world.settle(1)
    assert sorted(ways(world)) == [("1", "2", "4"), ("1", "3", "4")]
    assert [path.rank for path in world.nodes["ckms-1"].paths] == [0, 1]
    assert [world.core.view.link(link).ab.reserved for link in ("1-2", "2-4", "1-3", "3-4")] == [450] * 4
    refused = world.wanted("ckms-4", "ckms-1", "gold", 4_000.0)
    assert refused.refusal is PathRefusal.NO_CAPACITY
    assert world.wanted("ckms-1", "ckms-9", "gold").refusal is PathRefusal.UNKNOWN_DESTINATION
    assert len(world.core.served) == len(world.promises) == 1


def test_a_lost_link_moves_its_demands_at_once_and_the_old_path_drains() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "bronze")
    world.settle(1)
    first, second = ways(world)
    old = set(world.entries())
    kept = {(name, entry) for name, entry in old if {name, entry.previous} & {f"ckms-{second[1]}"}}
    world.link(f"1-{first[1]}", up=False)
    assert said(world), "statements leave before any tick"
    while world.underway:
        world.deliver(0, Fate.ANSWERED)
        world.check()
    assert ways(world) == [second]
    assert old <= set(world.entries()), "what is on its way may still use them"
    world.wait(61.0)
    world.settle(1)
    assert len(kept) == 2
    assert set(world.entries()) == kept
    world.check_settled()


def test_traffic_returns_once_when_the_link_is_back() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "gold")
    world.settle(1)
    primary = ways(world)[0]
    for _ in range(5):
        world.link(f"1-{primary[1]}", up=False)
        world.settle(1)
        world.link(f"1-{primary[1]}", up=True)
        world.settle(1)
    world.settle(200)
    assert len(only(world).paths) == 2
    assert kinds(world).count(Event.MOVED) == 0, "with its backup it need not move at all"
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "silver")
    world.settle(1)
    before = ways(world)
    world.link(f"1-{before[0][1]}", up=False)
    world.settle(1)
    assert len(ways(world)) == 1
    world.link(f"1-{before[0][1]}", up=True)
    world.settle(300)
    assert set(ways(world)) == set(before)
    assert kinds(world).count(Event.MOVED) == 2


def test_it_is_renewed_when_its_ckms_asks_and_over_when_it_does_not() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "gold")
    world.settle(1)
    labels = {entry.label for _, entry in world.entries()}
    for _ in range(4):
        world.wait(450.0)
        world.check()
        assert world.wanted("ckms-1", "ckms-4", "gold").refusal is None
        world.settle(1)
    world.wait(100.0)
    assert kinds(world).count(Event.RENEWED) == 4
    assert labels.isdisjoint(entry.label for _, entry in world.entries()), "under other labels"
    world.wait(900.0)
    world.settle(70)
    assert not world.core.served
    assert not world.promises
    assert not world.statements
    assert not world.entries()
    assert not world.core.reservations.leases


def test_a_new_controller_adopts_what_is_installed_and_changes_nothing() -> None:
    world = begun(World(SQUARE))
    for service_class in ("gold", "silver", "bronze", "split"):
        world.wanted("ckms-1", "ckms-4", service_class)
    world.settle(3)
    there = world.entries(), {one.demand.id: one.paths for one in world.core.served}
    leases = {(lease.demand, lease.rate, frozenset(lease.hops)) for lease in world.core.reservations.leases}
    world.lead()
    world.settle(3)
    assert world.entries() == there[0]
    assert {one.demand.id: one.paths for one in world.core.served}.keys() == there[1].keys()
    assert {(one.demand, one.rate, frozenset(one.hops)) for one in world.core.reservations.leases} == leases
    world.check_settled()


def test_an_old_leader_and_what_it_sent_late_are_refused() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "silver")
    old = list(world.underway)
    assert old
    world.lead()
    world.settle(1)
    assert all(world.arrive(one) is not None for one in old if isinstance(one.effect, Tell))
    world.check_settled()


def test_rates_that_fall_take_back_the_promise_after_a_while() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "gold", 40.0)
    world.settle(1)
    link = world.view.link("1-2")
    world.link("1-2", ab=type(link.ab)(10, link.ab.pool, link.ab.capacity))
    world.wait(20.0)
    assert only(world).current is not None
    world.wait(20.0)
    world.settle(1)
    assert ways(world) == [("1", "3", "4")], "it goes on without a backup"
    assert reserved(world) == {"1-3": 450, "3-4": 450}
    world.link("1-3", ab=type(link.ab)(10, link.ab.pool, link.ab.capacity))
    world.wait(40.0)
    world.settle(1)
    assert only(world).current is None
    assert not world.core.reservations.leases
    world.link("1-2", ab=link.ab)
    world.settle(2)
    assert only(world).current is None, "what is new is refused without a backup"
    world.link("1-3", ab=link.ab)
    world.settle(40)
    assert len(ways(world)) == 2


def weak_gold() -> World:
    """Gold whose backup's second link is down, where there is no other."""
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "gold", 40.0)
    world.settle(1)
    world.link(f"{ways(world)[1][1]}-4", up=False)
    world.settle(2)
    return world


@pytest.mark.parametrize("rank", [0, 1])
def test_gold_that_loses_its_backup_stays_in_force_and_says_so(rank: int) -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "gold", 40.0)
    world.settle(1)
    before, entries = ways(world), world.entries()
    world.link(f"{before[rank][1]}-4", up=False)
    world.settle(5)
    served = only(world)
    assert world.entries() == entries
    assert served.refusal is not None
    assert served.refusal.why == "there is no second path: every other has links that are down"
    assert reserved(world) == dict.fromkeys(("1-2", "2-4", "1-3", "3-4"), 450)
    assert world.wanted("ckms-4", "ckms-1", "gold", 40.0).refusal is PathRefusal.NOT_DISJOINT
    for _ in range(3):
        world.wait(450.0)
        assert world.wanted("ckms-1", "ckms-4", "gold", 40.0).refusal is None
        world.settle(2)
        assert ways(world) == [before[1 - rank]]
        assert only(world).refusal is not None
    assert reserved(world) == dict.fromkeys((f"1-{before[1 - rank][1]}", f"{before[1 - rank][1]}-4"), 450)
    assert kinds(world).count(Event.DEGRADED) == 1
    world.link(f"{before[rank][1]}-4", up=True)
    world.settle(60)
    assert set(ways(world)) == set(before)
    assert only(world).refusal is None
    assert kinds(world).count(Event.MOVED) == 1
    world.check_settled()


def test_a_link_that_comes_and_goes_moves_no_gold() -> None:
    world = weak_gold()
    entries, link = world.entries(), f"{ways(world)[1][1]}-4"
    for _ in range(5):
        world.link(link, up=True)
        world.settle(1)
        world.link(link, up=False)
        world.settle(1)
    world.link(link, up=True)
    world.settle(1)
    assert world.entries() == entries
    assert only(world).refusal is None
    assert kinds(world).count(Event.DEGRADED) == kinds(world).count(Event.RESTORED) == 6


@pytest.mark.parametrize("renewed", [False, True])
def test_gold_without_a_backup_outlives_the_controller(renewed: bool) -> None:
    world = weak_gold()
    if renewed:
        world.wait(450.0)
        world.wanted("ckms-1", "ckms-4", "gold", 40.0)
        world.settle(2)
    entries, rates = world.entries(), reserved(world)
    world.lead()
    world.settle(5)
    assert world.entries() == entries
    assert reserved(world) == rates
    assert only(world).refusal is not None
    world.check_settled()


def test_gold_goes_to_the_only_path_when_both_of_its_own_fail() -> None:
    world = begun(World(network(("1", "2"), ("2", "4"), ("1", "3"), ("3", "4"), ("1", "5"), ("5", "6"), ("6", "4"))))
    world.wanted("ckms-1", "ckms-4", "gold", 40.0)
    world.settle(1)
    assert sorted(ways(world)) == [("1", "2", "4"), ("1", "3", "4")]
    world.view = world.view.changed([replace(world.view.link(name), up=False) for name in ("1-2", "3-4")])
    world.see()
    world.settle(1)
    assert ways(world) == [("1", "5", "6", "4")]
    assert reserved(world) == {"1-5": 450, "5-6": 450, "6-4": 450}
    assert only(world).refusal is not None


def test_a_rate_that_grows_is_reserved_as_far_as_it_can_be() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "gold", 20.0)
    world.settle(2)
    assert set(reserved(world).values()) == {225}
    assert world.wanted("ckms-1", "ckms-4", "gold", 40.0).refusal is None
    world.settle(2)
    assert set(reserved(world).values()) == {450}
    assert {entry.limit.rate for _, entry in world.entries() if entry.serial in served_serials(world)} == {50.0}
    assert world.wanted("ckms-1", "ckms-4", "gold", 4_000.0).refusal is None
    world.settle(2)
    (half,) = set(reserved(world).values())
    assert 720 < half < 730, "half of what is left beside its own rate"
    entries, since = world.entries(), only(world).current
    for _ in range(3):
        assert world.wanted("ckms-1", "ckms-4", "gold", 4_000.0).refusal is None, "it keeps what it has"
        world.settle(2)
    assert (world.entries(), only(world).current) == (entries, since)
    assert only(world).unmet == 40_000
    assert kinds(world).count(Event.NOT_RAISED) == 1
    assert kinds(world).count(Event.RENEWED) == 2
    world.wait(450.0)
    world.wanted("ckms-1", "ckms-4", "gold", 8.0)
    world.settle(2)
    assert set(reserved(world).values()) == {90}, "far less is asked for at a renewal"


def test_a_rate_that_is_raised_may_move_a_demand_to_where_it_is() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "gold", 10.0)
    world.wanted("ckms-1", "ckms-2", "gold", 30.0)
    world.settle(2)
    room = world.wanted("ckms-1", "ckms-4", "gold", 90.0)
    assert room.refusal is None
    world.settle(2)
    assert max(reserved(world).values()) <= 1_000
    fresh = world.wanted("ckms-4", "ckms-3", "gold", 1_000.0)
    assert fresh.refusal is PathRefusal.NO_CAPACITY
    assert fresh.rate > 0
    assert world.wanted("ckms-4", "ckms-3", "gold", fresh.rate).refusal is None, "what was said to be possible is"


def test_a_node_in_quarantine_is_left_even_where_there_is_no_other_way() -> None:
    world = begun(World(LINE))
    world.wanted("ckms-1", "ckms-7", "bronze")
    world.settle(1)
    world.link("3-4", up=False)
    world.settle(1)
    assert only(world).current is not None, "a link that is down may be back"
    world.link("3-4", up=True)
    world.quarantine("ckms-4", True)
    world.settle(1)
    assert only(world).current is None
    assert not world.nodes["ckms-1"].paths
    world.quarantine("ckms-4", False)
    world.settle(1)
    assert ways(world) == [tuple("1234567")]


def test_a_node_is_left_when_the_source_has_confirmed_that_and_not_before() -> None:
    world = begun(World(LINE))
    world.wanted("ckms-1", "ckms-7", "bronze")
    world.settle(1)

    def left(*nodes: str) -> bool:
        return world.core.has_left("ckms-1", "ckms-7", "bronze", set(nodes))

    assert not left("ckms-4", "ckms-9")
    assert left("ckms-9"), "no path ever led there"
    world.quarantine("ckms-4", True)
    assert not left("ckms-4"), "its paths are to be withdrawn"
    world.deliver(0, Fate.LOST)
    assert not left("ckms-4"), "nobody knows whether they were"
    world.hush("ckms-1")
    world.wait(30.0)
    assert world.nodes["ckms-1"].paths
    assert not left("ckms-4"), "its source is cut off, and goes on"
    world.settle(2)
    assert not world.nodes["ckms-1"].paths
    assert left("ckms-4")
    world.lead()
    assert not left("ckms-4"), "a new leader has to read first"
    world.settle(2)
    assert left("ckms-4")


def test_paths_that_wait_for_a_busy_source_are_not_put_in_force_over_a_node_in_quarantine() -> None:
    world = begun(World(LADDER))
    world.wanted("ckms-1", "ckms-4", "silver")
    world.wanted("ckms-1", "ckms-4", "bronze")
    while any(one.effect.node != "ckms-1" for one in world.underway):
        world.deliver([one.effect.node == "ckms-1" for one in world.underway].index(False), Fate.ANSWERED)
    assert said(world) == [("ckms-1", PathStatement)] * 2
    waits = next(one for one in world.core.served if one.demand.service_class == "bronze")
    assert waits.laying is not None
    assert waits.laying.switching
    suspect = waits.laying.generation.paths[0].nodes[1]
    world.quarantine(suspect, True)
    world.deliver(0, Fate.ANSWERED)
    while world.underway:
        for one in world.underway:
            starts = [say.says for say in one.effect.says] if isinstance(one.effect, Tell) else []
            assert all(start.first.neighbour != suspect for start in starts if isinstance(start, PathStatement))
        world.deliver(0, Fate.ANSWERED)
    assert all(suspect not in path.nodes for served in world.core.served for path in served.paths)
    world.settle(62)
    world.check_settled()


def test_shares_go_over_nodes_of_their_own_or_not_at_all() -> None:
    world = begun(World(SQUARE))
    assert world.wanted("ckms-1", "ckms-4", "split").refusal is None
    world.settle(1)
    assert [(path.share, path.shares) for path in world.nodes["ckms-1"].paths] == [(0, 2), (1, 2)]
    world = begun(World(LINE))
    assert world.wanted("ckms-1", "ckms-7", "split").refusal is PathRefusal.NOT_DISJOINT


def test_a_failure_that_no_telemetry_shows_leads_around_its_link() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "bronze")
    world.settle(2)
    first, second = ways(world)
    world.wait(2.0)
    world.wanted("ckms-1", "ckms-4", "bronze", failed=f"ckms-{first[1]}")
    while world.underway:
        world.deliver(0, Fate.ANSWERED)
    assert ways(world)[0] == second


def test_who_does_not_lead_says_so() -> None:
    world = begun(World(SQUARE))
    world.core.deposed(world.now)
    assert world.wanted("ckms-1", "ckms-4", "silver").refusal is PathRefusal.NOT_LEADER
    world.wait(100.0)
    assert not any(isinstance(one.effect, Read) for one in world.underway)


def test_what_is_urgent_is_done_part_by_part_and_the_highest_class_first() -> None:
    middles = [str(number) for number in range(10, 10 + MOST_URGENT)]
    star = [pair for name in middles for pair in ((name, "1"), (name, "2"))]
    world = begun(World(network(*star, ("1", "4"), ("2", "4"))))
    for name in middles:
        world.wanted(f"ckms-{name}", "ckms-4", "bronze", 1.0)
        world.wanted(f"ckms-{name}", "ckms-4", "gold", 1.0)
    world.settle(3)
    link = replace(world.view.link("1-4"), up=False)
    world.core.see(Discovery(PlannedNetwork((), ()), world.now, world.view.changed([link]), {}), world.now)
    behind = world.core.behind
    assert behind
    moving = [served.demand.service_class for served in world.core.served if served.laying]
    assert moving == ["gold"] * MOST_URGENT
    world.core.go_on(world.now)
    assert not world.core.behind
    assert all(served.laying for served in world.core.served)


def test_many_demands_are_laid_in_turn_and_all_of_them_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """No node is told of more at once than it can take, and who waits for a turn is not late."""
    monkeypatch.setattr(installation, "MOST", 2)
    world = begun(World(LINE))
    ends = [(f"ckms-{one}", f"ckms-{other}") for one in range(1, 8) for other in range(1, 8) if one != other]
    for source, target in ends:
        assert world.core.wanted(source, target, "bronze", 10.0, None, world.now).refusal is None
        under_way = [served for served in world.core.served if served.laying and served.laying.deadline < inf]
        assert len(under_way) <= 2
    world.settle(400)
    assert {(served.demand.source, served.demand.target) for served in world.core.served if served.current} == {*ends}
    assert Event.NOT_INSTALLED not in kinds(world)
