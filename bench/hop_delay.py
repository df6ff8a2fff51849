"""What one more hop adds to a batch's way through the carrier: submitted at one end until its outcome is back there.

A chain of twelve hops has access nodes after two hops and at its end, played by the measuring process; batches take
the short and the long way in turn, one at a time. The difference of the medians, divided by the ten hops between,
is the delay of one hop with its acknowledgement: what the ends cost falls out.
"""

from __future__ import annotations

from bench.chain import chain
from bench.figure import Figure, spread

SHORT, LONG = 2, 12
SAMPLES = 400
WARM_UP = 40
BATCH_BYTES = 3200


async def measure() -> Figure:
    """Return the milliseconds of one more hop."""
    samples: dict[int, list[tuple[float, float]]] = {SHORT: [], LONG: []}
    async with chain(LONG, (1, 1 + SHORT, 1 + LONG)) as (_, nodes):
        for index in range(WARM_UP + SAMPLES):
            for hops, found in samples.items():
                seconds = await nodes.carry(1, 1 + hops, BATCH_BYTES)
                if index >= WARM_UP:
                    found.append(seconds)
    outcome = {hops: spread([1e3 * both for _, both in found]) for hops, found in samples.items()}
    delivered = {hops: spread([1e3 * one for one, _ in found]) for hops, found in samples.items()}
    between = LONG - SHORT
    return Figure(
        "hop_delay",
        (outcome[LONG]["median"] - outcome[SHORT]["median"]) / between,
        "ms",
        1.5,
        "lower",
        {
            "batch_bytes": BATCH_BYTES,
            "one_way_only": round((delivered[LONG]["median"] - delivered[SHORT]["median"]) / between, 3),
            "until_outcome": {f"{hops}_hops": found for hops, found in outcome.items()},
            "until_delivered": {f"{hops}_hops": found for hops, found in delivered.items()},
            "suite": "aes-256-gcm",
            "processes": f"{LONG + 1} CKMSs, {LONG + 1} modules' processes, both AKMSs in the measuring process",
        },
    )
