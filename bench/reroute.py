"""From cutting link 8-9 under load to the first key over the detour by node 16.

Pools and buffers are off, so that each key needs a relay of its own, from Bonn to Berlin over link 8-9. The link is
switched off at both ends at once, over the local sockets of ckms-8 and ckms-9, while encryptors ask for one key after
the other. Node 16 relays nothing but the detour: the first key that is complete at both encryptors after ckms-16 was
seen to have forwarded a batch ends the measurement. Between rounds the link is on again until the path is first choice.
"""

from __future__ import annotations

import asyncio
import time

from bench.encryptor import Encryptor
from bench.figure import Figure, spread
from bench.load import Load
from bench.network import Network, running
from bench.observe import link, metrics, until
from keyhaul.runtime.local import ask

ROUNDS = 7
ENCRYPTORS = 4
CUT = "8-9"
ENDS = ("ckms-8", "ckms-9")
DETOUR = "ckms-16"
SOURCE = "ckms-14"
SETTLED_KEYS = 20
LIMIT = 60.0
LOOK_EVERY = 0.001


async def measure() -> Figure:
    """Return the median of the rounds, in milliseconds."""
    rounds: list[tuple[float, float]] = []
    with running(without_pools=True) as network:
        first, second = network.far_pair()
        async with (
            Encryptor(first) as master,
            Encryptor(second) as slave,
            Load(master, slave, ENCRYPTORS) as load,
        ):
            for _ in range(ROUNDS):
                await load.more(SETTLED_KEYS, LIMIT)
                rounds.append(await _cut(network, load))
                await _restore(network)
    detoured = spread([1e3 * one for one, _ in rounds])
    return Figure(
        "reroute",
        detoured["median"],
        "ms",
        300.0,
        "lower",
        {
            "rounds": len(rounds),
            "to_first_key_over_detour": detoured,
            "to_first_key_asked_for_after_the_cut": spread([1e3 * other for _, other in rounds]),
            "encryptors": ENCRYPTORS,
            "keys_delivered_in_all": load.keys,
            "requests_refused_in_all": load.failed,
            "median_ms_per_key_in_all": load.usual_ms,
        },
    )


async def _cut(network: Network, load: Load) -> tuple[float, float]:
    """Cut the link; return seconds until a key came over the detour, and until one asked for after the cut came."""
    before = (await metrics(network, DETOUR))["keyhaul_ckms_forwarded_total"]

    async def detoured() -> bool:
        return (await metrics(network, DETOUR))["keyhaul_ckms_forwarded_total"] > before

    begin = time.perf_counter()
    await asyncio.gather(*(ask(network.socket(end), "cut", {"link": CUT, "cut": True}) for end in ENDS))
    cut = time.perf_counter()
    await until(detoured, LIMIT, LOOK_EVERY)
    over = await load.first(finished_after=time.perf_counter(), limit=LIMIT)
    asked = await load.first(asked_after=cut, limit=LIMIT)
    return over - begin, asked - begin


async def _restore(network: Network) -> None:
    """Mend the link, and wait until it is up and its path first choice again at the source."""
    await asyncio.gather(*(ask(network.socket(end), "cut", {"link": CUT, "cut": False}) for end in ENDS))

    async def settled() -> bool:
        up = [(await link(network, end, CUT))["state"] == "up" for end in ENDS]
        paths = (await ask(network.socket(SOURCE), "paths"))["paths"]
        return all(up) and not any(path["on_probation"] for path in paths)

    await until(settled, LIMIT)
