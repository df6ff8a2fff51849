"""Local detours: which there are, that they lead to the end without a loop, and how they go in and out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.admission.admit import Admission, Demand, admit
from controller.admission.classes import CLASSES
from controller.admission.reservations import Reservations
from controller.paths.constraints import Constraints, lasting_obstacles
from controller.paths.policies import Policy
from controller.steering.detours import LONGER, detours
from controller.steering.events import Event
from controller.steering.serving import CALM
from controller.view import NetworkView
from services.ckms.forwarding import Entry
from tests.controller.networks import views
from tests.controller.steering.looks import begun, kinds, only, ways
from tests.controller.steering.world import Fate, World, network

LADDER = network(
    ("1", "2"), ("2", "3"), ("3", "4"), ("3", "5"), ("5", "4"), ("2", "5"), ("1", "6"), ("6", "7"), ("7", "4")
)


@settings(deadline=None, max_examples=300)
@given(views(8, 16), st.sampled_from(sorted(CLASSES)), st.sampled_from((None, 2, 3, 4)))
def test_detours_keep_to_what_the_path_keeps_to_and_pass_no_node_twice(
    view: NetworkView, name: str, limit: int | None
) -> None:
    demand = Demand("p", "n0", "n1", name, 1, constraints=Constraints(maximum_hops=limit))
    found = admit(view, Reservations(), demand, 0.0)
    if not isinstance(found, Admission):
        return
    path = found.paths[0]
    taken = detours(view, demand, path, Policy.RESIDUAL)
    assert not taken or name in ("silver", "bronze")
    assert sum(one.path.hops for one in taken) <= path.hops
    constraints = CLASSES[name].constraints(1, demand.constraints)
    for one in taken:
        assert 1 <= one.position < path.hops
        whole = path.nodes[: one.position] + one.path.nodes
        assert len(set(whole)) == len(whole)
        assert (one.path.nodes[0], one.path.nodes[-1]) == (path.nodes[one.position], path.nodes[-1])
        assert one.path.nodes[1] != path.nodes[one.position + 1]
        assert one.path.hops <= path.hops - one.position + LONGER
        assert limit is None or one.position + one.path.hops <= limit
        assert not any(lasting_obstacles(view, constraints)[arc >> 1] for arc in one.path.arcs)
    assert len({one.position for one in taken}) == len(taken)


def calmed(world: World) -> World:
    """Time passes until there are detours."""
    world.settle(int(CALM) + 20)
    return world


def around(world: World) -> list[list[str]]:
    """All the ways over which the first path may lead, that without detours first."""
    path = next(path for path in world.nodes["ckms-1"].paths if path.rank == 0)
    followed = world.follow((path.first.neighbour, path.first.label), "ckms-1")
    return [[name.removeprefix("ckms-") for name in way] for way in followed]


def in_force(world: World) -> list[Entry]:
    """The entries of the one demand, but for those that drain."""
    current = only(world).current
    assert current is not None
    serials = {serial for _, serial in current.entries}
    return [entry for _, entry in world.entries() if entry.serial in serials]


@pytest.mark.parametrize("service_class", ["silver", "bronze"])
def test_paths_get_their_detours_when_they_have_been_calm(service_class: str) -> None:
    world = begun(World(LADDER))
    world.wanted("ckms-1", "ckms-4", service_class)
    world.settle(3)
    before = ways(world)
    assert len(around(world)) == 1
    calmed(world)
    first, *further = around(world)
    assert first == list(before[0])
    assert further
    assert all(way[-1] == "4" for way in further)
    assert ways(world) == before
    assert kinds(world).count(Event.PROTECTED) == 1
    assert len(in_force(world)) <= 2 * len(before[0]) + len(before[1]) - 3
    serials = {entry.serial for entry in in_force(world)}
    world.settle(100)
    assert {entry.serial for entry in in_force(world)} == serials, "once"
    world.check_settled()


@pytest.mark.parametrize("service_class", ["gold", "split"])
def test_what_is_reserved_or_shared_has_none(service_class: str) -> None:
    world = begun(World(LADDER))
    world.wanted("ckms-1", "ckms-4", service_class)
    calmed(world)
    assert not any(entry.detour for _, entry in world.entries())
    assert Event.PROTECTED not in kinds(world)


def test_an_entry_that_names_a_detour_comes_after_all_that_is_on_it() -> None:
    world = begun(World(LADDER))
    world.wanted("ckms-1", "ckms-4", "silver")
    named = 0
    for _ in range(400):
        if world.underway:
            world.deliver(0, Fate.ANSWERED)
        else:
            world.wait(0.5)
        world.check()
        for name, entry in world.entries():
            if entry.detour:
                named += 1
                ends = [way[-1] for way in world.follow((name, entry.label), entry.previous)]
                assert set(ends) == {"ckms-4"}
    assert named


def test_a_renewal_has_detours_from_the_start_and_takes_the_former_with_it() -> None:
    world = begun(World(LADDER))
    world.wanted("ckms-1", "ckms-4", "silver")
    calmed(world)
    before = in_force(world)
    world.wait(440.0)
    world.wanted("ckms-1", "ckms-4", "silver")
    world.settle(1)
    assert len(around(world)) > 1
    world.settle(70)
    assert {entry.label for _, entry in world.entries()}.isdisjoint(entry.label for entry in before)
    assert kinds(world).count(Event.PROTECTED) == 1
    world.check_settled()


def test_a_new_controller_adopts_detours_and_mends_those_that_are_torn() -> None:
    world = begun(World(LADDER))
    world.wanted("ckms-1", "ckms-4", "bronze")
    calmed(world)
    entries, led = world.entries(), around(world)
    world.lead()
    calmed(world)
    assert world.entries() == entries
    [torn] = {way[-2] for way in led[1:]} - {led[0][-2]} or {led[1][-2]}
    world.restart(f"ckms-{torn}", wipe=True)
    world.wiped = True
    world.lead()
    calmed(world)
    assert all(way[-1] == "4" for way in around(world))
    world.check_settled()


def test_a_detour_leaves_a_node_in_quarantine() -> None:
    world = begun(World(LADDER))
    world.wanted("ckms-1", "ckms-4", "silver")
    calmed(world)
    [name] = {name for way in around(world)[1:] for name in way} - {name for way in ways(world) for name in way}
    world.quarantine(f"ckms-{name}", True)
    world.settle(5)
    assert not any(name in way for way in around(world))
    assert len(ways(world)) == 2


def test_a_detour_that_cannot_be_installed_leaves_its_path_in_force() -> None:
    world = begun(World(LADDER))
    world.wanted("ckms-1", "ckms-4", "silver")
    world.settle(3)
    before = in_force(world)
    world.wait(CALM)
    while not world.underway:
        world.wait(1.0)
    while Event.NOT_INSTALLED not in kinds(world):
        world.deliver(0, Fate.REFUSED)
    world.settle(3)
    assert in_force(world) == before
    assert kinds(world).count(Event.NOT_INSTALLED) == 1
    world.settle(70)
    world.check_settled()


def test_a_link_around_which_a_detour_leads_moves_the_path_all_the_same() -> None:
    world = begun(World(LADDER))
    world.wanted("ckms-1", "ckms-4", "silver")
    calmed(world)
    first = ways(world)[0]
    link = world.view.links[world.view.topology.link_number["-".join(sorted(first[-2:]))]]
    world.view = world.view.changed([replace(link, up=False)])
    world.see()
    world.settle(2)
    assert all(link.id not in path.links for path in only(world).ways)
