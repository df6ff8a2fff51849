"""Clocks that are wrong, and clocks that somebody sets while a service runs."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults import preload
from tests.faults.ground import BACK, Circumstances, Ground
from tests.faults.oracle import under_load
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults")]

HOUR = 3600
STEPS = (5 * HOUR, -HOUR // 2, 20 * HOUR, 0)
"""Seconds; back by less than the hour by which certificates are dated back, before which they are not valid."""


@pytest.fixture(scope="session")
def library(need: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("gcc")
    return preload.build("clock", tmp_path_factory.mktemp("clock"))


@pytest.mark.parametrize(
    "services",
    [("ukms-west", "akms-b"), ("aaa-dc", "ckms-m")],
    ids="+".join,
)
@pytest.mark.long
async def test_keys_go_on_while_clocks_step(
    ground: Ground, clients: dict[str, Client014], library: Path, tmp_path: Path, services: tuple[str, ...]
) -> None:
    told = tmp_path / "offset"

    def tell(seconds: int) -> None:
        with told.open("r+b" if told.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds * 1_000_000_000))

    tell(STEPS[0])
    environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(told)}
    async with (
        ground.plainly(*services),
        under_load(ground, clients, alarms={"usage-not-recorded"}) as case,
    ):
        for service in services:
            await ground.stop(service)
            ground.put_under(service, Circumstances(environment))
            ground.start(service)
        await ground.serving()
        for service in services:
            said = datetime.fromisoformat(ground.events(case.marks, [service])[-1]["timestamp"])
            assert (said - datetime.now(UTC)).total_seconds() > STEPS[0] - HOUR, "its clock is right"
        await more(case.seen, 40, BACK)
        for step in STEPS[1:]:
            tell(step)
            await more(case.seen, 80, BACK)
            await ground.serving()
