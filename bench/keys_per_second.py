"""Keys delivered end to end in a second over the chain, aes-256-gcm, both SAEs fetching. KMSTN measured about ten."""

from __future__ import annotations

import asyncio
import time

from bench.encryptor import Encryptor, Refused, share
from bench.figure import Figure
from bench.network import running

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

            await asyncio.gather(*(fetch() for _ in range(REQUESTS_AT_ONCE)))
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
            "kmstn_keys_per_second": KMSTN_KEYS_PER_SECOND,
        },
    )
