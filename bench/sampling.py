"""How long it takes to share one key, again and again: `enc_keys` at Berlin until `dec_keys` answered at Bonn."""

from __future__ import annotations

import asyncio
import sys
import time

from bench.encryptor import Encryptor, share
from bench.network import Network

TELL_EVERY = 100


async def samples(network: Network, number: int, *, warm_up: int, pause: float = 0.0) -> list[float]:
    """Milliseconds of so many keys, one after the other.

    Args:
        network: whose first far pair of encryptors shares them.
        number: keys that count.
        warm_up: keys before them that do not.
        pause: seconds from one key to the next.
    """
    first, second = network.far_pair()
    found: list[float] = []
    async with Encryptor(first) as master, Encryptor(second) as slave:
        for index in range(warm_up + number):
            begin = time.perf_counter()
            await share(master, slave)
            if index >= warm_up:
                found.append(1e3 * (time.perf_counter() - begin))
            if index % TELL_EVERY == 0:
                print(f"{index} of {warm_up + number} keys", file=sys.stderr)
            if pause:
                await asyncio.sleep(pause)
    return found
