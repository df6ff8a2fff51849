"""From a cut to the first batch over the backup path: how long the sending CKMS needs, without the controller.

Real processes: a ring of CKMSs, 1–2–3–4 and 1–5–6–4, with modules, and a controller, which installs from 1 to 4 a path
and its disjoint backup by signed statements. The measuring process plays the AKMSs and submits a batch every 5 ms. What
breaks is between the two nodes in the middle of the path in use, out of the sending CKMS's sight:

- *cut*: the link is switched off at both its ends (their connection closes);
- *killed*: kill -9 of the node behind it;
- *frozen*: SIGSTOP of the node behind it, so that nothing closes and silence alone tells.

The time begins before the break and ends with the delivery of the first batch that was submitted after it. Then what
was broken is mended. The controller is stopped as soon as both paths are in force, and has no part in it; which of
them is in use the sending CKMS tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

from bench.asking import asking
from bench.chain import AccessNodes, RelayFailed, carrier
from bench.figure import Figure, spread
from bench.network import Network
from bench.observe import link, until
from keyhaul.runtime.local import LocalRefusal, LocalUnreachable, ask
from keyhaul.transport.messages.base import ServiceError

LINKS = [(1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 4)]
SOURCE, DESTINATION = 1, 4
SKR = 500_000
"""Of each link, bits per second: pads that were burned with a process are there again soon."""
CLASS = "silver"
CUTS, KILLS, FREEZES = 100, 15, 15
BATCH_BYTES = 1_024
EVERY = 0.005
MOST_UNDER_WAY = 64
RATE = 2 * BATCH_BYTES / EVERY
BUDGET_MS, FROZEN_BUDGET_MS = 300.0, 1_000.0
LIMIT = 60.0
FLOWS = 20
"""Batches that are delivered before each break."""


@dataclass(frozen=True, slots=True)
class Middle:
    """The two nodes in the middle of a path."""

    near: int
    far: int

    @property
    def link(self) -> str:
        """The link between them."""
        return f"{self.near}-{self.far}"


MIDDLES = {"ckms-2": Middle(2, 3), "ckms-5": Middle(5, 6)}
"""By the first node of the path."""


class Traffic:
    """Batches from the source to the destination, one after the other."""

    def __init__(self, nodes: AccessNodes) -> None:
        self._nodes = nodes
        self._delivered: list[tuple[float, float]] = []
        self._news = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self.failed = 0

    async def run(self) -> None:
        """Submit until cancelled."""
        try:
            while True:
                if len(self._under_way) < MOST_UNDER_WAY:
                    task = asyncio.create_task(self._carry())
                    self._under_way.add(task)
                    task.add_done_callback(self._under_way.discard)
                await asyncio.sleep(EVERY)
        finally:
            for task in self._under_way:
                task.cancel()

    async def first(self, submitted_after: float, number: int = 1) -> float:
        """When the first batch, or so many of them, that was submitted after a moment was delivered."""
        async with asyncio.timeout(LIMIT):
            while True:
                found = sorted(there for submitted, there in self._delivered if submitted > submitted_after)
                if len(found) >= number:
                    self._delivered.clear()
                    return found[number - 1]
                self._news.clear()
                await self._news.wait()

    async def _carry(self) -> None:
        begin = time.perf_counter()
        try:
            delivered, _ = await self._nodes.carry(SOURCE, DESTINATION, BATCH_BYTES)
        except (RelayFailed, ServiceError, TimeoutError):
            self.failed += 1
            return
        self._delivered.append((begin, begin + delivered))
        self._news.set()


Break = Callable[[Network, Middle], contextlib.AbstractAsyncContextManager[None]]
"""Breaks something on entering, and mends it on leaving."""


async def measure() -> Figure:
    """Return the 99th percentile of the cuts, in milliseconds."""
    async with carrier(LINKS, (SOURCE, DESTINATION), controller=True, skr=SKR) as (network, nodes):
        async with asking(network, str(SOURCE)) as asker:
            await asker.renewed(f"ckms-{DESTINATION}", CLASS, RATE, ranks=2)
        traffic = Traffic(nodes)
        with _stopped(network.processes()["controller-dc"]):
            running = asyncio.create_task(traffic.run())
            try:
                cut = [await _round(network, traffic, _cut) for _ in range(CUTS)]
                killed = [await _round(network, traffic, _killed) for _ in range(KILLS)]
                frozen = [await _round(network, traffic, _frozen) for _ in range(FREEZES)]
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
    found = spread(cut)
    return Figure(
        "switch_to_backup",
        found["p99"],
        "ms",
        BUDGET_MS,
        "lower",
        {
            "cut": found,
            "killed": spread(killed),
            "frozen": spread(frozen),
            "frozen_budget": FROZEN_BUDGET_MS,
            "batch_every_ms": 1e3 * EVERY,
            "batches_that_failed": traffic.failed,
        },
    )


async def _round(network: Network, traffic: Traffic, broken: Break) -> float:
    """Break the path in use once; return the milliseconds until the backup has delivered."""
    middle = await _in_use(network, traffic)
    begin = time.perf_counter()
    async with broken(network, middle):
        over = await traffic.first(time.perf_counter())
    await _mended(network, middle)
    return 1e3 * (over - begin)


async def _in_use(network: Network, traffic: Traffic) -> Middle:
    """The middle of the path that carries all batches now; one on trial carries a single one."""
    before = await _carried(network)
    await traffic.first(time.perf_counter(), FLOWS)
    after = await _carried(network)
    return MIDDLES[max(after, key=lambda first: after[first] - before.get(first, 0))]


async def _carried(network: Network) -> dict[str, int]:
    """Batches that left over each path, by its first node."""
    answer = await ask(network.socket(f"ckms-{SOURCE}"), "paths")
    return {path["next"]: path["batches"] for path in answer["paths"] if path["serial"] is not None}


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def _cut(network: Network, middle: Middle) -> AsyncIterator[None]:
    async def switch(cut: bool) -> None:
        ends: list[Awaitable[object]] = [
            ask(network.socket(f"ckms-{end}"), "cut", {"link": middle.link, "cut": cut})
            for end in (middle.near, middle.far)
        ]
        await asyncio.gather(*ends)

    await switch(True)
    try:
        yield
    finally:
        await switch(False)


@contextlib.asynccontextmanager
async def _killed(network: Network, middle: Middle) -> AsyncIterator[None]:
    os.kill(network.processes()[f"ckms-{middle.far}"], signal.SIGKILL)
    yield


@contextlib.asynccontextmanager
async def _frozen(network: Network, middle: Middle) -> AsyncIterator[None]:
    with _stopped(network.processes()[f"ckms-{middle.far}"]):
        yield


async def _mended(network: Network, middle: Middle) -> None:
    """Wait until the links of the far one are up at both ends."""
    ends = {f"{one}-{other}": (one, other) for one, other in LINKS if middle.far in (one, other)}

    async def up() -> bool:
        try:
            states = [
                (await link(network, f"ckms-{end}", name))["state"] for name, pair in ends.items() for end in pair
            ]
        except (LocalUnreachable, LocalRefusal):
            return False
        return set(states) == {"up"}

    await until(up, LIMIT)
