"""One demand at a time: how paths go in, move, are taken back, and outlive controllers."""

from __future__ import annotations

import pytest

from controller.steering.effects import Read, Tell
from controller.steering.events import Event
from controller.steering.served import Served
from keyhaul.agents.statements import EntryStatement, PathStatement, Withdrawal
from keyhaul.transport.messages.path import PathRefusal
from tests.controller.steering.world import Fate, World, network

SQUARE = network(("1", "2"), ("2", "4"), ("1", "3"), ("3", "4"))
LINE = network(*((str(number), str(number + 1)) for number in range(1, 7)))


def begun(world: World) -> World:
    """A world whose controller leads and knows its nodes."""
    world.lead()
    world.settle(1)
    return world


def only(world: World) -> Served:
    """The one demand."""
    (served,) = world.core.served
    return served


def ways(world: World) -> list[tuple[str, ...]]:
    """The nodes of the paths in force, by rank."""
    return [tuple(name.removeprefix("ckms-") for name in path.nodes) for path in only(world).paths]


def kinds(world: World) -> list[Event]:
    """What was told of demands."""
    return [Event(note.kind) for note in world.notes if note.subject in {one.demand.id for one in world.core.served}]


def said(world: World) -> list[tuple[str, type]]:
    """What is on its way: node and kind of statement."""
    return [
        (one.effect.node, type(say.says))
        for one in world.underway
        if isinstance(one.effect, Tell)
        for say in one.effect.says
    ]


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
    world.link(f"1-{first[1]}", up=False)
    assert said(world), "statements leave before any tick"
    while world.underway:
        world.deliver(0, Fate.ANSWERED)
        world.check()
    assert ways(world) == [second]
    assert old <= set(world.entries()), "what is on its way may still use them"
    world.wait(61.0)
    world.settle(1)
    assert old.isdisjoint(world.entries())
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


def test_nothing_is_taken_back_while_links_are_not_known_yet() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "gold", 40.0)
    world.settle(1)
    there = world.entries()
    for name in world.nodes:
        world.silent[name] = False
    world.lead()
    world.wait(40.0)
    assert world.entries() == there
    world.settle(1)
    assert world.entries() == there


def test_what_a_dead_node_had_reserved_comes_back_and_a_cut_off_one_goes_on() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "gold", 40.0)
    world.settle(1)
    world.hush("ckms-1")
    for _ in range(30):
        world.wait(100.0)
        world.check()
    assert world.core.reservations.leases
    assert world.nodes["ckms-1"].paths
    world.speak("ckms-1")
    world.settle(1)
    world.hush("ckms-1", dead=True)
    world.wait(61.0)
    assert not world.core.reservations.leases


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
    assert only(world).current is None
    assert not world.core.reservations.leases
    world.link("1-2", ab=link.ab)
    world.settle(2)
    assert len(ways(world)) == 2


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
