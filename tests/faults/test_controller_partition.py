"""Half of a network is cut off from its controller, and not from the other half."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from controller.steering.events import Event
from tests.faults.ground import BACK, Circumstances, Ground
from tests.faults.halves import DataCentre, bring_users, join, readdress
from tests.faults.namespaces import Namespaces
from tests.faults.oracle import under_load
from tests.faults.steered import calm, carrier, settled, three_ways, until
from tests.laboratory import laid_out
from tests.network.load import encryptors, more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults-controller")]

CONTROLLER = "controller-centre"
CENTRE = 101
WEST = {"west": 1, "a": 2, "m": 3, "dc": 100}
EAST = {"d": 4, "b": 5, "east": 6, "e": 7}
EAST_CKMSS = 3
CKMSS = 5
WAYS = 8

DISTURBED = frozenset({Event.INSTALLED, Event.MOVED, Event.DROPPED, Event.LOST, Event.ENDED, Event.NOT_INSTALLED})
"""What would happen to demands if a partition concerned them."""

UNHEARD = {"node-silent", "topology-disagrees", "statements-not-accepted"}


@dataclass(frozen=True)
class Parted:
    """A network in four namespaces."""

    ground: Ground
    users: Namespaces
    east: Namespaces
    centre: DataCentre


@pytest.fixture
def parted(need: Callable[..., None]) -> Iterator[Parted]:
    """The western nodes, the eastern ones, the controller and the users, each in a namespace of its own."""
    need("ip", "unshare", "nsenter", "setpriv", root=True)
    users, west, east, centre = (Namespaces(network=True) for _ in range(4))
    local = f"127.212.{os.getpid() % 256}."
    alone = three_ways().replace('roles = ["aaa", "controller"]', 'roles = ["aaa"]')
    description = f'{alone}\n[[node]]\nname = "centre"\nnumber = {CENTRE}\nroles = ["controller"]\n'
    try:
        reached = {west: list(WEST.values()), east: list(EAST.values())}
        join(west, east, reached)
        bring_users(users, reached)
        place = DataCentre(centre, CENTRE, reached)
        with laid_out(description, f"{local}0") as directory:
            readdress(directory, local)
            made = Ground(directory)
            for service in made.services:
                node = made.network.service(service)["node"]
                inside = centre if node == "centre" else west if node in WEST else east
                made.put_under(service, Circumstances(prefix=inside.prefix))
            try:
                yield Parted(made, users, east, place)
            finally:
                made.down()
    finally:
        for each in (users, west, east, centre):
            each.close()


def test_a_half_that_its_controller_cannot_reach_goes_on_and_nothing_flaps(parted: Parted) -> None:
    ground = parted.ground

    async def told() -> int:
        facts = await ground.facts(CONTROLLER)
        return -1 if facts is None else int(facts["nodes"]["telling"])

    async def work() -> None:
        await ground.up()
        async with (
            encryptors(ground.network) as clients,
            carrier(ground, controller=CONTROLLER) as there,
            under_load(ground, clients, alarms=UNHEARD) as case,
        ):

            async def served() -> bool:
                return len(await there.ways()) == WAYS

            async def unheard() -> bool:
                return await told() == CKMSS - EAST_CKMSS

            async def heard() -> bool:
                return await told() == CKMSS

            await more(case.seen, 40, BACK)
            await until(served, "all demands have paths")
            await calm(there)
            stated, marks = await there.stated(), ground.marks()

            async def nothing_is_disturbed() -> None:
                events = ground.events(marks, [CONTROLLER])
                disturbed = [event for event in events if event["event"] in DISTURBED]
                assert not disturbed, "\n".join(map(str, events))
                assert await there.stated() == stated

            for _ in range(2):
                parted.centre.cut_off(parted.east)
                await until(unheard, "the controller does not hear the east")
                await more(case.seen, 400, BACK)
                await nothing_is_disturbed()
                parted.centre.connect(parted.east)
                await until(heard, "the controller hears all")
                await more(case.seen, 80, BACK)
            case.over()
            await asyncio.gather(ground.serving(), settled(there))
            await nothing_is_disturbed()
        assert case.seen.refused == 0

    parted.users.run_loop(work)
