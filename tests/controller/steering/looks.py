"""Small networks, and looks at the one demand of a world."""

from __future__ import annotations

from controller.steering.effects import Tell
from controller.steering.events import Event
from controller.steering.served import Served
from tests.controller.steering.world import World, network

SQUARE = network(("1", "2"), ("2", "4"), ("1", "3"), ("3", "4"))
LINE = network(*((str(number), str(number + 1)) for number in range(1, 7)))
LADDER = network(("1", "2"), ("2", "4"), ("1", "3"), ("3", "4"), ("1", "5"), ("5", "4"))


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


def reserved(world: World) -> dict[str, int]:
    """What is reserved of each link, from its end a."""
    return {link.id: link.ab.reserved for link in world.core.view.links if link.ab.reserved}


def served_serials(world: World) -> set[int]:
    """Of the entries in force of the one demand."""
    current = only(world).current
    return {serial for _, serial in current.entries} if current else set()


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
