"""The disk of one store is full, and then has room again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import BACK, Circumstances, Ground
from tests.faults.namespaces import Namespaces
from tests.faults.oracle import under_load
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults")]

SIZE = "24m"
SERVICE_ALARMS = {
    "usage-not-recorded",
    "database-unavailable",
    "epoch-not-recorded",
    "errand-refused",
    "delivery-refused",
}


@pytest.fixture
def inside(need: Callable[..., None]) -> Iterator[Namespaces]:
    need("unshare", "nsenter", "setpriv", "mount", root=True)
    made = Namespaces(mount=True)
    yield made
    made.close()


@pytest.mark.parametrize("service", ["ukms-east", "akms-a", "ckms-m", "aaa-dc"])
async def test_a_full_disk_stops_nothing_for_good(
    ground: Ground, clients: dict[str, Client014], inside: Namespaces, service: str
) -> None:
    directory = ground.directory(service)
    async with ground.plainly(service), under_load(ground, clients, alarms=SERVICE_ALARMS) as case:
        await more(case.seen, 20)
        await ground.stop(service)
        with moved(ground, service, inside):
            ground.put_under(service, Circumstances(prefix=inside.prefix))
            ground.start(service)
            await ground.serving([service])
            await more(case.seen, 20, BACK)
            filler = inside.path(directory / "disk" / "filler")
            fill(filler)
            case.unsure = 16 if service.startswith("ukms") else 0
            if service.startswith("ckms"):
                # It writes little, and into the log that it has: a full disk may pass unnoticed.
                await more(case.seen, 200, BACK)
            else:
                await noticed(ground, service, case.marks)
            case.over()
            filler.unlink()
            await back(ground, service)
            await ground.serving()
            await more(case.seen, 40, BACK)
            await ground.stop(service)
        ground.put_under(service, None)
        ground.start(service)
        await ground.serving()
        await more(case.seen, 20, BACK)


@contextlib.contextmanager
def moved(ground: Ground, service: str, inside: Namespaces) -> Iterator[None]:
    """The stopped service's store is on a small file system of its own."""
    directory = ground.directory(service)
    config, disk = directory / "config.toml", directory / "disk"
    disk.mkdir(mode=0o700)
    there = inside.path(disk)
    inside.run("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(disk))
    text = config.read_text()
    files = sorted([*directory.glob("store.db*"), *directory.glob("aaa.db*")])
    for file in files:
        (there / file.name).write_bytes(file.read_bytes())
        (there / file.name).chmod(0o600)
        file.unlink()
    config.write_text(
        text.replace('"store.db"', '"disk/store.db"').replace("sqlite:///aaa.db", "sqlite:///disk/aaa.db")
    )
    try:
        yield
    finally:
        config.write_text(text)
        for file in there.glob("*.db*"):
            (directory / file.name).write_bytes(file.read_bytes())
            (directory / file.name).chmod(0o600)
        inside.run("umount", "-l", str(disk))
        disk.rmdir()


def fill(file: Path) -> None:
    """Write until there is no room."""
    with file.open("wb", buffering=0) as handle:
        for size in (1 << 20, 1 << 12):
            with pytest.raises(OSError, match="No space"):
                while True:
                    handle.write(bytes(size))


async def noticed(ground: Ground, service: str, marks: dict[str, int]) -> None:
    """Wait until the service ended, or somebody said that the disk is full."""
    end = time.monotonic() + BACK
    while time.monotonic() < end:
        if ground.code(service) is not None:
            return
        if any("is full" in str(event) for event in ground.events(marks, [service])):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"nobody noticed the full disk: {ground.tail(service)}")


async def back(ground: Ground, service: str) -> None:
    """Wait until the service serves again; where it ended, it said why, and starting it again is all there is to do."""
    end = time.monotonic() + BACK
    while await ground.lacks([service]):
        if ground.ended(service) is not None:
            said = ground.tail(service)
            assert "is full" in said or "No space left" in said, said
            ground.start(service)
        assert time.monotonic() < end, ground.tail(service)
        await asyncio.sleep(0.1)
