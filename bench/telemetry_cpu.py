"""Processor time that following 500 CKMSs costs the controller, in cores: CPU seconds a second of its process.

Five hundred nodes of the European backbone, simulated in two other processes (`bench.simulated`): each is a gNMI
target of its own, with its own address and certificate, TLS 1.3 and the YANG module of real CKMSs, subscribed to as
the controller subscribes. Each link is told by both its ends every second, with some 26 leaves; detail says how many
leaves come in a second and node (at least 40 by the budget). The controller is a process as an operator runs it
(`keyhaul serve controller`), that leads, discovers, keeps history and serves its pages; nobody asks it for paths.
"""

from __future__ import annotations

import asyncio
import time

from bench.figure import Figure
from bench.nets import europe, part
from bench.observe import cpu_seconds
from bench.steered import steered

NODES = 500
LEAVES = 40
SETTLED = 10.0
SECONDS = 60.0
LIMIT = 120.0


async def measure() -> Figure:
    """Return cores."""
    net = part(europe(), NODES)
    async with steered(net, 2) as running:
        await running.all_told(LIMIT)
        await asyncio.sleep(SETTLED)
        pids = [running.controller, *(process.pid for process in running.agents.processes)]
        before, messages = [cpu_seconds(pid) for pid in pids], await running.metrics()
        begin = time.perf_counter()
        await asyncio.sleep(SECONDS)
        seconds = time.perf_counter() - begin
        used = [cpu_seconds(pid) - was for pid, was in zip(pids, before, strict=True)]
        after, health = await running.metrics(), await running.health()
    told = (
        after["keyhaul_controller_telemetry_messages_total"] - messages["keyhaul_controller_telemetry_messages_total"]
    )
    return Figure(
        "telemetry_cpu",
        used[0] / seconds,
        "cores",
        0.25,
        "lower",
        {
            "nodes": len(net.nodes),
            "links": len(net.links),
            "messages_a_second": round(told / seconds, 1),
            "links_by_state": health["links"],
            "discovery_ms": round(1e3 * after["keyhaul_controller_discovery_seconds"], 2),
            "cores_of_the_simulation": round(sum(used[1:]) / seconds, 3),
            "seconds": round(seconds, 1),
        },
    )
