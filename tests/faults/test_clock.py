"""Clocks that are wrong, and clocks that somebody sets while a service runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from platform import machine

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import BACK, Circumstances, Ground
from tests.faults.oracle import under_load
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults")]

HOUR = 3600
STEPS = (5 * HOUR, -HOUR // 2, 20 * HOUR, 0)
"""Seconds; back by less than the hour by which certificates are dated back, before which they are not valid."""


WALL_CLOCK = {
    "FAKETIME_NO_CACHE": "1",
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    "NO_FAKE_STAT": "1",
}
"""The wall clock alone is wrong, and a step counts at once. (With libfaketime's own treatment of waits for a condition,
which only a false monotonic clock needs, threads wake each other a thousand times slower.)"""

PLACES = [
    Path(f"/usr/lib/{machine()}-linux-gnu/faketime/libfaketimeMT.so.1"),
    Path("/usr/lib/faketime/libfaketimeMT.so.1"),
]


@pytest.fixture(scope="session")
def library(need: Callable[..., None]) -> Path:
    """libfaketime, for programs with threads."""
    found = next((place for place in PLACES if place.exists()), PLACES[0])
    need(files=(found,))
    return found


@pytest.mark.parametrize(
    "services",
    [("ukms-west", "akms-b"), ("aaa-dc", "ckms-m")],
    ids="+".join,
)
async def test_keys_go_on_while_clocks_step(
    ground: Ground, clients: dict[str, Client014], library: Path, tmp_path: Path, services: tuple[str, ...]
) -> None:
    told = tmp_path / "offset"

    def tell(seconds: int) -> None:
        beside = told.with_suffix(".new")
        beside.write_text(f"{seconds:+d}\n")
        beside.replace(told)

    tell(STEPS[0])
    environment = WALL_CLOCK | {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(told)}
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
            case.over()
            await more(case.seen, 80, BACK)
            await ground.serving()
