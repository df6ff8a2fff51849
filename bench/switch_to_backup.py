"""From a cut to the first batch over the backup path: how long the sending CKMS needs, without the controller.

Real processes: a ring of CKMSs, 1–2–3–4 and 1–5–6–4, with modules, and a controller, which installs from 1 to 4 a path
and its disjoint backup by signed statements. The measuring process plays the AKMSs and submits a batch every 5 ms. What
breaks is between the two nodes in the middle of the path in use, out of the sending CKMS's sight:

- *cut*: the link is switched off at both its ends (their connection closes);
- *frozen*: SIGSTOP of the node behind it, so that nothing closes and silence alone tells.

The time begins before the break and ends with the delivery of the first batch that was submitted after it. Then what
was broken is mended, and the controller asked anew, until path and backup are in force again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from bench.asking import Asker, asking
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
CUTS, FREEZES = 100, 15
BATCH_BYTES = 1_024
EVERY = 0.005
MOST_UNDER_WAY = 64
RATE = 2 * BATCH_BYTES / EVERY
BUDGET_MS, FROZEN_BUDGET_MS = 300.0, 1_000.0
LIMIT = 60.0
APART = 1.2
"""Seconds between two questions: within one the second counts as the same."""
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
    async with (
        carrier(LINKS, (SOURCE, DESTINATION), controller=True, skr=SKR) as (network, nodes),
        asking(network, str(SOURCE)) as asker,
    ):
        traffic = Traffic(nodes)
        running = asyncio.create_task(traffic.run())
        try:
            cut = [await _round(network, asker, traffic, _cut) for _ in range(CUTS)]
            frozen = [await _round(network, asker, traffic, _frozen) for _ in range(FREEZES)]
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
            "frozen": spread(frozen),
            "frozen_budget": FROZEN_BUDGET_MS,
            "batch_every_ms": 1e3 * EVERY,
            "batches_that_failed": traffic.failed,
        },
    )


async def _round(network: Network, asker: Asker, traffic: Traffic, broken: Break) -> float:
    """Break the path in use once; return the milliseconds until the backup has delivered."""
    destination = f"ckms-{DESTINATION}"
    await asker.renewed(destination, CLASS, RATE, ranks=2)
    await traffic.first(time.perf_counter(), FLOWS)
    middle = MIDDLES[asker.paths[destination, CLASS, 0].next]
    begin = time.perf_counter()
    async with broken(network, middle):
        over = await traffic.first(time.perf_counter())
    await _mended(network, middle)
    await asyncio.sleep(APART)
    print(f"{broken.__name__.strip('_')}: {1e3 * (over - begin):.1f} ms", file=sys.stderr)
    return 1e3 * (over - begin)


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
async def _frozen(network: Network, middle: Middle) -> AsyncIterator[None]:
    pid = network.processes()[f"ckms-{middle.far}"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


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
