"""When discoveries are made, and which of what disagrees is an alarm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from controller import watching
from controller.facts import LinkFacts, NodeReport, PoolFacts, Received
from controller.planned import PlannedLink, PlannedNetwork, PlannedNode
from controller.topology import Discovery, LinkState
from controller.watching import SETTLING, STANDING, Watching, counted

SUITES = frozenset({"otp"})
PLANNED = PlannedNetwork(
    (PlannedNode("ckms-1"), PlannedNode("ckms-2")),
    (PlannedLink("1-2", "ckms-1", "ckms-2", rate=1_000, capacity=8_000, suites=SUITES),),
)
POOL = PoolFacts(available=900, capacity=1_000)


class Scene:
    """Two nodes that tell what the test says, at the test's time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.rates = {"ckms-1": 1_000, "ckms-2": 1_000}
        self.silent: set[str] = set()
        self.up = True
        self.alarms: list[tuple[str, dict[str, Any]]] = []
        self.seen: list[Discovery] = []
        self.watching = Watching(self.news, lambda name, **facts: self.alarms.append((name, facts)), clock=self.at)
        self.watching.on_seen(self.seen.append)

    def at(self) -> float:
        return self.now

    def news(self) -> tuple[dict[str, NodeReport], None]:
        return {node: self.report(node) for node in self.rates if node not in self.silent}, None

    def report(self, node: str) -> NodeReport:
        other = "ckms-2" if node == "ckms-1" else "ckms-1"
        facts = LinkFacts(
            "1-2",
            other,
            up=self.up,
            quantum=True,
            suite="otp",
            suites=SUITES,
            rate=self.rates[node],
            outgoing=POOL,
            incoming=POOL,
        )
        return NodeReport(node, self.now, node, links={other: Received(facts, self.now)})

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.watching.look()
                await asyncio.sleep(0.005)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and two discoveries be made after it."""
        self.now += seconds
        before = len(self.seen)
        await self.until(lambda: len(self.seen) >= before + 2)


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(watching, "APART", 0.001)
    scene = Scene()
    scene.watching.plan(PLANNED)
    task = asyncio.get_running_loop().create_task(scene.watching.run())
    await scene.until(lambda: scene.seen)
    yield scene
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_look_makes_a_discovery_at_once(scene: Scene) -> None:
    assert counted(scene.seen[-1])[LinkState.FOUND] == 1
    scene.up = False
    await scene.until(lambda: not scene.seen[-1].view.link("1-2").up)


async def test_a_quarantine_holds_when_it_returns(scene: Scene) -> None:
    scene.watching.quarantine(frozenset({"ckms-2"}))
    assert scene.watching.discovery is not None
    assert scene.watching.discovery.view.node("ckms-2").quarantined


async def test_what_disagrees_for_long_is_one_alarm_and_one_more_when_it_comes_back(scene: Scene) -> None:
    await scene.pass_time(SETTLING)
    scene.rates["ckms-1"] = 9_000
    await scene.pass_time(0.5)
    assert scene.alarms == []
    await scene.pass_time(STANDING)
    await scene.pass_time(STANDING)
    assert {(name, facts["subject"]) for name, facts in scene.alarms} == {("topology-disagrees", "1-2")}
    told = len(scene.alarms)
    scene.rates["ckms-1"] = 1_000
    await scene.pass_time(1.0)
    scene.rates["ckms-1"] = 9_000
    await scene.pass_time(1.0)
    await scene.pass_time(STANDING)
    assert len(scene.alarms) == 2 * told


async def test_a_node_that_was_planned_just_now_may_be_silent(scene: Scene) -> None:
    scene.silent.add("ckms-2")
    await scene.pass_time(STANDING + 1)
    await scene.pass_time(STANDING + 1)
    assert scene.alarms == []
    await scene.pass_time(SETTLING)
    assert scene.alarms == [("node-silent", {"node": "ckms-2"})]
