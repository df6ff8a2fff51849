"""The power fails: of what was written, only what was synchronised is still there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults import preload
from tests.faults.ground import BACK, Ground
from tests.faults.oracle import under_load
from tests.faults.power import Mains
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults")]

AWAY = {"usage-not-recorded"}
"""AAA's absence is alarmed, and usage sent again."""

ON_THEIR_WAY = 16
"""Keys that can be on their way to two encryptors, in answers of one site, when its power fails."""


@pytest.fixture(scope="session")
def library(need: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("gcc")
    return preload.build("power", tmp_path_factory.mktemp("power"))


async def cut_and_mend(
    ground: Ground, clients: dict[str, Client014], mains: dict[str, Mains], times: int, between: int
) -> None:
    """Power cuts of some services at once, under load."""
    async with ground.plainly(*mains), under_load(ground, clients, alarms=AWAY) as case:
        for service in mains:
            await ground.stop(service)
        for supply in mains.values():
            supply.on()
        await ground.serving()
        for _ in range(times):
            await more(case.seen, between, BACK)
            for supply in mains.values():
                supply.cut()
            case.unsure += ON_THEIR_WAY * sum(service.startswith("ukms") for service in mains)
            case.over()
            for supply in mains.values():
                supply.on()
            await ground.serving()
        await more(case.seen, between, BACK)


@pytest.mark.parametrize("service", ["ukms-east", "akms-a", "ckms-a", "aaa-dc"])
async def test_no_rule_breaks_when_a_service_loses_power(
    ground: Ground, clients: dict[str, Client014], library: Path, tmp_path: Path, service: str
) -> None:
    mains = {service: Mains(ground, service, library, tmp_path)}
    await cut_and_mend(ground, clients, mains, times=1, between=40)


@pytest.mark.parametrize(
    "services",
    [("ukms-west", "qkdm-west"), ("akms-b", "ckms-b", "qkdm-b"), ("ckms-m", "qkdm-m"), ("ukms-west", "ukms-east")],
    ids="+".join,
)
async def test_no_rule_breaks_when_nodes_lose_power_again_and_again(
    ground: Ground, clients: dict[str, Client014], library: Path, tmp_path: Path, services: tuple[str, ...]
) -> None:
    mains = {service: Mains(ground, service, library, tmp_path) for service in services}
    await cut_and_mend(ground, clients, mains, times=8, between=60)


async def test_no_rule_breaks_when_the_whole_network_loses_power(
    ground: Ground, clients: dict[str, Client014], library: Path, tmp_path: Path
) -> None:
    mains = {service: Mains(ground, service, library, tmp_path) for service in ground.services}
    await cut_and_mend(ground, clients, mains, times=3, between=60)


async def test_a_disk_that_lies_is_found_out(
    ground: Ground, clients: dict[str, Client014], library: Path, tmp_path: Path
) -> None:
    """These tests would see a store that does not synchronise: keys that it held are gone, or come a second time."""
    supply = Mains(ground, "ukms-east", library, tmp_path, lies=True)
    async with ground.plainly("ukms-east"):
        with pytest.raises(AssertionError, match=r"missing|repeated|vanished|second time"):
            async with under_load(ground, clients) as case:
                await ground.stop("ukms-east")
                supply.on()
                await ground.serving()
                await more(case.seen, 200, BACK)
                supply.cut()
                supply.on()
                await ground.serving()
                await more(case.seen, 40, BACK)
