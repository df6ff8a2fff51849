"""The time to share one key when nothing is prepared: `enc_keys` at Berlin until `dec_keys` answered at Bonn.

CN pools and buffers are off by configuration; connections, the path and the links' pads are there. Every sample pays
for the grant check, the relay over twelve hops, confirmation, transfer, both deliveries and the fetch at the other
end.
DemoQuanDT measured 17.34 ± 1.62 s over the same chain of nodes in the field.
"""

from __future__ import annotations

import sys
import time

from bench.encryptor import Encryptor, share
from bench.figure import Figure, spread
from bench.network import running

SAMPLES = 1000
WARM_UP = 20
DEMOQUANDT_MS = 17_340.0


async def measure() -> Figure:
    """Return the median of the samples, in milliseconds."""
    with running(without_pools=True) as network:
        first, second = network.far_pair()
        async with Encryptor(first) as master, Encryptor(second) as slave:
            samples = []
            for index in range(WARM_UP + SAMPLES):
                start = time.perf_counter()
                await share(master, slave)
                if index >= WARM_UP:
                    samples.append(1e3 * (time.perf_counter() - start))
                if index % 100 == 0:
                    print(f"t_key_cold: {index} of {WARM_UP + SAMPLES}", file=sys.stderr)
    figures = spread(samples)
    return Figure(
        "t_key_cold",
        figures["median"],
        "ms",
        50.0,
        "lower",
        {
            **figures,
            "p99_budget": 100.0,
            "demoquandt_ms": DEMOQUANDT_MS,
            "times_faster": round(DEMOQUANDT_MS / figures["median"]),
        },
    )
