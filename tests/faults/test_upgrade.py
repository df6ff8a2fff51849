"""A network that is upgraded service by service while keys go on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import BACK, Circumstances, Ground
from tests.faults.oracle import under_load
from tests.network.conftest import ROOT
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


@pytest.mark.parametrize(
    "services",
    [
        ("ckms-a", "ukms-east"),
        pytest.param(
            ("qkdm-a", "qkdm-m", "ckms-a", "ckms-m", "akms-a", "ukms-east", "aaa-dc"),
            marks=[pytest.mark.long, pytest.mark.timeout(600)],
        ),
    ],
    ids=["two", "half"],
)
async def test_old_and_new_serve_side_by_side_and_every_service_can_be_upgraded(
    ground: Ground, clients: dict[str, Client014], former: Path, services: tuple[str, ...]
) -> None:
    async with ground.plainly(*services), under_load(ground, clients, alarms={"usage-not-recorded"}) as case:
        for service in services:
            await ground.stop(service)
            ground.put_under(service, Circumstances(tree=former))
            ground.start(service)
        await ground.serving()
        for service in services:
            assert Path(os.readlink(f"/proc/{ground.pid(service)}/cwd")) == former
        await more(case.seen, 80, BACK)
        for service in services:
            await ground.restart(service)
            await more(case.seen, 20, BACK)
