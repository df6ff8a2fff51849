"""The simulation of many CKMSs finds out by itself which demands have paths that lead to their end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from bench.agents import Await, Cut, Order, OrderedNode, Rest, Simulation
from keyhaul.agents.signing import sign
from keyhaul.agents.statements import (
    EntryStatement,
    PathStatement,
    StatedHop,
    Statement,
    StatementRefusal,
    StatementRefused,
)
from keyhaul.config.carrier import CarrierLink
from keyhaul.identity.keys import generate, public_pem

KEY = generate(lambda count: b"\x07" * count)
THIEF = generate(lambda count: b"\x08" * count)
FIGURES: dict[str, Any] = {"rate": 100.0, "burst": 1_000}


def label(number: int) -> str:
    return f"{number:016x}"


class Scene:
    """A triangle: 1 to 3 directly, or by 2."""

    def __init__(self, folder: Path) -> None:
        key = folder / "statement-public.pem"
        key.write_bytes(public_pem(KEY.public_key()))
        pairs = (("1", "2"), ("2", "3"), ("1", "3"))
        links = [
            CarrierLink(id=f"{a}-{b}", a=f"ckms-{a}", b=f"ckms-{b}", rate=8_000, capacity=48_000, suites=("otp",))
            for a, b in pairs
        ]
        nodes = [OrderedNode(f"ckms-{number}", "", "") for number in (1, 2, 3)]
        self.simulation = Simulation(Order("lab.example", "", "", str(key), nodes, links, time.monotonic(), 1, True))
        self._serial = 0

    async def say(self, node: str, says: EntryStatement | PathStatement, key: Any = KEY) -> None:
        self._serial += 1
        there = self.simulation.nodes[node]
        statement = Statement(
            v=1,
            node=node,
            incarnation=there.incarnation,
            epoch=1,
            serial=self._serial,
            lifetime_s=600,
            says=says,
        )
        await there.accept({self._serial: sign([statement], key)[0]})

    async def lay(self, first: int, *, around: bool) -> None:
        """A path from 1 to 3 under labels from `first` on."""
        previous = "ckms-1"
        if around:
            entry = EntryStatement(
                label=label(first), previous="ckms-1", next=StatedHop("ckms-3", label(first + 1)), **FIGURES
            )
            await self.say("ckms-2", entry)
            previous, first = "ckms-2", first + 1
        await self.say("ckms-3", EntryStatement(label=label(first), previous=previous, **FIGURES))
        start = StatedHop("ckms-2", label(first - 1)) if around else StatedHop("ckms-3", label(first))
        path = PathStatement(
            destination="ckms-3", service_class="silver", group="0" * 32, rank=0, first=start, **FIGURES
        )
        await self.say("ckms-1", path)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_a_demand_is_whole_again_when_its_path_leads_around_the_cut(scene: Scene) -> None:
    await scene.lay(1, around=False)
    assert (await scene.simulation.carry_out(Await(1, 1.0))).late == ""
    cut = await scene.simulation.carry_out(Cut("1-3"))
    assert cut.demands == 1
    waiting = asyncio.create_task(scene.simulation.carry_out(Await(1, 5.0)))
    await asyncio.sleep(0)
    assert not waiting.done()
    await scene.lay(10, around=True)
    told = await waiting
    assert told.late == ""
    assert len(told.whole) == 1
    assert told.whole[0] >= cut.at
    assert told.statements == 5


async def test_a_cut_that_no_path_crosses_breaks_nothing_and_a_path_that_leads_nowhere_is_none(scene: Scene) -> None:
    await scene.lay(1, around=False)
    assert (await scene.simulation.carry_out(Cut("2-3"))).demands == 0
    assert (await scene.simulation.carry_out(Await(1, 1.0))).late == ""
    await scene.simulation.carry_out(Cut("1-3"))
    path = PathStatement(
        destination="ckms-3",
        service_class="silver",
        group="0" * 32,
        rank=0,
        first=StatedHop("ckms-2", label(99)),
        **FIGURES,
    )
    await scene.say("ckms-1", path)
    assert "1 of them broken" in (await scene.simulation.carry_out(Await(1, 0.05))).late


async def test_signatures_are_verified(scene: Scene) -> None:
    with pytest.raises(StatementRefused) as refused:
        await scene.say("ckms-3", EntryStatement(label=label(1), previous="ckms-1", **FIGURES), THIEF)
    assert refused.value.refusal is StatementRefusal.FORGED
    assert (await scene.simulation.carry_out(Rest(0.01, 1.0))).statements == 0
