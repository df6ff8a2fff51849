"""Memory of a controller that follows 10,000 CKMSs, each over a gNMI connection of its own.

A generated network of 10,000 nodes, long links split by trusted nodes (`bench.generated`), simulated in two other
processes (`bench.simulated`): as many gNMI targets with their own addresses and certificates, mutual TLS, and
subscriptions as the controller makes them for so many nodes (`controller.rhythm`). The controller is a process as an
operator runs it, which dials, discovers, leads and keeps history; nobody asks it for paths. Its resident memory (VmRSS)
is read when every node has told everything, and some time after, which is the value; and for 1,000 nodes, so that it
can be seen what a node takes.

`messages_a_second` says how many came, `links_by_state` what was found, and `late` whether all nodes were never seen to
tell at one moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
import time
from typing import Any

import aiohttp

from bench.figure import Figure
from bench.nets import generated
from bench.observe import cpu_seconds, resident_bytes
from bench.steered import Steered, steered
from controller.rhythm import Rhythm

SIZES = (1_000, 10_000)
PROCESSES = 2
LIMIT = 600.0
SETTLED = 30.0
LOOK_EVERY = 5.0
FILES = 16_384
"""Open files that a process needs at most: two for each node of a simulation, one in the controller."""
MIB = 2**20


async def measure() -> Figure:
    """Return MiB."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < FILES:
        raise RuntimeError(f"{FILES} open files are needed in a process (ulimit -n), {most} are allowed")
    found = {size: await _held(size) for size in SIZES}
    small, large = SIZES
    return Figure(
        "controller_memory",
        found[large]["mib"],
        "MiB",
        None,
        "lower",
        {
            "nodes": large,
            "kib_a_node": round(1024 * (found[large]["mib"] - found[small]["mib"]) / (large - small), 1),
            "by_nodes": {str(size): detail for size, detail in found.items()},
            "source": "VmRSS of /proc/PID/status",
        },
    )


async def _held(size: int) -> dict[str, Any]:
    """What a controller of so many nodes holds."""
    net, sample = generated(size), Rhythm.of(size).sample
    async with steered(net, PROCESSES, verify=False, look=sample) as running:
        begin = time.perf_counter()
        late = not await _all_seen(running)
        told = time.perf_counter() - begin
        used, messages, begin = cpu_seconds(running.controller), await _messages(running), time.perf_counter()
        first = resident_bytes(running.controller)
        await asyncio.sleep(SETTLED)
        seconds = time.perf_counter() - begin
        health = await running.health()
        return {
            "links": len(net.links),
            "mib": round(resident_bytes(running.controller) / MIB, 1),
            "mib_when_all_had_told": round(first / MIB, 1),
            "seconds_until_all_had_told": round(told, 1),
            "late": late,
            "telling": health["nodes"]["telling"],
            "links_by_state": health["links"],
            "messages_a_second": round((await _messages(running) - messages) / seconds, 1),
            "cores": round((cpu_seconds(running.controller) - used) / seconds, 3),
            "mib_of_the_simulation": round(sum(resident_bytes(one.pid) for one in running.agents.processes) / MIB, 1),
        }


async def _all_seen(running: Steered) -> bool:
    """Wait until all nodes tell at one moment; False if that did not come to be."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LIMIT):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    nodes = (await running.health())["nodes"]
                    print(f"{nodes['telling']} of {nodes['planned']} nodes tell", file=sys.stderr)
                    if nodes["telling"] == nodes["planned"]:
                        return True
                await asyncio.sleep(LOOK_EVERY)
    return False


async def _messages(running: Steered) -> float:
    return (await running.metrics())["keyhaul_controller_telemetry_messages_total"]
