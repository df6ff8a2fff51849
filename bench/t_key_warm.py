"""The time to share one key from prepared buffers: `enc_keys` at Berlin until `dec_keys` answered at Bonn."""

from __future__ import annotations

import asyncio
import time

from bench.encryptor import Encryptor, share
from bench.figure import Figure, spread
from bench.network import running

SAMPLES = 1000
WARM_UP = 100
PAUSE = 0.01
"""Seconds between samples: an encryptor's own pace, in which buffers refill."""


async def measure() -> Figure:
    """Return the median of the samples, in milliseconds."""
    with running() as network:
        first, second = network.far_pair()
        async with Encryptor(first) as master, Encryptor(second) as slave:
            samples = []
            for index in range(WARM_UP + SAMPLES):
                start = time.perf_counter()
                await share(master, slave)
                if index >= WARM_UP:
                    samples.append(1e3 * (time.perf_counter() - start))
                await asyncio.sleep(PAUSE)
    figures = spread(samples)
    return Figure("t_key_warm", figures["median"], "ms", 3.0, "lower", {**figures, "p99_budget": 10.0})
