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
from tests.faults import oracle
from tests.faults.ground import Ground
from tests.faults.steered import ground_of, three_ways
from tests.laboratory import SMALL, laid_out
from tests.network.load import Load, drain, encryptors

BACK_AFTER = "back after"
MEASURED = "measured"

LONGEST = 900
"""Seconds of one test on a busy machine."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Faults on real processes take minutes: `pytest -m long tests/faults`."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.long)
            item.add_marker(pytest.mark.timeout(LONGEST))


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


@pytest.fixture(autouse=True)
def recoveries(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test measured goes with its report, so that whoever runs the tests in several processes sees it too."""
    oracle.recoveries.clear()
    oracle.shown.clear()
    yield
    request.node.user_properties += [(BACK_AFTER, (one.fault, one.keys)) for one in oracle.recoveries]
    request.node.user_properties += [(MEASURED, one) for one in oracle.shown]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured: how long it took after each fault until keys were delivered again, and other times. None of
    them fails a test.
    """
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "when")]
    said = [value for report in reports if report.when == "teardown" for value in report.user_properties]
    for kind, title in ((BACK_AFTER, "from the end of a fault to keys on every way"), (MEASURED, "on the way")):
        rows = [row for name, row in said if name == kind]
        if rows:
            terminalreporter.section(f"seconds {title}")
            for what, seconds in sorted(rows, key=lambda row: -row[1]):
                terminalreporter.write_line(f"{seconds:7.2f}  {what}")


async def drained(ground: Ground) -> None:
    """Issue and fetch what stands in the buffers; nothing may be missing, come twice or differ."""
    seen = Load()
    async with encryptors(ground.network) as clients:
        await drain(clients, ground.pairs, seen)
    assert not seen.faults, f"{seen.faults} of {len(seen.issued)} keys that stood in buffers at the end"
    assert not ground.issued.intersection(map(str, seen.issued)), "keys were issued a second time at the end"


@pytest.fixture(scope="session")
def ground(need: Callable[..., None], request: pytest.FixtureRequest) -> Iterator[Ground]:
    """Started with all its services; every test leaves it serving. After a failure the logs are kept."""
    need("setpriv")
    with laid_out(SMALL.read_text(), loopback()) as directory:
        made = Ground(directory)
        try:
            asyncio.run(made.up())
            yield made
            asyncio.run(drained(made))
        finally:
            made.down()
            if request.session.testsfailed:
                shutil.copytree(directory / "logs", tempfile.mkdtemp(prefix="faults-", dir="/tmp"), dirs_exist_ok=True)


@pytest.fixture
async def clients(ground: Ground) -> AsyncIterator[dict[str, Client014]]:
    """One 014 client for every SAE of the network, by SAE ID."""
    async with encryptors(ground.network) as found:
        yield found


@pytest.fixture(scope="session")
def steered(need: Callable[..., None]) -> Iterator[Ground]:
    """With a controller and a third way through the carrier; every test leaves it serving."""
    need("setpriv")
    with ground_of(three_ways(), 1) as made:
        yield made
        asyncio.run(drained(made))


@pytest.fixture
async def steered_clients(steered: Ground) -> AsyncIterator[dict[str, Client014]]:
    """One 014 client for every SAE of that network, by SAE ID."""
    async with encryptors(steered.network) as found:
        yield found
