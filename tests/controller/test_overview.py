"""What operators see of demands: what carries, what is about to, and what still drains."""

from __future__ import annotations

from controller.northbound.interface import DemandAsKept, PathState
from controller.overview import kept
from controller.steering.talks import DRAIN
from tests.controller.steering.world import World, network

SQUARE = network(("1", "2"), ("2", "4"), ("1", "3"), ("3", "4"), ("1", "5"), ("5", "4"))


def shown(world: World) -> DemandAsKept:
    (one,) = kept(world.core.served, world.now)
    return one


def ways(demand: DemandAsKept, state: PathState) -> set[str]:
    """The nodes in the middle of the paths in a state."""
    return {path.path.nodes[1] for path in demand.paths if path.state is state}


def test_a_path_is_installing_then_installed_and_drains_when_another_takes_its_place() -> None:
    world = World(SQUARE)
    world.lead()
    world.settle(1)
    world.wanted("ckms-1", "ckms-4", "silver")
    assert ways(shown(world), PathState.INSTALLING)
    assert not shown(world).is_served
    world.settle(2)
    before = ways(shown(world), PathState.INSTALLED)
    assert shown(world).is_served
    assert len(before) == 2
    (gone, *_) = sorted(before)
    world.quarantine(gone, True)
    world.settle(2)
    moved = shown(world)
    assert gone not in ways(moved, PathState.INSTALLED)
    assert ways(moved, PathState.DRAINING) == {gone}, "the other path is in force again, under other labels"
    assert [path.state for path in moved.paths][-1] is PathState.DRAINING
    world.wait(DRAIN + 1)
    world.settle(1)
    assert ways(shown(world), PathState.DRAINING) == set()


def test_a_demand_that_lost_its_paths_is_served_by_nothing_though_they_drain() -> None:
    world = World(SQUARE)
    world.lead()
    world.settle(1)
    world.wanted("ckms-1", "ckms-4", "silver")
    world.settle(2)
    for node in ("ckms-2", "ckms-3", "ckms-5"):
        world.quarantine(node, True)
        world.settle(2)
    lost = shown(world)
    assert not lost.is_served
    assert ways(lost, PathState.DRAINING)
