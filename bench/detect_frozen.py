"""From SIGSTOP of a CKMS under load until its neighbour's channel reports the peer unreachable.

Pools and buffers are off, so that each key needs a relay of its own, from Bonn to Berlin. In the network measured,
link 16-9 of Berlin–Bonn is moved to 16-10 and made longer, so that keys cross node 9 and can bypass it; ckms-9 is
frozen, and ckms-10, which sends to it, is asked over its local socket until link 9-10 is not connected any more.
Detail tells when the first key over the detour was complete, from SIGSTOP as well. SIGCONT follows in any case.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

from bench.encryptor import Encryptor
from bench.figure import Figure, spread
from bench.load import Load
from bench.network import BERLIN_BONN, Network, running
from bench.observe import link, metrics, until
from keyhaul.runtime.local import ask

ROUNDS = 7
ENCRYPTORS = 4
FROZEN = "ckms-9"
NEIGHBOUR, LINK = "ckms-10", "9-10"
DETOUR = "ckms-16"
SOURCE = "ckms-14"
SETTLED_KEYS = 20
LIMIT = 90.0
LOOK_EVERY = 0.005


async def measure() -> Figure:
    """Return the median of the rounds, in milliseconds."""
    rounds: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="kh-", dir="/tmp") as scratch:
        description = Path(scratch) / "bypass.toml"
        description.write_text(_bypassed(BERLIN_BONN.read_text()))
        with running(without_pools=True, description=description) as network:
            first, second = network.far_pair()
            pid = network.processes()[FROZEN]
            async with (
                Encryptor(first) as master,
                Encryptor(second) as slave,
                Load(master, slave, ENCRYPTORS) as load,
            ):
                for _ in range(ROUNDS):
                    crossed = await _forwarded(network, FROZEN)
                    await load.more(SETTLED_KEYS, LIMIT)
                    if await _forwarded(network, FROZEN) == crossed:
                        raise LookupError(f"no key crossed {FROZEN}: its standstill would be nobody's loss")
                    rounds.append(await _freeze(network, pid, load))
                    await _thawed(network)
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


async def _freeze(network: Network, pid: int, load: Load) -> tuple[float, float]:
    """Freeze the process; return seconds until its neighbour knows, and until a key came over the detour."""
    before = await _forwarded(network, DETOUR)

    async def unreachable() -> bool:
        return not (await link(network, NEIGHBOUR, LINK))["connected"]

    async def detoured() -> bool:
        return await _forwarded(network, DETOUR) > before

    begin = time.perf_counter()
    os.kill(pid, signal.SIGSTOP)
    try:
        await until(unreachable, LIMIT, LOOK_EVERY)
        known = time.perf_counter()
        await until(detoured, LIMIT, LOOK_EVERY)
        over = await load.first(finished_after=time.perf_counter(), limit=LIMIT)
    finally:
        os.kill(pid, signal.SIGCONT)
    return known - begin, over - begin


async def _forwarded(network: Network, service: str) -> float:
    """Batches that a CKMS has sent on."""
    return (await metrics(network, service))["keyhaul_ckms_forwarded_total"]


async def _thawed(network: Network) -> None:
    """Wait until the link is up and its path first choice again at the source."""

    async def settled() -> bool:
        up = (await link(network, NEIGHBOUR, LINK))["state"] == "up"
        return up and not any(path["on_probation"] for path in (await ask(network.socket(SOURCE), "paths"))["paths"])

    await until(settled, LIMIT)
