"""From kill -9 of a service under load until it serves fully again and every pair of encryptors has new keys.

Services of every role are killed in turn; the supervisor starts them again, as systemd would. The end of a round is the
first key of every pair, both ways between Berlin and Bonn, that was asked for after the new process served fully: all
its links up, connected to all it dials. Pools and buffers are off, so that no key comes out of a stock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

from bench.encryptor import Encryptor
from bench.figure import Figure
from bench.load import Load
from bench.network import Network, running
from bench.observe import until
from keyhaul.command.laboratory import probe
from keyhaul.runtime.local import LocalSocketError, ask

KILLED = ("ukms-15", "akms-14", "ckms-14", "qkdm-15", "ckms-8", "qkdm-8", "ukms-1", "akms-2", "ckms-2", "qkdm-2")
"""Beside AAA: the sites and access nodes of both cities, and a node in the middle; each once, so that none is started
again later because it ends often."""

PAIRS = ((("first-berlin-1", "first-bonn-1"), 0.0), (("second-berlin-1", "second-bonn-1"), 4.0))
"""One of each class that crosses the carrier, AEAD and one-time pad, and seconds from asking to asking at least.

A one-time pad uses up the keys of every link on its way. Of what these links make, some 270 bits per second are left
for it; who asks for more is refused, fault or no fault, and the figure would be that.
"""

SETTLED_KEYS = 5
LIMIT = 120.0
LOOK_EVERY = 0.02


async def measure() -> Figure:
    """Return the worst of all, in seconds."""
    took: dict[str, float] = {}
    with running(without_pools=True) as network:
        async with contextlib.AsyncExitStack() as closing:
            saes = {entry["id"]: entry for entry in network.facts["saes"]}
            names = [name for pair, _ in PAIRS for name in pair]
            users = {name: await closing.enter_async_context(Encryptor(saes[name])) for name in names}
            loads = [
                await closing.enter_async_context(Load(users[master], users[slave], 1, interval=interval))
                for pair, interval in PAIRS
                for master, slave in (pair, pair[::-1])
            ]
            (aaa,) = [entry["id"] for entry in network.facts["services"] if entry["role"] == "aaa"]
            for service in (*KILLED, aaa):
                await asyncio.gather(*(load.more(SETTLED_KEYS, LIMIT) for load in loads))
                took[service] = await _killed(network, service, loads)
    return Figure(
        "back_after_fault",
        max(took.values()),
        "s",
        10.0,
        "lower",
        {
            "each_s": {service: round(seconds, 3) for service, seconds in took.items()},
            "worst_service": max(took, key=lambda service: took[service]),
            "ways": len(loads),
            "one_time_pad_interval_s": PAIRS[1][1],
            "keys_delivered_in_all": sum(load.keys for load in loads),
            "requests_refused_in_all": sum(load.failed for load in loads),
        },
    )


async def _killed(network: Network, service: str, loads: list[Load]) -> float:
    """Kill a service; return seconds until it serves fully and every load had a key asked for after that."""
    former = network.processes()[service]

    async def serves() -> bool:
        if network.processes().get(service, former) == former:
            return False
        try:
            return not probe.missing(await ask(network.socket(service), "status", deadline=2.0))
        except LocalSocketError:
            return False

    begin = time.perf_counter()
    os.kill(former, signal.SIGKILL)
    await until(serves, LIMIT, LOOK_EVERY)
    back = time.perf_counter()
    return max(await asyncio.gather(*(load.first(asked_after=back, limit=LIMIT) for load in loads))) - begin
