"""Whatever happens, in whatever order: no loop, no path that leads nowhere, nothing half-installed that stays."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.steering.events import Event
from tests.controller.steering.world import Fate, World, network

VIEW = network(
    ("1", "2"),
    ("2", "3"),
    ("3", "4"),
    ("1", "5"),
    ("5", "4"),
    ("5", "3"),
    ("1", "6"),
    ("6", "4"),
    plain=("1-6",),
)
NODES = [node.id for node in VIEW.nodes]
LINKS = [link.id for link in VIEW.links]
CLASSES = ("gold", "silver", "bronze", "split")

FREQUENCIES = {
    "deliver": 6.0,
    "answer one": 10.0,
    "answer": 14.0,
    "wanted": 10.0,
    "link": 6.0,
    "rate": 3.0,
    "quarantine": 1.0,
    "restart": 1.5,
    "hush": 2.0,
    "speak": 4.0,
    "lead": 1.5,
    "late": 1.5,
    "wait": 8.0,
    "wipe": 0.0,
}


def step(world: World, draw: random.Random, action: str) -> None:
    """Let something happen."""
    match action:
        case "deliver" if world.underway:
            world.deliver(draw.randrange(9), draw.choice(list(Fate)))
        case "answer one" if world.underway:
            world.deliver(draw.randrange(9), Fate.ANSWERED)
        case "answer":
            for _ in range(draw.randint(1, 25)):
                if world.underway:
                    world.deliver(0, Fate.ANSWERED)
                    world.check()
        case "wanted":
            source, target = draw.choice(["ckms-1", "ckms-4"]), draw.choice(["ckms-1", "ckms-3", "ckms-4"])
            failed = draw.choice([None, *NODES]) if draw.random() < 0.3 else None
            world.wanted(source, target, draw.choice(CLASSES), draw.choice([1.0, 20.0, 60.0]), failed)
        case "link":
            world.link(draw.choice(LINKS), up=draw.random() < 0.6)
        case "rate":
            link = world.view.link(draw.choice(LINKS))
            world.link(link.id, ab=replace(link.ab, rate=draw.choice([0, 100, 500, 1_000])))
        case "quarantine":
            world.quarantine(draw.choice(NODES), draw.random() < 0.3)
        case "restart" | "wipe":
            world.restart(draw.choice(NODES), wipe=action == "wipe")
        case "hush":
            world.hush(draw.choice(NODES), dead=draw.random() < 0.5)
        case "speak":
            world.speak(draw.choice(NODES))
        case "lead":
            world.lead()
        case "late":
            for one in world.late:
                world.arrive(one)
            world.late = []
        case "wait":
            world.wait(draw.choice([0.1, 1.0, 1.0, 10.0, 40.0, 400.0]))


def run(seed: int, steps: int, frequencies: dict[str, float]) -> World:
    """A history that begins with a demand of each class, half-installed or settled, and ends when all is quiet."""
    draw = random.Random(seed)
    world = World(VIEW, seed)
    world.lead()
    for service_class in CLASSES:
        world.wanted("ckms-1", "ckms-4", service_class, 20.0)
    if draw.random() < 0.7:
        world.settle(2)
    for action in draw.choices(list(frequencies), list(frequencies.values()), k=steps):
        step(world, draw, action)
        world.check()
    world.settle()
    world.check_settled()
    return world


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 32), st.integers(10, 120))
def test_paths_in_force_always_lead_to_their_ends(seed: int, steps: int) -> None:
    world = run(seed, steps, FREQUENCIES)
    world.check()
    assert not [note for note in world.notes if note.kind is Event.UNKNOWN], "nothing was forgotten that a node has"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 32), st.integers(10, 120))
def test_what_a_node_lost_is_installed_again_or_taken_back(seed: int, steps: int) -> None:
    world = run(seed, steps, FREQUENCIES | {"wipe": 1.0})
    world.wiped = False
    world.check()
