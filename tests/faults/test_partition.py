"""A network in two namespaces, and the cable between them pulled out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest

from tests.faults.ground import BACK, Circumstances, Ground
from tests.faults.halves import bring_users, join, readdress
from tests.faults.namespaces import Namespaces
from tests.faults.oracle import under_load
from tests.laboratory import SMALL, laid_out
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults")]

WEST = {"west": 1, "a": 2, "dc": 100}
EAST = {"m": 3, "d": 4, "b": 5, "east": 6}


@pytest.fixture
def ground_in_two(need: Callable[..., None]) -> Iterator[tuple[Ground, Namespaces, Namespaces]]:
    """A network whose western nodes are in one namespace, the eastern in another, and the users' namespace."""
    need("ip", "unshare", "nsenter", "setpriv", root=True)
    users, west, east = (Namespaces(network=True) for _ in range(3))
    local = f"127.212.{os.getpid() % 256}."
    try:
        join(west, east, {west: WEST.values(), east: EAST.values()})
        bring_users(users, {west: [WEST["west"]], east: [EAST["east"]]})
        with laid_out(SMALL.read_text(), f"{local}0") as directory:
            readdress(directory, local)
            made = Ground(directory)
            for service in made.services:
                node = made.network.service(service)["node"]
                made.put_under(service, Circumstances(prefix=(west if node in WEST else east).prefix))
            try:
                yield made, users, west
            finally:
                made.down()
    finally:
        for each in (users, west, east):
            each.close()


def test_both_sides_of_a_partition_come_back_to_one_view(
    ground_in_two: tuple[Ground, Namespaces, Namespaces],
) -> None:
    ground, users, west = ground_in_two

    async def work() -> None:
        await ground.up()
        clients = {sae.id: sae.client() for sae in ground.network.saes}
        try:
            async with under_load(ground, clients, alarms={"usage-not-recorded"}) as case:
                await more(case.seen, 40, BACK)
                west.run("ip", "link", "set", "cable", "down")
                cut_off = {"akms-a", "akms-b", "ckms-a", "ckms-m", "ckms-d"}
                async with asyncio.timeout(BACK):
                    while not cut_off <= (await ground.lacks(ground.services)).keys():
                        await asyncio.sleep(0.1)
                refused = case.seen.refused
                async with asyncio.timeout(BACK):
                    while case.seen.refused < refused + 8:
                        await asyncio.sleep(0.1)
                case.over()
                west.run("ip", "link", "set", "cable", "up")
                await ground.serving()
                await more(case.seen, 80, BACK)
        finally:
            for client in clients.values():
                await client.close()

    users.run_loop(work)
