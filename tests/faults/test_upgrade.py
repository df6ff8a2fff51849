"""A network that is upgraded service by service while keys go on."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import BACK, Circumstances, Ground
from tests.faults.oracle import under_load
from tests.laboratory import ROOT, SMALL, laid_out
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults")]

FORMER = os.environ.get("KEYHAUL_FORMER_RELEASE", "HEAD")
"""What stands for version N−1: a tag or commit. Before there is a release, the last commit."""


@pytest.fixture(scope="session")
def former(need: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of version N−1."""
    need("git", "tar")
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git repository")
    tree = tmp_path_factory.mktemp("former")
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", FORMER, "keyhaul", "services", "aaa"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    subprocess.run(["tar", "x", "-C", tree], input=archive.stdout, check=True, timeout=60)
    return tree


@pytest.fixture
def former_ground(former: Path, need: Callable[..., None]) -> Iterator[Ground]:
    """A network that version N−1 laid out and made the stores of; started with all its services."""
    need("setpriv")
    with laid_out(SMALL.read_text(), f"127.213.{os.getpid() % 256}.0", tree=former) as directory:
        made = Ground(directory)
        for service in made.services:
            made.put_under(service, Circumstances(tree=former))
        try:
            asyncio.run(made.up())
            yield made
        finally:
            made.down()


@pytest.mark.parametrize("users_first", [False, True], ids=["carrier-first", "users-first"])
async def test_a_network_is_upgraded_service_by_service(
    former_ground: Ground, former: Path, *, users_first: bool
) -> None:
    ground = former_ground
    clients = {sae.id: sae.client() for sae in ground.network.saes}
    try:
        async with under_load(ground, clients, alarms={"usage-not-recorded"}) as case:
            await more(case.seen, 40, BACK)
            for service in reversed(ground.services) if users_first else ground.services:
                assert tree_of(ground, service) == former
                await ground.stop(service)
                ground.put_under(service, None)
                case.over()
                ground.start(service)
                await ground.serving()
                assert tree_of(ground, service) == ROOT
                await more(case.seen, 20, BACK)
    finally:
        for client in clients.values():
            await client.close()


@pytest.mark.parametrize(
    "services",
    [("ckms-a", "ukms-east"), ("qkdm-a", "qkdm-m", "ckms-a", "ckms-m", "akms-a", "ukms-east", "aaa-dc")],
    ids=["two", "half"],
)
async def test_services_go_back_to_the_former_version_where_it_knows_their_stores(
    ground: Ground, clients: dict[str, Client014], former: Path, services: tuple[str, ...]
) -> None:
    """Old and new serve side by side; a store that only the new version knows is refused by the old and left alone."""
    async with ground.plainly(*services), under_load(ground, clients, alarms={"usage-not-recorded"}) as case:
        former_now = []
        for service in services:
            await ground.stop(service)
            ground.put_under(service, Circumstances(tree=former))
            ground.start(service)
            if await serves(ground, service):
                former_now.append(service)
                continue
            ground.put_under(service, None)
            ground.start(service)
        await ground.serving()
        for service in services:
            assert tree_of(ground, service) == (former if service in former_now else ROOT)
        await more(case.seen, 80, BACK)
        for service in former_now:
            case.over()
            await ground.restart(service)
            await more(case.seen, 20, BACK)


async def serves(ground: Ground, service: str) -> bool:
    """Whether a service that was started serves; False where it ended because its store is too new for it."""
    async with asyncio.timeout(BACK):
        while await ground.lacks([service]):
            if ground.ended(service) is not None:
                said = ground.tail(service)
                assert "this release knows up to" in said or "newer release" in said, said
                return False
            await asyncio.sleep(0.05)
    return True


def tree_of(ground: Ground, service: str) -> Path:
    """Whose code a service runs."""
    return Path(os.readlink(f"/proc/{ground.pid(service)}/cwd"))
