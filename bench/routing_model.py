"""What `bench.routing` simulates: demands come, hold part of the network's key rate for a while, and go.

**Network.** nobel-germany (17 nodes, 26 links) or germany50 (50 nodes, 88 links) of SNDlib, as PyPI's topohub has them.
Every node is an access node. Each link has one of the eight secret key rates that DemoQuanDT measured (its Table 3: 0.3
to 22.7 kb/s, in the mean 7.9), drawn anew with each seed. Its pair of modules makes one stream of keys, which fills the
pools of both directions, whichever has room: so they share the rate. Distance plays no part in it.

**Demands.** A demand is an ordered pair of nodes, each pair as likely as any other, that wants `RATE` bits of key per
second: thirty tunnels that change their 256-bit key every minute. They arrive as a Poisson process and last
exponentially distributed times. Each is of a class that reserves: for as long as it lasts it takes its rate, and an
eighth more for authentication, of every directed hop of its path; it never moves. A demand for which the policy finds
no path, or whose path has too little to spare somewhere, is blocked and does not come back. Since reservations never
exceed rates, pools stay full and play no part.

**Load** is what would be used of all links' rates if every demand took a path of fewest hops and none was blocked.

**Policies.** `static` is what routing once at start-up does: one path of fewest hops for each pair, whatever its links'
rates and whoever uses them. The others are the controller's own code, on what is reserved at that moment: its path
computation finds the path, its reservations take the demand up. `split` is class `split` by the default policy: two
paths without a common node, the whole rate reserved on both.

The same seed gives every policy the same network and the same demands. The first `WARM_UP` demands are not counted.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from pathlib import Path as File
from typing import Any

import topohub

from bench.generated import link
from controller.admission.classes import CLASSES
from controller.admission.reservations import Lease, Overbooked, Reservations, hops_of
from controller.paths.compute import NoPath, Path, best_path, paths_for_shares
from controller.paths.constraints import Constraints
from controller.paths.policies import Policy
from controller.view import Direction, NetworkView, Node

RATE = 128
"""Key per second that a demand wants, bits."""
HOLDING_S = 600.0
"""How long one lasts in the mean."""
WARM_UP = 1_000
DEMANDS = 2_000

STATIC = "static"
SPLIT = "split"
CHOICES = (STATIC, *(str(policy) for policy in Policy), SPLIT)


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation."""

    net: str
    load: float
    choice: str
    seed: int
    rate: int = RATE


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the demands that counted."""

    blocked: float
    """Share of them."""
    cost: float
    """Bits of link key used up per bit of key delivered."""


def sndlib(net: str) -> dict[str, Any]:
    """A network as topohub has it; read here, because topohub's own function leaves the file open."""
    file = File(topohub.__file__).parent / "data" / "sndlib" / f"{net}.json"
    data: dict[str, Any] = json.loads(file.read_text())
    return data


def network(net: str, seed: int) -> NetworkView:
    """A network of SNDlib with drawn link rates, nothing reserved and all pools full."""
    chance = random.Random(f"{net} {seed}")
    data = sndlib(net)
    nodes = tuple(Node(f"ckms-{node['id']}") for node in data["nodes"])
    links = []
    for number, edge in enumerate(data["edges"]):
        a, b = f"ckms-{edge['source']}", f"ckms-{edge['target']}"
        drawn = link(f"link-{number}", a, b, float(edge["dist"]), chance)
        rate = drawn.ab.rate
        idle = Direction(rate, 60 * rate, 60 * rate)
        links.append(replace(drawn, ab=idle, ba=idle))
    return NetworkView(nodes, tuple(links))


def simulate(run: Run) -> Outcome:
    """Let demands come and go."""
    view = network(run.net, run.seed)
    names = [node.id for node in view.nodes]
    chance = random.Random(f"demands {run.net} {run.seed}")
    taken = CLASSES["split"].link_rate(run.rate)
    fewest = {
        (source, target): best_path(view, source, target, policy=Policy.HOPS)
        for source in names
        for target in names
        if source != target
    }
    hops = sum(path.hops for path in fewest.values()) / len(fewest)
    total = sum(one.stream or 0 for one in view.links)
    arrivals = run.load * total / (taken * hops * HOLDING_S)
    reservations = Reservations()
    ending: list[tuple[float, str]] = []
    now = used = delivered = 0.0
    blocked = 0
    for number in range(WARM_UP + DEMANDS):
        now += chance.expovariate(arrivals)
        source, target = chance.sample(names, 2)
        lasts = chance.expovariate(1 / HOLDING_S)
        while ending and ending[0][0] <= now:
            ended = reservations.release(heappop(ending)[1])
            assert ended is not None
            view = reservations.onto(view, (name for name, _ in ended.hops))
        counts = number >= WARM_UP
        try:
            paths = _paths(run.choice, view, source, target, taken, fewest)
            lease = Lease(str(number), str(number), "split", taken, hops_of(paths), frozenset((source, target)), now)
            reservations.reserve(view, lease)
        except (NoPath, Overbooked):
            blocked += counts
            continue
        view = reservations.onto(view, (name for name, _ in lease.hops))
        heappush(ending, (now + lasts, lease.id))
        if counts:
            used += lasts * taken * len(lease.hops)
            delivered += lasts * run.rate
    return Outcome(blocked / DEMANDS, used / delivered)


def _paths(
    choice: str, view: NetworkView, source: str, target: str, taken: int, fewest: dict[tuple[str, str], Path]
) -> list[Path]:
    if choice == STATIC:
        return [fewest[source, target]]
    constraints = Constraints(rate=taken)
    if choice == SPLIT:
        return paths_for_shares(view, source, target, 2, constraints)
    return [best_path(view, source, target, constraints, Policy(choice))]
