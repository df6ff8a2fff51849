"""How long a path with a disjoint backup takes in a network of 10,000 nodes: as `path_1000`."""

from __future__ import annotations

from bench.figure import Figure
from bench.path_1000 import timed

NODES = 10_000
SAMPLES = 200
BUDGET_MS = 160.0


async def measure() -> Figure:
    """Return the 99th percentile of the milliseconds that one computation takes."""
    return timed("path_10000", NODES, SAMPLES, BUDGET_MS)
