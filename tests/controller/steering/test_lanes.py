"""One path of a demand moves, the others stay."""

from __future__ import annotations

import pytest

from controller.steering.routes import ENTRY_LIFETIME, LIFETIME
from keyhaul.agents.statements import EntryStatement
from services.ckms.held import Held
from tests.controller.steering.looks import (
    LADDER,
    begun,
    only,
    said,
    ways,
)
from tests.controller.steering.world import Ckms, Fate, World


def moves(world: World, service_class: str, cut: int = 0) -> list[tuple[str, ...]]:
    """Serve a demand over a ladder of three ways, and cut the first link of its first path, or of its backup."""
    world.wanted("ckms-1", "ckms-4", service_class)
    world.settle(1)
    before = ways(world)
    world.link(f"1-{before[cut][1]}", up=False)
    return before


@pytest.mark.parametrize("service_class", ["gold", "silver", "bronze"])
@pytest.mark.parametrize("cut", [0, 1])
def test_a_path_stays_as_it_is_when_only_the_other_one_moves(service_class: str, cut: int) -> None:
    world = begun(World(LADDER))
    before = moves(world, service_class, cut)
    old, stays = set(world.entries()), f"ckms-{before[1 - cut][1]}"
    heard = set()
    while world.underway:
        heard |= {node for node, _ in said(world)}
        world.deliver(0, Fate.ANSWERED)
        world.check()
    assert stays not in heard, "it is told nothing"
    assert {way[1] for way in ways(world)} == {"2", "3", "5"} - {before[cut][1]}
    world.settle(62)
    kept = {(name, entry) for name, entry in old if stays in (name, entry.previous)}
    assert len(kept) == 2
    assert kept <= set(world.entries())
    assert len(world.entries()) == 4
    world.check_settled()


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.LOST, Fate.UNANSWERED, Fate.LATE])
@pytest.mark.parametrize("step", range(3))
def test_a_move_that_fails_leaves_the_path_that_stays(fate: Fate, step: int) -> None:
    """It fails at each of its two new entries, and at the source."""
    world = begun(World(LADDER))
    before = moves(world, "silver")
    stays = f"ckms-{before[1][1]}"
    kept = {(name, entry) for name, entry in world.entries() if stays in (name, entry.previous)}
    for _ in range(step):
        world.deliver(0, Fate.ANSWERED)
    world.deliver(0, fate)
    for _ in range(200):
        assert kept <= set(world.entries())
        assert any(path.first.neighbour == stays for path in world.nodes["ckms-1"].paths)
        world.check()
        if world.underway:
            world.deliver(0, Fate.ANSWERED)
        world.wait(0.25)
    assert len(ways(world)) == 2
    world.settle(62)
    world.check_settled()


def test_a_demand_that_ends_while_one_of_its_paths_moves_leaves_nothing() -> None:
    for steps in range(3):
        world = begun(World(LADDER))
        moves(world, "silver")
        for _ in range(steps):
            world.deliver(0, Fate.ANSWERED)
        world.quarantine("ckms-4", True)
        world.settle(3)
        assert only(world).current is None
        world.settle(62)
        assert not world.entries()
        world.check_settled()


def test_a_path_that_a_node_lost_a_part_of_is_laid_anew_with_the_other() -> None:
    world = begun(World(LADDER))
    world.wanted("ckms-1", "ckms-4", "silver")
    world.settle(1)
    old = set(world.entries())
    world.restart(f"ckms-{ways(world)[0][1]}", wipe=True)
    world.settle(2)
    world.wiped = False
    assert len(ways(world)) == 2
    world.settle(62)
    assert old.isdisjoint(world.entries())
    world.check_settled()


def test_a_rate_that_is_policed_anew_needs_new_entries() -> None:
    world = begun(World(LADDER))
    world.wanted("ckms-1", "ckms-4", "gold", 10.0)
    world.settle(1)
    old = set(world.entries())
    world.wanted("ckms-1", "ckms-4", "gold", 40.0)
    world.settle(62)
    assert old.isdisjoint(world.entries())
    assert {entry.limit.rate for _, entry in world.entries()} == {50.0}


def test_no_entry_gets_older_than_a_path_however_often_the_other_one_moves() -> None:
    world = begun(World(LADDER))
    world.wanted("ckms-1", "ckms-4", "silver")
    world.settle(1)
    for _ in range(8):
        cut = ways(world)[1][1]
        world.link(f"1-{cut}", up=False)
        world.settle(1)
        world.link(f"1-{cut}", up=True)
        world.wait(300.0)
        world.wanted("ckms-1", "ckms-4", "silver")
        world.settle(2)
        oldest = min(held.remaining(world.now) for node in world.nodes.values() for held in entries_held(node))
        assert oldest > ENTRY_LIFETIME - LIFETIME


def entries_held(node: Ckms) -> list[Held]:
    """The entries that do not drain."""
    held = [node.installed.held[serial] for serial in node.serials]
    return [one for one in held if isinstance(one.statement.says, EntryStatement)]


def test_shares_are_all_laid_anew_when_one_of_them_moves() -> None:
    """A node that carried one share of some keys must not come to carry another share of the same demand's."""
    world = begun(World(LADDER))
    moves(world, "split")
    old = set(world.entries())
    world.settle(62)
    assert len(ways(world)) == 2
    assert old.isdisjoint(world.entries())
