"""Processor time of one hop for one key, in batches of 1,024 keys of 256 bits."""

from __future__ import annotations

from bench.figure import Figure
from bench.hop_cpu import measured

BATCHES = 4000


async def measure() -> Figure:
    """Return microseconds of a CKMS process for each key relayed."""
    return await measured("hop_cpu_per_key_1024", 1024, BATCHES, 4.0)
