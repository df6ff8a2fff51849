"""What services and the kernel tell of a running network while it is measured."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from prometheus_client.parser import text_string_to_metric_families

from bench.network import Network
from keyhaul.runtime.local import ask

_TICKS = os.sysconf("SC_CLK_TCK")


def warnings_alone() -> None:
    """Have this process log warnings, to stderr; figures go to stdout."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def metrics(network: Network, service: str, **labels: str) -> dict[str, float]:
    """A service's metrics by sample name; those that have such labels only, added up where others differ."""
    (address,) = [entry["metrics"] for entry in network.facts["services"] if entry["id"] == service]
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as answer:
        text = await answer.text()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if labels.items() <= sample.labels.items():
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


async def link(network: Network, service: str, name: str) -> dict[str, Any]:
    """One link as a service sees it."""
    answer = await ask(network.socket(service), "links")
    return next(dict(entry) for entry in answer["links"] if entry["link"] == name)


async def until(holds: Callable[[], Awaitable[bool]], limit: float, every: float = 0.1) -> None:
    """Look until something holds.

    Raises:
        TimeoutError: it did not within `limit` seconds.
    """
    async with asyncio.timeout(limit):
        while True:
            if await holds():
                return
            await asyncio.sleep(every)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, in user and kernel, all threads (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def proportional_bytes(pid: int) -> int:
    """A process's proportional set size: its own pages, and its share of those that it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/{pid}/smaps_rollup tells no PSS")


def resident_bytes(pid: int) -> int:
    """What a process holds in memory (VmRSS), shared pages included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/{pid}/status tells no VmRSS")


def with_children(pids: set[int]) -> set[int]:
    """These processes and all that descend from them."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return found
