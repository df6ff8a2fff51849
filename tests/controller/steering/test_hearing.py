"""Nodes that tell nothing: what is only not heard goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.steering.events import Event
from controller.steering.hearing import cut_off
from controller.view import Direction
from keyhaul.agents.statements import PathStatement, Withdrawal
from tests.controller.steering.looks import (
    LINE,
    SQUARE,
    begun,
    kinds,
    only,
    reserved,
    said,
    ways,
)
from tests.controller.steering.world import Fate, World, network


def test_paths_over_nodes_that_are_cut_off_go_on_until_they_are_heard_again() -> None:
    """Statements at a source that hears the controller end after a quarter of an hour; entries live for days."""
    world = begun(World(LINE))
    world.wanted("ckms-1", "ckms-7", "silver", 20.0)
    world.settle(1)
    before, entries = ways(world), world.entries()
    for name in ("ckms-3", "ckms-4"):
        world.hush(name)
    for rate in (20.0, 5.0, 40.0):
        world.wait(450.0)
        assert world.wanted("ckms-1", "ckms-7", "silver", rate).refusal is None
        assert said(world) == [("ckms-1", Withdrawal), ("ckms-1", PathStatement)], "nobody else is told anything"
        world.deliver(0, Fate.ANSWERED)
        world.check()
    assert (ways(world), world.entries()) == (before, entries)
    (path,) = world.nodes["ckms-1"].paths
    assert world.nodes["ckms-1"].installed.held[path.serial or 0].remaining(world.now) == 900.0
    assert kinds(world).count(Event.PROLONGED) == 3
    world.wanted("ckms-1", "ckms-7", "silver", 20.0)
    world.settle(1)
    world.wait(450.0)
    world.wanted("ckms-1", "ckms-7", "silver", 20.0)
    world.settle(70)
    assert ways(world) == before
    assert set(world.entries()).isdisjoint(entries), "laid anew once all nodes are heard"
    world.check_settled()


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.LOST, Fate.UNANSWERED, Fate.LATE])
@pytest.mark.parametrize("leads", [True, False])
def test_paths_that_cannot_be_prolonged_at_once_stay_as_they_are(fate: Fate, leads: bool) -> None:
    world = begun(World(LINE))
    world.wanted("ckms-1", "ckms-7", "silver")
    world.settle(1)
    before, entries = ways(world), world.entries()
    world.hush("ckms-4")
    world.wait(450.0)
    world.wanted("ckms-1", "ckms-7", "silver")
    world.deliver(0, fate)
    if leads:
        world.lead()
    for _ in range(40):
        world.wait(0.5)
        while world.underway:
            world.deliver(0, Fate.ANSWERED)
            world.check()
    assert (ways(world), world.entries()) == (before, entries)
    assert len(world.nodes["ckms-1"].paths) == 1
    assert only(world).current is not None
    world.settle(2)
    world.check_settled()


def test_paths_that_are_being_prolonged_when_nobody_wants_them_any_more_are_taken_back() -> None:
    world = begun(World(LINE))
    world.wanted("ckms-1", "ckms-7", "silver")
    world.settle(1)
    world.hush("ckms-4")
    world.wait(450.0)
    world.wanted("ckms-1", "ckms-7", "silver")
    world.hush("ckms-7", dead=True)
    world.wait(61.0)
    world.deliver(0, Fate.ANSWERED)
    world.wait(1.0)
    assert not world.core.served
    world.settle(70)
    assert not world.entries()
    assert not world.nodes["ckms-1"].paths
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


def test_nodes_that_were_cut_off_and_are_heard_again_one_by_one_move_nothing() -> None:
    """The third way is the first that is known to work again, and is not better for that."""
    world = begun(World(network(*((end, middle) for middle in "235" for end in "14"))))
    world.wanted("ckms-1", "ckms-4", "gold", 40.0)
    world.settle(1)
    before = ways(world)
    (spare,) = set("235") - {middle for _, middle, _ in before}
    taken = sorted(set("235") - {spare})
    for name in (*taken, spare, "4"):
        world.hush(f"ckms-{name}")
    world.wait(20.0)
    for name in ("4", spare, *taken):
        world.speak(f"ckms-{name}")
        world.settle(10)
    assert ways(world) == before
    assert kinds(world) == [Event.INSTALLED]


def test_a_new_controller_keeps_what_is_reserved_on_links_that_it_does_not_know_yet() -> None:
    world = begun(World(SQUARE))
    world.wanted("ckms-1", "ckms-4", "gold", 40.0)
    world.settle(1)
    entries, rates, view = world.entries(), reserved(world), world.view
    unknown = [replace(link, up=False, ab=Direction(), ba=Direction()) for link in view.links]
    world.view = view.changed(unknown)
    world.lead()
    world.settle(10)
    assert world.entries() == entries
    world.view = view
    world.settle(2)
    assert world.entries() == entries
    assert reserved(world) == rates
    assert only(world).refusal is None


RING = network(*((str(number), str(number % 7 + 1)) for number in range(1, 8)))
"""Both ways round are whole."""


def restarted(order: str, dead: str = "") -> tuple[World, World]:
    """A world as it was, and after a new controller has heard one node after the other."""
    before, world = begun(World(RING)), begun(World(RING))
    for one in (before, world):
        one.wanted("ckms-1", "ckms-4", "silver")
        one.settle(30)
    world.silent = {name: name == f"ckms-{dead}" for name in world.nodes}
    world.lead()
    for number in order:
        world.speak(f"ckms-{number}")
        while world.underway:
            world.deliver(0, Fate.ANSWERED)
        world.wait(1.0)
    return before, world


@pytest.mark.parametrize("order", ["1234567", "1726354", "1357246", "7654321"])
def test_a_new_controller_that_hears_one_node_after_the_other_moves_nothing(order: str) -> None:
    before, world = restarted(order)
    world.settle(5)
    assert (ways(world), world.entries()) == (ways(before), before.entries())


@pytest.mark.parametrize("order", ["134567", "176543"])
def test_a_node_that_died_before_the_controller_began_is_left_once_a_neighbour_says_so(order: str) -> None:
    before, world = restarted(order, dead="2")
    assert ways(before)[0] == ("1", "2", "3", "4")
    assert ways(world) == [("1", "7", "6", "5", "4")]


def test_nodes_behind_those_that_are_cut_off_are_so_too_unless_a_neighbour_denies_it() -> None:
    """1 - 2 - 3 - 4 - 5 - 6 - 7."""
    assert cut_off(LINE, {}) == set()
    assert cut_off(LINE, {"ckms-3": True, "ckms-4": False, "ckms-5": False}) == {"ckms-3", "ckms-4"}
    assert cut_off(LINE, {"ckms-3": False, "ckms-4": False, "ckms-5": False}) == set()
    assert cut_off(LINE, {f"ckms-{number}": number == 2 for number in range(2, 8)}) == {
        f"ckms-{number}" for number in range(2, 8)
    }
    assert cut_off(LINE, {"ckms-9": True}) == {"ckms-9"}, "it was planned a moment ago"
