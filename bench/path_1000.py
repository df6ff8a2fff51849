"""How long a path with a disjoint backup takes in a network of 1,000 nodes, by the default policy.

Before each computation a tenth of the links report new figures, so that nothing of the one before is left to use. The
pairs are access nodes drawn at random from a generated network (`bench.generated`); the demand is that of class gold:
QKD links with one-time pad, with 50 bits a second to spare.
"""

from __future__ import annotations

import random
import time

from bench.figure import Figure, spread
from bench.generated import network, remeasured
from controller.paths.compute import NoPath, path_with_backup
from controller.paths.constraints import Constraints

NODES = 1_000
SAMPLES = 500
BUDGET_MS = 12.0
CONSTRAINTS = Constraints(rate=50, quantum_only=True, suites=frozenset({"otp"}))


async def measure() -> Figure:
    """Return the 99th percentile of the milliseconds that one computation takes."""
    return timed("path_1000", NODES, SAMPLES, BUDGET_MS)


def timed(name: str, nodes: int, samples: int, budget_ms: float) -> Figure:
    """Compute `samples` paths with their backups in a network of so many nodes."""
    chance = random.Random(2)
    view = network(nodes)
    ends = [node.id for node in view.nodes if node.access]
    paths: list[float] = []
    processor: list[float] = []
    updates: list[float] = []
    hops: list[int] = []
    shared = refused = 0
    for _ in range(samples):
        begin = time.perf_counter()
        view = remeasured(view, 0.1, chance)
        updates.append(1e3 * (time.perf_counter() - begin))
        source, target = chance.sample(ends, 2)
        begin, used = time.perf_counter(), time.process_time()
        try:
            pair = path_with_backup(view, source, target, CONSTRAINTS)
        except NoPath:
            refused += 1
        else:
            hops.append(pair.primary.hops)
            shared += bool(pair.shared)
        paths.append(1e3 * (time.perf_counter() - begin))
        processor.append(1e3 * (time.process_time() - used))
    found = spread(paths)
    return Figure(
        name,
        found["p99"],
        "ms",
        budget_ms,
        "lower",
        {
            "nodes": len(view.nodes),
            "links": len(view.links),
            "milliseconds": found,
            "of_processor": spread(processor),
            "view_update_of_a_tenth_ms": spread(updates),
            "hops_of_the_primary": spread([float(one) for one in hops]),
            "pairs_that_share_something": shared,
            "without_path": refused,
        },
    )
