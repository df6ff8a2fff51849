"""What encryptors get over a slow link when they want several times as much: steady keys, short queues, and times to
come back that hold.

The links between the carrier's nodes are on `otp` at 20 kb/s, even; the customers' class is gold, so that each key uses
up as many bits of the link. Encryptors ask for four keys at a time, more of them than the link can serve. One that is
refused comes back when Retry-After says, as often as it needs to; one that was served asks again after a random pause.
When the pads that stood ready at the start are used up, the window begins. Pools of the slow links are small, so that
the pads of the other way, which little uses, are full by then and take no part of what the modules make.

    value = bits of the keys that encryptors were handed in the window / bits that the link's modules made in it

Detail tells how long requests took to be answered (in the queue of the UKMS), how many of those who came back as told
were served then, and how even the delivery was.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.encryptor import Encryptor, Refused, share
from bench.figure import Figure, spread
from bench.network import Network, running
from bench.observe import link, until
from bench.town import description

RATE = 20_000
"""Of the slow links, bits per second."""
KEYS = 4
BITS = 256
ENCRYPTORS = 60
MEAN_PAUSE = 1.0
WINDOW = 90.0
SLOT = 5.0
"""Seconds over which delivery is looked at for evenness."""
POOL = 8_192
"""Bytes of pad that each direction of the slow links keeps."""
LOW = 2_048
DRAIN_LIMIT = 180.0

CARRIER = f'skr = {RATE}\nsuites = ["otp"]\nfloor = "otp"'
CONTRACTS = dict.fromkeys(("modest", "greedy"), 'class = "gold"')


@dataclass(slots=True)
class Seen:
    """What encryptors saw in the window."""

    begin: float = float("inf")
    served: list[tuple[float, int]] = field(default_factory=list)
    """When, and how many keys."""
    waits: list[float] = field(default_factory=list)
    """Milliseconds until a request was answered with keys."""
    refusals: list[float] = field(default_factory=list)
    """The same until it was refused."""
    told: list[int] = field(default_factory=list)
    """Seconds of Retry-After."""
    came_back: int = 0
    served_then: int = 0


async def measure() -> Figure:
    """Return the share of the link's rate that was delivered."""
    with tempfile.TemporaryDirectory(prefix="kh-", dir="/tmp") as scratch:
        file = Path(scratch) / "town.toml"
        file.write_text(description(CONTRACTS, carrier=CARRIER, stock=4.0))
        with running(description=file, prepare=_small_pools) as network:
            return await _measured(network)


def _small_pools(network: Network) -> None:
    for service in ("ckms-a", "ckms-m", "ckms-b"):
        path = network.config(service)
        path.write_text(path.read_text().replace('floor = "otp"', f'floor = "otp"\npool = {POOL}'))


async def _measured(network: Network) -> Figure:
    saes = {entry["id"]: entry for entry in network.facts["saes"]}
    seen = Seen()
    async with (
        Encryptor(saes["modest-west"], ENCRYPTORS) as master,
        Encryptor(saes["modest-east"], ENCRYPTORS) as slave,
    ):
        asking = [asyncio.create_task(_ask(master, slave, seen, number)) for number in range(ENCRYPTORS)]
        try:
            await until(lambda: _drained(network, asking), DRAIN_LIMIT, 0.5)
            await asyncio.wait(asking, timeout=SLOT, return_when=asyncio.FIRST_COMPLETED)
            seen.begin = time.perf_counter()
            await asyncio.wait(asking, timeout=WINDOW, return_when=asyncio.FIRST_COMPLETED)
            _check(asking)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
    return _figure(seen)


def _figure(seen: Seen) -> Figure:
    slots = [0] * int(WINDOW / SLOT)
    for at, keys in seen.served:
        place = int((at - seen.begin) / SLOT)
        if place < len(slots):
            slots[place] += keys
    rates = [keys * BITS / SLOT for keys in slots]
    return Figure(
        "slow_link",
        sum(rates) / len(rates) / RATE,
        "of the link's key rate",
        0.8,
        "higher",
        {
            "link_bits_per_second": RATE,
            "keys_per_request": KEYS,
            "encryptors": ENCRYPTORS,
            "window_seconds": WINDOW,
            "keys": sum(slots),
            "bits_per_second_in_slots_of_5_s": [round(rate) for rate in rates],
            "deviation_of_slots": round(statistics.pstdev(rates) / max(1.0, statistics.fmean(rates)), 3),
            "wait_until_served_ms": spread(seen.waits) if seen.waits else {},
            "wait_until_refused_ms": spread(seen.refusals) if seen.refusals else {},
            "retry_after_s": spread([float(one) for one in seen.told]) if seen.told else {},
            "came_back_as_told": seen.came_back,
            "share_of_them_served_then": round(seen.served_then / max(1, seen.came_back), 3),
        },
    )


async def _drained(network: Network, asking: list[asyncio.Task[None]]) -> bool:
    _check(asking)
    ready = [(await link(network, f"ckms-{end}", name))["outgoing"] for end, name in (("b", "m-b"), ("m", "a-m"))]
    return any(int(pads["payload_available"]) <= LOW for pads in ready)


def _check(asking: list[asyncio.Task[None]]) -> None:
    for task in asking:
        if task.done():
            task.result()


async def _ask(master: Encryptor, slave: Encryptor, seen: Seen, number: int) -> None:
    chance = random.Random(number)
    while True:
        back = False
        while True:
            begin = time.perf_counter()
            counts = begin >= seen.begin
            try:
                keys = await share(master, slave, KEYS)
            except Refused as refused:
                if refused.status != 503 or not refused.retry_after:
                    raise
                if counts:
                    seen.refusals.append(1e3 * (time.perf_counter() - begin))
                    seen.told.append(refused.retry_after)
                    seen.came_back += back
                back = True
                await asyncio.sleep(refused.retry_after)
                continue
            if counts:
                seen.served.append((time.perf_counter(), len(keys)))
                seen.waits.append(1e3 * (time.perf_counter() - begin))
                seen.came_back += back
                seen.served_then += back
            break
        await asyncio.sleep(chance.expovariate(1 / MEAN_PAUSE))
