"""Keys delivered end to end in a second over the chain, aes-256-gcm, both SAEs fetching. KMSTN measured about ten."""

from __future__ import annotations

import asyncio
import time

from bench.encryptor import Encryptor, Refused, share
from bench.figure import Figure
from bench.network import Network, running
from bench.observe import cpu_seconds

SECONDS = 20.0
WARM_UP_SECONDS = 5.0
REQUESTS_AT_ONCE = 6
KEYS_PER_REQUEST = 128
KMSTN_KEYS_PER_SECOND = 10


async def measure() -> Figure:
    """Return keys of 256 bits per second that both encryptors have."""
    with running() as network:
        first, second = network.far_pair()
        async with Encryptor(first) as master, Encryptor(second) as slave:
            counted = exhausted = 0
            begin = time.perf_counter() + WARM_UP_SECONDS
            end = begin + SECONDS
            spent: dict[str, float] = {}

            async def fetch() -> None:
                nonlocal counted, exhausted
                while time.perf_counter() < end:
                    try:
                        keys = await share(master, slave, KEYS_PER_REQUEST)
                    except Refused as refused:
                        if refused.status != 503:
                            raise
                        exhausted += 1
                        continue
                    if begin <= time.perf_counter() < end:
                        counted += len(keys)

            async def watch() -> None:
                await asyncio.sleep(begin - time.perf_counter())
                before = processor_seconds(network)
                await asyncio.sleep(end - time.perf_counter())
                spent.update({role: used - before[role] for role, used in processor_seconds(network).items()})

            await asyncio.gather(watch(), *(fetch() for _ in range(REQUESTS_AT_ONCE)))
    return Figure(
        "keys_per_second",
        counted / SECONDS,
        "keys/s",
        5000.0,
        "higher",
        {
            "keys": counted,
            "seconds": SECONDS,
            "keys_per_request": KEYS_PER_REQUEST,
            "requests_at_once": REQUESTS_AT_ONCE,
            "answers_503": exhausted,
            "processor_us_per_key": {
                role: round(1e6 * used / counted, 1) for role, used in sorted(spent.items(), key=lambda item: -item[1])
            },
            "kmstn_keys_per_second": KMSTN_KEYS_PER_SECOND,
        },
    )


def processor_seconds(network: Network) -> dict[str, float]:
    """Processor time of all services by role, and of the encryptors (this process)."""
    found = {"encryptors": time.process_time()}
    for service, pid in network.processes().items():
        role = service.partition("-")[0]
        found[role] = found.get(role, 0.0) + cpu_seconds(pid)
    return found
