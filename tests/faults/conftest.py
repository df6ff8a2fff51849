"""A network of single services, started once for all tests of this folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import Ground
from tests.network.conftest import SMALL, keyhaul


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Faults on real processes take minutes: `pytest -m long tests/faults`."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.long)


def loopback() -> str:
    """A loopback range of this test process's own: 127.212.0.0 to 127.212.255.0, by process id."""
    return f"127.212.{os.getpid() % 256}.0"


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """Skip a test whose tools are missing; in CI nothing may be missing."""

    def needs(*tools: str, root: bool = False, files: tuple[Path, ...] = ()) -> None:
        missing = [tool for tool in tools if shutil.which(tool) is None]
        missing += [str(file) for file in files if not file.exists()]
        if root and os.geteuid() != 0:
            missing.append("root")
        if missing:
            reason = f"needs {', '.join(missing)}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)

    return needs


@pytest.fixture(scope="session")
def ground(need: Callable[..., None]) -> Iterator[Ground]:
    """Started with all its services; every test leaves it serving."""
    need("setpriv")
    scratch = Path(tempfile.mkdtemp(prefix="f-", dir="/tmp"))
    try:
        keyhaul("network", "init", SMALL, "--out", scratch / "n", "--loopback", loopback())
        made = Ground(scratch / "n")
        try:
            asyncio.run(made.up())
            yield made
        finally:
            made.down()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture
async def clients(ground: Ground) -> AsyncIterator[dict[str, Client014]]:
    """One 014 client for every SAE of the network, by SAE ID."""
    found = {sae.id: sae.client() for sae in ground.network.saes}
    yield found
    for client in found.values():
        await client.close()
