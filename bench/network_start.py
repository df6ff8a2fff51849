"""From `keyhaul network up` to the first 200 for every pair of SAEs: stores are made, links established, pools filled.

Every pair asks for one key from the start on, and again until it is answered 200. What is refused or cannot connect is
asked again after a pause; the asking takes its share of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

import aiohttp

from bench.encryptor import Encryptor, Refused
from bench.figure import Figure
from bench.network import ROOT, laid_out

PAUSE = 0.2
LIMIT = 120.0


async def measure() -> Figure:
    """Return seconds until the last pair has a key."""
    with laid_out() as network:
        saes = network.facts["saes"]
        async with contextlib.AsyncExitStack() as closing:
            encryptors = {entry["id"]: await closing.enter_async_context(Encryptor(entry)) for entry in saes}
            begin = time.perf_counter()
            up = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "keyhaul.command.main", "network", "up", str(network.directory), "--detach"),
                stdout=asyncio.subprocess.DEVNULL,
                cwd=ROOT,
            )

            async def first(master: str, slave: str) -> float:
                while True:
                    try:
                        await encryptors[master].get_key(slave)
                    except (Refused, aiohttp.ClientError, OSError):
                        await asyncio.sleep(PAUSE)
                    else:
                        return time.perf_counter() - begin

            pairs = [(entry["id"], peer) for entry in saes for peer in entry["peers"]]
            try:
                async with asyncio.timeout(LIMIT):
                    times = await asyncio.gather(*(first(*pair) for pair in pairs))
                    await up.wait()
                ready = time.perf_counter() - begin
            finally:
                with contextlib.suppress(ProcessLookupError):
                    up.terminate()
                await up.wait()
    if up.returncode:
        raise RuntimeError(f"`keyhaul network up` ended with {up.returncode}")
    return Figure(
        "network_start",
        max(times),
        "s",
        30.0,
        "lower",
        {
            "pairs": len(pairs),
            "first_pair": round(min(times), 3),
            "last_pair": "{} to {}".format(*pairs[times.index(max(times))]),
            "up_returned_or_later": round(ready, 3),
            "services": len(network.facts["services"]),
            "asked_again_after_seconds": PAUSE,
        },
    )
