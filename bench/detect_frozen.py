"""From SIGSTOP of a CKMS under load until its neighbour's channel reports the peer unreachable.

Pools and buffers are off, so that each key needs a relay of its own, from Bonn to Berlin. In the network measured,
link 16-9 of Berlin–Bonn is moved to 16-10 and made longer, so that keys cross node 9 and can bypass it; ckms-9 is
frozen, and ckms-10, which sends to it, is asked over its local socket until link 9-10 is not connected any more.
Detail tells when the first key over the detour was complete, from SIGSTOP as well. SIGCONT follows in any case.
"""

from __future__ import annotations

import os
import signal
import time

from bench.detour import ENCRYPTORS, LIMIT, ROUNDS, Traffic, traffic
from bench.figure import Figure, spread
from bench.network import BERLIN_BONN
from bench.observe import link, until

FROZEN = "ckms-9"
NEIGHBOUR, LINK = "ckms-10", "9-10"
LOOK_EVERY = 0.005


async def measure() -> Figure:
    """Return the median of the rounds, in milliseconds."""
    rounds: list[tuple[float, float]] = []
    async with traffic(_bypassed(BERLIN_BONN.read_text())) as keys:
        load = keys.load
        pid = keys.network.processes()[FROZEN]
        for _ in range(ROUNDS):
            crossed = await keys.forwarded(FROZEN)
            await keys.flows()
            if await keys.forwarded(FROZEN) == crossed:
                raise LookupError(f"no key crossed {FROZEN}: its standstill would be nobody's loss")
            rounds.append(await _freeze(keys, pid))
            await keys.back(LINK, NEIGHBOUR)
    detected = spread([1e3 * one for one, _ in rounds])
    return Figure(
        "detect_frozen",
        detected["median"],
        "ms",
        1000.0,
        "lower",
        {
            "rounds": len(rounds),
            "until_peer_is_reported_unreachable": detected,
            "each_ms": [round(1e3 * one) for one, _ in rounds],
            "until_first_key_over_detour": spread([1e3 * other for _, other in rounds]),
            "encryptors": ENCRYPTORS,
            "requests_refused_in_all": load.failed,
            "looked_every_ms": 1e3 * LOOK_EVERY,
        },
    )


def _bypassed(description: str) -> str:
    changed = description.replace('a = "16"\nb = "9"\nkm = 55\n', 'a = "16"\nb = "10"\nkm = 155\n')
    if changed == description:
        raise LookupError(f"{BERLIN_BONN} has no link 16-9")
    return changed


async def _freeze(keys: Traffic, pid: int) -> tuple[float, float]:
    """Freeze the process; return seconds until its neighbour knows, and until a key came over the detour."""
    before = await keys.forwarded()

    async def unreachable() -> bool:
        return not (await link(keys.network, NEIGHBOUR, LINK))["connected"]

    begin = time.perf_counter()
    os.kill(pid, signal.SIGSTOP)
    try:
        await until(unreachable, LIMIT, LOOK_EVERY)
        known = time.perf_counter()
        over = await keys.detoured(before, LOOK_EVERY)
    finally:
        os.kill(pid, signal.SIGCONT)
    return known - begin, over - begin
