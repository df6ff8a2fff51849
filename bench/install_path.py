"""From a CKMS's path request until its path statement is in force: twelve hops, by real controller and real CKMSs.

A chain of thirteen CKMS processes with modules, and a controller process over them. The measuring process asks the
controller in the name of the first CKMS, over a connection of its own, for a path to the last one, again and again:
each time the controller decides, draws fresh labels, signs (ML-DSA-65), records and tells twelve CKMSs their entries by
gNMI, one after the other from the far end on, each of which verifies and commits before it confirms; then the first one
gets its path in the place of the former. The time ends when the first CKMS's own agent tells of the path in force.
"""

from __future__ import annotations

import asyncio

from bench.asking import asking
from bench.chain import chain
from bench.figure import Figure, spread

HOPS = 12
SAMPLES = 100
CLASS = "silver"
RATE = 1_000.0
APART = 1.1
"""Seconds after a path is in force before the next is asked for: a question within a second counts as the same."""


async def measure() -> Figure:
    """Return the median of the samples, in milliseconds."""
    destination = f"ckms-{1 + HOPS}"
    samples: list[float] = []
    async with chain(HOPS, (1, 1 + HOPS), controller=True) as (network, _), asking(network, "1") as asker:
        await asker.ask(destination, CLASS, RATE)
        await asker.in_force(destination, CLASS, ranks=1, after=0)
        while len(samples) < SAMPLES:
            await asyncio.sleep(APART)
            before = asker.newest()
            begin = await asker.ask(destination, CLASS, RATE)
            samples.append(1e3 * (await asker.in_force(destination, CLASS, ranks=1, after=before) - begin))
    found = spread(samples)
    return Figure(
        "install_path",
        found["median"],
        "ms",
        None,
        "lower",
        {
            **found,
            "hops": HOPS,
            "statements": HOPS + 1,
            "ms_a_hop": round(found["median"] / (HOPS + 1), 2),
            "processes": f"{HOPS + 1} CKMSs, {HOPS + 1} modules' processes, a controller on SQLite",
        },
    )
