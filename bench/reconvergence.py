"""From cutting a link of germany50 until all demands over it have other paths, confirmed at every CKMS: 1,225 demands.

Each of the 1,225 pairs of its 50 nodes is a demand of class silver. The nodes are simulated in another process
(`bench.simulated`): real gNMI targets, which verify the ML-DSA signature of each statement. The controller is a
process as an operator runs it, with its database. A link is cut by both its ends telling that it is down. That a demand
is whole again is found at the nodes: each path in force at its source is followed label by label, over links that are
up. Detail has what passes until the first and half of them are whole, the processor time that it takes the controller
and all 50 nodes together (which have a core each in the field, and one between them here), what installing all 1,225
took at the start, and what the same network needs for deciding alone, without sockets, signatures and disk
(`bench.steering_alone`).
"""

from __future__ import annotations

import asyncio
import random
import time
from itertools import combinations

from bench.figure import Figure, spread
from bench.nets import germany50
from bench.observe import cpu_seconds
from bench.steered import Steered, steered
from bench.steering_alone import Alone
from keyhaul.transport.messages.path import PathRequest
from keyhaul.transport.operations import PATH_REQUEST

ROUNDS = 5
CLASS = "silver"
RATE = 128.0
"""Of each demand, bytes a second."""
LINK_RATE = 4_000_000
"""Of each link, bits a second: all demands fit on any of them."""
LIMIT = 300.0
QUIET, REST = 2.0, 15.0
"""Seconds without statements that are waited for before a cut, and for how long at most: paths get detours later."""
DEADLINE = 10.0


async def measure() -> Figure:
    """Return the median over the links cut of the seconds until the last demand is whole again."""
    net = germany50(rate=LINK_RATE)
    demands = [*combinations((node for node, _ in net.nodes), 2)]
    cuts = random.Random(1).sample([link.id for link in net.links], ROUNDS)
    last: list[float] = []
    half: list[float] = []
    first: list[float] = []
    affected: list[int] = []
    said: list[float] = []
    controller_cpu: list[float] = []
    agents_cpu: list[float] = []
    async with steered(net) as running:
        await running.all_told(LIMIT)
        begin = time.monotonic()
        await _ask(running, demands)
        installed = await running.agents.whole(len(demands), LIMIT)
        laid = statements = await running.agents.rest(QUIET, 4 * REST)
        (agents,) = running.agents.processes
        for link in cuts:
            before = cpu_seconds(running.controller), cpu_seconds(agents.pid)
            cut = await running.agents.cut(link)
            told = await running.agents.whole(len(demands), LIMIT)
            controller_cpu.append(cpu_seconds(running.controller) - before[0])
            agents_cpu.append(cpu_seconds(agents.pid) - before[1])
            said.append(float(told.statements - statements))
            if told.whole:
                after = sorted(at - cut.at for at in told.whole)
                first.append(after[0])
                half.append(after[len(after) // 2])
                last.append(after[-1])
                affected.append(cut.demands)
            await running.agents.cut(link, cut=False)
            await running.all_told(LIMIT)
            statements = await running.agents.rest(QUIET, REST)
    alone = Alone(net)
    alone.want(demands, CLASS, RATE)
    decided = []
    for link in cuts:
        decided.append(alone.cut(link))
        alone.cut(link, cut=False)
    return Figure(
        "reconvergence",
        spread([1e3 * one for one in last])["median"] / 1e3,
        "s",
        None,
        "lower",
        {
            "demands": len(demands),
            "links_cut": len(cuts),
            "demands_over_the_link": spread([float(one) for one in affected]),
            "ms_until_the_first_is_whole": spread([1e3 * one for one in first]),
            "ms_until_half_are": spread([1e3 * one for one in half]),
            "ms_until_all_are": spread([1e3 * one for one in last]),
            "statements_until_all_are": spread(said),
            "controller_cpu_s_until_all_are": spread(controller_cpu),
            "simulated_nodes_cpu_s_until_all_are": spread(agents_cpu),
            "installing_all_s": round(installed.at - begin, 2),
            "statements_for_all_with_detours": laid,
            "deciding_alone_ms": spread([1e3 * one for one, _ in decided]),
            "deciding_alone_until_installed_ms": spread([1e3 * one for _, one in decided]),
        },
    )


async def _ask(running: Steered, demands: list[tuple[str, str]]) -> None:
    """Ask the controller for a path for each demand, in the name of its source."""
    by_source: dict[str, list[str]] = {}
    for source, destination in demands:
        by_source.setdefault(source, []).append(destination)

    async def ask(source: str, destinations: list[str]) -> None:
        channel = running.channel(source)
        await channel.start()
        try:
            for destination in destinations:
                request = PathRequest(destination=destination, service_class=CLASS, rate=RATE)
                reply = await channel.call(PATH_REQUEST, request, deadline=DEADLINE)
                if reply.refusal is not None:
                    raise LookupError(f"{source} to {destination}: {reply.refusal}")
        finally:
            await channel.close()

    await asyncio.gather(*(ask(source, destinations) for source, destinations in by_source.items()))
