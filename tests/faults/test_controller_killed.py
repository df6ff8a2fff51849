"""Controllers that are killed: keys go on, and the next one goes on with what there is."""

from __future__ import annotations

import asyncio
import random

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import BACK, Ground
from tests.faults.oracle import under_load
from tests.faults.steered import LEADER, UNASKED, Carrier, calm, carrier, link, mended, settled, until
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults-controller")]

DEMANDS = 4
"""Two classes, both ways."""

TIMES = 6
LINKS = ("m-b", "d-b", "e-b")


async def served(there: Carrier) -> bool:
    """Whether each demand has a path and its backup."""
    return len(await there.ways()) == 2 * DEMANDS


async def test_a_controller_that_starts_again_adopts_what_is_installed(
    steered: Ground, steered_clients: dict[str, Client014]
) -> None:
    """Nothing is withdrawn, nothing installed anew: each CKMS hears one announcement of the new epoch."""
    ground = steered
    async with carrier(ground) as there, ground.plainly(LEADER), under_load(ground, steered_clients) as case:
        await more(case.seen, 40)
        await until(lambda: served(there), "all demands have paths")
        await calm(there)
        before, stated, accepted = await there.held(), await there.stated(), await there.accepted()
        ground.kill(LEADER)
        await more(case.seen, 200, BACK)
        assert await there.stated() == stated
        started = ground.marks()
        ground.start(LEADER)

        async def announced() -> bool:
            return all(one.epoch > before[node].epoch for node, one in (await there.held()).items())

        await until(announced, "every CKMS has heard the new epoch")
        await ground.serving([LEADER])

        async def adopted() -> bool:
            kinds = [event["event"] for event in ground.events(started, [LEADER])]
            return kinds.count("demand-adopted") == DEMANDS

        await until(adopted, "every demand is adopted")
        await more(case.seen, 200, BACK)
        await settled(there)
        assert await there.stated() == stated
        assert all(one.epoch == before[node].epoch + 1 for node, one in (await there.held()).items())
        assert await there.accepted() - accepted == dict.fromkeys(there.nodes, 1)
    assert case.seen.refused == 0


async def test_what_a_killed_controller_had_half_done_is_done_or_undone(
    steered: Ground, steered_clients: dict[str, Client014]
) -> None:
    """Killed while it moves paths, each time at another moment."""
    ground = steered
    chance = random.Random(20261122)
    async with (
        carrier(ground) as there,
        ground.plainly(LEADER),
        mended(ground, *LINKS),
        under_load(ground, steered_clients, alarms=UNASKED) as case,
    ):
        for _ in range(TIMES):
            name = chance.choice(LINKS)
            await more(case.seen, 20, BACK)
            await link("cut", name, ground)
            await asyncio.sleep(chance.uniform(0, 0.1))
            ground.kill(LEADER)
            await link("restore", name, ground)
            ground.start(LEADER)
            await there.ways()
            case.over()
            await ground.serving()
        await until(lambda: served(there), "all demands have paths")
        await settled(there)
    assert case.seen.refused == 0


async def test_without_a_controller_ckmss_take_the_backups_that_it_left(
    steered: Ground, steered_clients: dict[str, Client014]
) -> None:
    """A link is cut; the controller moves the paths and dies; then a second link is cut."""
    ground = steered
    async with (
        carrier(ground) as there,
        ground.plainly(LEADER),
        mended(ground, *LINKS),
        under_load(ground, steered_clients, alarms=UNASKED) as case,
    ):

        async def over(node: str) -> None:
            """Wait until a node has sent batches on."""
            begun = await ground.metric(node, "keyhaul_ckms_forwarded_total")

            async def further() -> bool:
                return await ground.metric(node, "keyhaul_ckms_forwarded_total") > begun

            await until(further, f"keys go over {node}")
            await more(case.seen, 80, BACK)

        async def avoids(node: str) -> bool:
            ways = await there.ways()
            return len(ways) == 2 * DEMANDS and not any(node in nodes for nodes in ways.values())

        await more(case.seen, 40)
        await link("cut", "m-b", ground)
        await until(lambda: avoids("ckms-m"), "paths avoid the first cut")
        await settled(there)
        ground.kill(LEADER)
        await link("cut", "d-b", ground)
        await over("ckms-e")
        await link("restore", "d-b", ground)
        await link("cut", "e-b", ground)
        await over("ckms-d")
        for name in ("m-b", "e-b"):
            await link("restore", name, ground)
        case.over()
        ground.start(LEADER)
        await ground.serving()
        await until(lambda: served(there), "all demands have paths")
        await settled(there)
    assert case.seen.refused == 0


async def test_two_links_that_are_cut_at_the_same_time_leave_the_third_way(
    steered: Ground, steered_clients: dict[str, Client014]
) -> None:
    ground = steered
    async with (
        carrier(ground) as there,
        mended(ground, *LINKS),
        under_load(ground, steered_clients, alarms={"topology-disagrees"}) as case,
    ):

        async def third() -> bool:
            """Each demand has a path over the third way: gold keeps what works of its two, silver has no other."""
            ways = await there.ways()
            over = {tuple(demand): rank for (*demand, rank), nodes in ways.items() if "ckms-e" in nodes}
            return len(over) == DEMANDS and not any(rank for (*_, name), rank in over.items() if name == "silver")

        await more(case.seen, 40)
        await until(lambda: served(there), "all demands have paths")
        await asyncio.gather(link("cut", "m-b", ground), link("cut", "d-b", ground))
        await until(third, "each demand has a path over the third way")
        await more(case.seen, 200, BACK)
        await asyncio.gather(link("restore", "m-b", ground), link("restore", "d-b", ground))
        case.over()
        await ground.serving()
        await until(lambda: served(there), "all demands have paths and backups again")
        await settled(there)
    assert case.seen.refused == 0
