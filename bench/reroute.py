"""From cutting link 8-9 under load to the first key over the detour by node 16.

Pools and buffers are off, so that each key needs a relay of its own, from Bonn to Berlin over link 8-9. The link is
switched off at both ends at once, over the local sockets of ckms-8 and ckms-9, while encryptors ask for one key after
the other. Node 16 relays nothing but the detour: the first key that is complete at both encryptors after ckms-16 was
seen to have forwarded a batch ends the measurement. Between rounds the link is on again until the path is first choice.
"""

from __future__ import annotations

import asyncio
import time

from bench.detour import ENCRYPTORS, LIMIT, ROUNDS, Traffic, traffic
from bench.figure import Figure, spread
from keyhaul.runtime.local import ask

CUT = "8-9"
ENDS = ("ckms-8", "ckms-9")
LOOK_EVERY = 0.001


async def measure() -> Figure:
    """Return the median of the rounds, in milliseconds."""
    rounds: list[tuple[float, float]] = []
    async with traffic() as keys:
        load = keys.load
        for _ in range(ROUNDS):
            await keys.flows()
            rounds.append(await _cut(keys))
            await _switch(keys, cut=False)
            await keys.back(CUT, *ENDS)
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


async def _cut(keys: Traffic) -> tuple[float, float]:
    """Cut the link; return seconds until a key came over the detour, and until one asked for after the cut came."""
    before = await keys.forwarded()
    begin = time.perf_counter()
    await _switch(keys, cut=True)
    cut = time.perf_counter()
    over = await keys.detoured(before, LOOK_EVERY)
    asked = await keys.load.first(asked_after=cut, limit=LIMIT)
    return over - begin, asked - begin


async def _switch(keys: Traffic, *, cut: bool) -> None:
    """Cut the link at both ends, or mend it."""
    await asyncio.gather(*(ask(keys.network.socket(end), "cut", {"link": CUT, "cut": cut}) for end in ENDS))
