"""Class split from the controller's side: paths that meet nowhere or a refusal that stays in sight, and the price."""

from __future__ import annotations

import pytest

from controller.steering.effects import Note
from controller.steering.events import Event
from controller.steering.routes import LIFETIME
from keyhaul.transport.messages.path import PathRefusal
from tests.controller.steering.looks import SQUARE, begun, only, ways
from tests.controller.steering.world import World


def refusals(world: World) -> list[Note]:
    return [note for note in world.notes if note.kind is Event.REFUSED]


def test_shares_go_over_paths_that_meet_nowhere_and_have_no_detours() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "split")
    world.settle(60)
    first, second = ways(world)
    assert not set(first[1:-1]) & set(second[1:-1])
    entries = [entry for _, entry in world.entries()]
    assert {entry.service_class for entry in entries} == {"split"}
    assert all(entry.detour is None for entry in entries)


def test_the_sender_is_told_what_its_paths_cost_beside_the_best_single_one() -> None:
    world = begun(World(SQUARE))
    split = world.wanted("ckms-1", "ckms-4", "split")
    assert [split.price, split.undivided] == pytest.approx([4 * 1.125, 2 * 1.125])
    world.settle(1)
    again = world.wanted("ckms-1", "ckms-4", "split")
    assert (again.price, again.undivided) == (split.price, split.undivided)
    silver = world.wanted("ckms-1", "ckms-4", "silver")
    assert (silver.price, silver.undivided) == (2.0, 0.0)
    assert "price" not in str(world.statements), "no statement tells it"


def test_where_paths_meet_the_demand_is_refused_once_and_stays_in_sight_while_it_is_asked_for() -> None:
    world = begun(World(SQUARE))
    world.link("3-4", up=False)
    world.settle(1)
    for _ in range(5):
        reply = world.wanted("ckms-1", "ckms-4", "split")
        assert reply.refusal is PathRefusal.NOT_DISJOINT
        assert (reply.price, reply.undivided) == (0.0, 0.0)
        world.settle(10)
    assert not world.core.served
    assert not world.core.reservations.leases
    assert not world.entries()
    [refused] = world.core.refused_of_late(world.now)
    assert refused.refusal is not None
    assert refused.refusal.paths_found == 1
    assert [note.subject for note in refusals(world)] == [refused.demand.id]
    world.link("3-4", up=True)
    world.settle(1)
    assert world.wanted("ckms-1", "ckms-4", "split").refusal is None
    assert world.core.refused_of_late(world.now) == ()
    assert only(world).demand.id == refused.demand.id
    world.settle(1)
    assert len(ways(world)) == 2
    assert only(world).refusal is None


def test_a_refused_demand_that_nobody_asks_for_any_more_is_out_of_sight() -> None:
    world = begun(World(SQUARE))
    world.link("3-4", up=False)
    world.settle(1)
    world.wanted("ckms-1", "ckms-4", "split")
    assert world.core.refused_of_late(world.now)
    world.wait(LIFETIME)
    assert world.core.refused_of_late(world.now) == ()


def test_shares_that_lose_a_path_lose_all_and_nothing_weaker_comes() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "split")
    world.settle(1)
    world.link("3-4", up=False)
    world.settle(60)
    for served in world.core.served:
        assert len(served.paths) in (0, 2)
    assert world.wanted("ckms-1", "ckms-4", "split").refusal is PathRefusal.NOT_DISJOINT
