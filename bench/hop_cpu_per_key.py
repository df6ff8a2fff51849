"""Processor time of one hop for one key, in batches of 100 keys of 256 bits."""

from __future__ import annotations

from bench.figure import Figure
from bench.hop_cpu import measured

BATCHES = 6000


async def measure() -> Figure:
    """Return microseconds of a CKMS process for each key relayed."""
    return await measured("hop_cpu_per_key", 100, BATCHES, 22.0)
