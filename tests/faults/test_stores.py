"""Stores that are destroyed, or put back to an older copy, while their service is down."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import BACK, Ground
from tests.faults.oracle import states, under_load
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults")]


FORGOTTEN = {"delivery-refused"}
"""What is on its way to a UKMS was not asked for, as far as its new store knows."""


def files(ground: Ground, service: str) -> list[Path]:
    """What makes up the service's store."""
    directory = ground.directory(service)
    return [*directory.glob("store.*"), *directory.glob("aaa.db*")]


@pytest.mark.parametrize(
    ("service", "alarms"),
    [
        ("ukms-east", {"link-store-restored", "ukms-store-replaced"}),
        ("akms-a", {"link-store-restored"}),
        ("akms-b", {"link-store-restored"}),
        ("ckms-m", {"link-store-restored"}),
    ],
    ids=["ukms", "akms-a", "akms-b", "ckms"],
)
async def test_a_destroyed_store_is_noticed_and_replaced(
    ground: Ground, clients: dict[str, Client014], service: str, alarms: set[str]
) -> None:
    async with ground.plainly(service), under_load(ground, clients) as case:
        await more(case.seen, 40)
        ground.kill(service)
        for file in files(ground, service):
            file.unlink()
        case.wanted = alarms
        case.lost = service.startswith("ukms")
        case.allowed |= FORGOTTEN if case.lost else set()
        case.over()
        ground.start(service)
        await ground.serving()
        await more(case.seen, 80, BACK)


@pytest.mark.parametrize("service", ["ukms-east", "ukms-west", "akms-a", "akms-b", "ckms-m"])
async def test_an_older_copy_of_a_store_brings_nothing_back(
    ground: Ground, clients: dict[str, Client014], tmp_path: Path, service: str
) -> None:
    async with ground.plainly(service), under_load(ground, clients) as case:
        await more(case.seen, 40)
        await ground.stop(service)
        for file in files(ground, service):
            shutil.copy(file, tmp_path)
        ground.start(service)
        await ground.serving()
        await more(case.seen, 400, BACK)
        ground.kill(service)
        case.wanted = {"link-store-restored"}
        case.lost = service.startswith("ukms")
        if case.lost:
            case.wanted |= {"store-restored", "ukms-store-replaced"}
            case.allowed |= FORGOTTEN
            case.allowed |= {"delivery-refused"}
        for file in files(ground, service):
            file.unlink()
        for file in tmp_path.iterdir():
            shutil.copy(file, ground.directory(service))
        case.over()
        ground.start(service)
        await ground.serving()
        await more(case.seen, 80, BACK)


async def test_a_restored_database_of_aaa_goes_on_from_where_it_was(
    ground: Ground, clients: dict[str, Client014], tmp_path: Path
) -> None:
    """What was recorded after the copy is lost with it; everything before and after is counted once."""
    service = "aaa-dc"
    async with (
        ground.plainly(service),
        under_load(ground, clients, alarms={"usage-refused", "usage-not-recorded"}) as case,
    ):
        await more(case.seen, 40)
        await ground.stop(service)
        for file in files(ground, service):
            shutil.copy(file, tmp_path)
        copied = set(states(ground))
        ground.start(service)
        await ground.serving()
        await more(case.seen, 200, BACK)
        ground.kill(service)
        for file in files(ground, service):
            file.unlink()
        for file in tmp_path.iterdir():
            shutil.copy(file, ground.directory(service))
        case.over()
        ground.start(service)
        await ground.serving()
        await case.drain()
        before = set(case.seen.issued)
        await more(case.seen, 200, BACK)
        case.on_record = copied & before | set(case.seen.issued) - before
