"""A path over seven nodes whose fifth does not take its entry: what was installed is taken back, another way found."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from controller.steering.events import Event
from tests.faults import oracle
from tests.faults.ground import BACK, Circumstances, Ground
from tests.faults.oracle import under_load
from tests.faults.steered import LEADER, carrier, ground_of, settled, until
from tests.laboratory import keyhaul
from tests.network.load import encryptors, more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults-controller")]

SEVEN = Path(__file__).with_name("seven.toml")

WAY = ("ckms-b", "ckms-a", "silver", 0)
BEFORE = ("ckms-a", "ckms-1", "ckms-2", "ckms-3")
"""Those that take their entries before the fifth: the far end is told first."""
FIFTH = "ckms-4"
"""It is on the way from node 3 to node 5 that has most key."""

NOT_TAKEN = {"statements-not-accepted", "statement-refused", "topology-disagrees", "node-silent"}


async def full(ground: Ground) -> bool:
    """Whether all links are found, and their pools believed to be nearly full: then it is known which way is best."""
    done = await asyncio.to_thread(keyhaul, "topology", "links", "--network", ground.network.directory, "--json")
    links = json.loads(done.stdout)["links"]
    return all(one["state"] == "found" for one in links) and all(
        way["pool"] > 0.9 * way["capacity"] for one in links for way in one["directions"]
    )


@pytest.mark.parametrize("how", ["refuses", "stalls"])
def test_a_set_that_fails_at_the_fifth_of_seven_nodes_is_taken_back_everywhere(need: object, how: str) -> None:
    program = (str(Path(__file__).with_name("liar.py")), how)

    def prepare(made: Ground) -> None:
        made.put_under(FIFTH, Circumstances(program=program))

    with ground_of(SEVEN.read_text(), 3, prepare) as ground:
        asyncio.run(_installed_elsewhere(ground, how))


async def _installed_elsewhere(ground: Ground, how: str) -> None:
    async with encryptors(ground.network) as clients, carrier(ground) as there:
        await until(lambda: full(ground), "all pools are full")
        if how == "stalls":
            there.unasked.add(FIFTH)  # nobody knows what it has until its agent answers again
        begun, started = ground.marks(), time.monotonic()
        async with under_load(ground, clients, alarms=NOT_TAKEN, pairs=ground.pairs[:1]) as case:

            async def installed() -> bool:
                return WAY in await there.ways()

            await until(installed, "there is a path")
            oracle.show(f"a path, though the fifth of seven nodes {how}", time.monotonic() - started)
            events = ground.events(begun, [LEADER])
            assert {one["node"] for one in events if one["event"] == Event.NOT_INSTALLED} == {FIFTH}, events
            assert not any(FIFTH in nodes for nodes in (await there.ways()).values())
            await settled(there)
            accepted = await there.accepted()
            assert all(accepted[node] >= 4 for node in BEFORE), "announcement, entry, its withdrawal, another entry"
            await more(case.seen, 80, BACK)
            case.over()
            ground.replace(FIFTH)
            await ground.serving()
            there.unasked.clear()
            await settled(there)
        assert case.seen.refused == 0
