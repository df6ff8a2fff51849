"""One tapped run of honest services and one of leaking ones, each started once."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.privacy import rules, scenario
from tests.privacy.evidence import Evidence, Known, known
from tests.privacy.leaks import LEAKS
from tests.privacy.network import ALONE, Town, collect, running

NOTHING_AHEAD = (
    (r"\[sae\]\n", "[buffer]\nmaximum = 0\n\n[sae]\n"),
    (r"\[aaa\]\n", "[pool]\nminimum = 0\nmaximum = 0\n\n[aaa]\n"),
)
"""No buffers at UKMSs and no pools at AKMSs: every request goes all the way."""


@dataclass(slots=True)
class Run:
    """A run that is over."""

    evidence: Evidence
    known: Known
    findings: list[rules.Finding]
    refusals: list[scenario.Refused] = field(default_factory=list)
    failures: list[scenario.Refused] = field(default_factory=list)
    keys: int = 0
    memory: dict[str, bytes] = field(default_factory=dict)
    pattern: list[float] = field(default_factory=list)
    """When a silver user asked, buffers and pools being warm."""
    lookups: scenario.Lookups | None = None
    wire: bool = False


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory with a short path."""
    directory = Path(tempfile.mkdtemp(prefix="kp-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def honest(scratch: Path) -> Run:
    """The run of honest services, with everything that users can do to them."""
    with running(scratch / "h") as town:
        run = asyncio.run(_live(town))
        town.look()
        run.memory[ALONE] = _memory(town)
        run.wire = town.wire.available
    collect(town)
    run.known = known(run.evidence)
    run.findings = rules.findings(run.evidence, run.known)
    return run


@pytest.fixture(scope="session")
def leaking(scratch: Path) -> Run:
    """A run of services that leak in every way of `leaks.LEAKS`."""
    with running(scratch / "l", *LEAKS, changes=NOTHING_AHEAD) as town:
        pattern = asyncio.run(_short(town))
        town.look()
        wire = town.wire.available
    evidence = collect(town)
    facts = known(evidence)
    kinds = frozenset((leak.role, leak.kind) for leak in LEAKS.values())
    return Run(evidence, facts, rules.findings(evidence, facts, kinds=kinds), pattern=pattern, wire=wire)


async def _live(town: Town) -> Run:
    run = Run(town.evidence, None, [])  # type: ignore[arg-type]
    run.keys = await scenario.share(town, sizes=(None, 128, 1024))
    await scenario.silver_pattern(town, 2.0, seed=1)
    run.pattern = await scenario.silver_pattern(town, 8.0, seed=2)
    run.lookups = await scenario.lookups(town, 1, seed=3)
    run.refusals = await scenario.refusals(town)
    run.failures = await scenario.failures(town)
    run.keys += await scenario.share(town)
    await asyncio.to_thread(town.suspect, "droitwich")
    run.keys += await scenario.share(town)
    return run


async def _short(town: Town) -> list[float]:
    await scenario.share(town)
    await scenario.refusals(town)
    return await scenario.silver_pattern(town, 4.0, seed=4)


def _memory(town: Town) -> bytes:
    try:
        return town.memory(ALONE)
    except PermissionError:
        return b""
