"""Processor time of the CKMS in the middle of a chain of two hops, for batches of one size."""

from __future__ import annotations

import asyncio
import time

from bench.chain import chain
from bench.figure import Figure
from bench.observe import cpu_seconds

KEY_BYTES = 32
MIDDLE = 2
WARM_UP = 200
AT_ONCE = 16


async def measured(name: str, keys: int, batches: int, budget: float) -> Figure:
    """Send batches of so many keys through the middle CKMS, some at once and then one at a time.

    The value is user and kernel time of its process for all it does meanwhile (opening, sealing, acknowledgements,
    TLS, HTTP/2, leases, housekeeping), divided by the keys that it relayed.
    """
    async with chain(2, (1, 3)) as (network, nodes):
        pid = network.processes()[f"ckms-{MIDDLE}"]

        async def send(number: int, at_once: int) -> tuple[float, float]:
            left = number

            async def worker() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    await nodes.carry(1, 3, keys * KEY_BYTES)

            used, begin = cpu_seconds(pid), time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(at_once)))
            return cpu_seconds(pid) - used, time.perf_counter() - begin

        await send(WARM_UP, AT_ONCE)
        used, seconds = await send(batches, AT_ONCE)
        alone_used, alone_seconds = await send(batches // 4, 1)
    return Figure(
        name,
        1e6 * used / batches / keys,
        "us",
        budget,
        "lower",
        {
            "keys_per_batch": keys,
            "batch_bytes": keys * KEY_BYTES,
            "batches": batches,
            "batches_at_once": AT_ONCE,
            "cpu_seconds": round(used, 2),
            "seconds": round(seconds, 2),
            "us_per_batch": round(1e6 * used / batches, 1),
            "one_batch_at_a_time": {
                "batches": batches // 4,
                "us_per_key": round(1e6 * alone_used / (batches // 4) / keys, 3),
                "ms_per_batch_end_to_end": round(1e3 * alone_seconds / (batches // 4), 3),
            },
            "suite": "aes-256-gcm",
            "source": "utime + stime of /proc/PID/stat, in steps of 10 ms",
        },
    )
