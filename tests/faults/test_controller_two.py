"""Two controllers on one database: the leader is killed, or freezes and wakes up while the other leads."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.faults import oracle
from tests.faults.ground import BACK, Ground
from tests.faults.oracle import under_load
from tests.faults.steered import UNASKED, Carrier, carrier, ground_of, link, mended, settled, three_ways, until
from tests.network.load import encryptors, more
from tests.postgresql import PostgreSQL

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults-controller")]

CONTROLLERS = ("controller-dc", "controller-spare")
DEMANDS = 4
ROUNDS = 3

SPARE = """
[[node]]
name = "spare"
number = 101
roles = ["controller"]
"""

CHANGED = UNASKED | {"database-unavailable", "overloaded"}
"""Who froze finds that it listened to nobody, and its transaction undone."""


@pytest.fixture(scope="module")
def database(postgresql: PostgreSQL) -> str:
    return postgresql.database()


@pytest.fixture(scope="module")
def pair(database: str, need: object) -> Iterator[Ground]:
    text = three_ways().replace("[modules]", f'[controller]\ndatabase = "{database}"\n\n[modules]') + SPARE
    with ground_of(text, 2) as ground:
        yield ground


async def epoch(ground: Ground, controller: str) -> int | None:
    """In which a controller leads; None where it does not."""
    facts = await ground.facts(controller)
    return facts["epoch"] if facts is not None and facts["leads"] else None


async def leader(ground: Ground) -> tuple[str, str, int]:
    """Who leads, who stands by, and the epoch."""

    async def one_leads() -> bool:
        return any([await epoch(ground, name) for name in CONTROLLERS])

    await until(one_leads, "one leads")
    first, second = CONTROLLERS
    if await epoch(ground, first) is None:
        first, second = second, first
    found = await epoch(ground, first)
    assert found is not None
    assert await epoch(ground, second) is None
    return first, second, found


def stated_before(stated: dict[str, dict[int, bytes]], newest: int) -> set[tuple[str, int]]:
    """What is in force of leaders before an epoch, by node and serial."""
    return {
        (node, serial)
        for node, bodies in stated.items()
        for serial, body in bodies.items()
        if json.loads(body)["epoch"] < newest
    }


@asynccontextmanager
async def watched(there: Carrier) -> AsyncIterator[None]:
    """While the block runs: no CKMS goes back to an older leader, and every path in force leads to its end."""
    over = asyncio.Event()

    async def watch() -> None:
        high = dict.fromkeys(there.nodes, (0, 0))
        while not over.is_set():
            await there.ways()
            for node, one in (await there.held()).items():
                assert (one.epoch, one.serial) >= high[node], f"{node} went back to {one.epoch}, {one.serial}"
                high[node] = one.epoch, one.serial
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        over.set()
        await watching


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_no_conflicting_entry_is_accepted_when_another_controller_takes_over(
    pair: Ground, database: str, how: str
) -> None:
    ground = pair
    chance = random.Random(how)
    async with (
        encryptors(ground.network) as clients,
        carrier(ground, database) as there,
        ground.plainly(*CONTROLLERS),
        mended(ground, "m-b"),
        under_load(ground, clients, alarms=CHANGED) as case,
    ):

        async def served() -> bool:
            return len(await there.ways()) == 2 * DEMANDS

        async with watched(there):
            for _ in range(ROUNDS):
                await more(case.seen, 20, BACK)
                await until(served, "all demands have paths")
                first, second, before = await leader(ground)
                await link("cut", "m-b", ground)
                await asyncio.sleep(chance.uniform(0, 0.1))
                if how == "killed":
                    ground.kill(first)
                else:
                    ground.send(first, signal.SIGSTOP)

                async def taken_over(second: str = second, before: int = before) -> bool:
                    held = await there.held()
                    return await epoch(ground, second) is not None and all(one.epoch > before for one in held.values())

                took = await until(taken_over, "the other leads, and every CKMS has heard it")
                oracle.show(f"the other controller leads after the leader was {how}", took)
                _, _, newest = await leader(ground) if how == "killed" else (first, second, await epoch(ground, second))
                assert newest is not None
                former = stated_before(await there.stated(), newest)
                await link("restore", "m-b", ground)
                await more(case.seen, 40, BACK)
                if how == "killed":
                    ground.start(first)
                else:
                    ground.send(first, signal.SIGCONT)
                case.over()
                await ground.serving()

                async def one_leads(first: str = first, second: str = second) -> bool:
                    return await epoch(ground, first) is None and await epoch(ground, second) is not None

                await until(one_leads, "one leads, and it is the other")
                await until(served, "all demands have paths")
                await settled(there)
                assert stated_before(await there.stated(), newest) <= former
    assert case.seen.refused == 0
