"""The time to share one key from prepared buffers: `enc_keys` at Berlin until `dec_keys` answered at Bonn."""

from __future__ import annotations

from bench.figure import Figure, spread
from bench.network import running
from bench.sampling import samples

SAMPLES = 1000
WARM_UP = 100
PAUSE = 0.01
"""Seconds between samples: an encryptor's own pace, in which buffers refill."""


async def measure() -> Figure:
    """Return the median of the samples, in milliseconds."""
    with running() as network:
        figures = spread(await samples(network, SAMPLES, warm_up=WARM_UP, pause=PAUSE))
    return Figure("t_key_warm", figures["median"], "ms", 3.0, "lower", {**figures, "p99_budget": 10.0})
