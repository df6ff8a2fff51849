"""How much of the slowest link's key rate reaches the other end of the chain as CN keys, all links on `otp`.

The network is Berlin–Bonn with every link's list of suites and floor on `otp`, and the rates of the published table
times `FACTOR`, even instead of in bursts, so that minutes tell what hours would; rates above `CAP` times the slowest
are lowered to that, because they bound nothing and their modules' work would only load the machine. Encryptors of the
one-time-pad class ask for more keys than the slowest link (9-10) can carry. When they have got the first, and its pads
have run low, the window begins. There is no controller: keys go over the configured paths.

    delivered = bytes of CN bits that both AKMSs agreed on in the window and could use: 32 for each key of 256 bits that
                AKMS Berlin released, 32 for each released batch's one-time MAC, and what the pool at Bonn gained;
                batches that arrived too late, or were burned for any reason, and the 32 bytes of each batch that
                pay for its confirmation, do not count
    consumed  = bytes of pad used or burned in the window, of both directions and both streams of link 9-10: key
                material, one-time MACs, acknowledgements, refills, leases
    made      = the modules' key rate times the window, less what the pads of both directions and the modules' stock
                gained in it (the pads of the idle direction are still filling when the window begins)

    value = delivered / the greater of consumed and made

Consumed and made are the same quantity, counted by the KMSs and by the clock: detail tells both.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.encryptor import Encryptor, Refused, share
from bench.figure import Figure
from bench.network import BERLIN_BONN, Network, on_static_paths, running
from bench.observe import link, metrics, until
from keyhaul.runtime.local import ask

FACTOR = 100
CAP = 4
SLOWEST, SLOWEST_BPS = "9-10", 300
ENDS = ("ckms-9", "ckms-10")
KEY_BYTES, MAC_BYTES = 32, 32
"""CN bytes for a key of 256 bits, and for the tag of the batch in which it is handed over."""

ENCRYPTORS = 6
KEYS_PER_REQUEST = 32
WINDOW = 120.0
DRAIN_LIMIT = 90.0
LOW = 4_096
"""Bytes of payload pad in the used direction: the link has become what bounds the keys."""

PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted at one moment; bytes."""

    at: float
    carried: float
    batches: float
    delivered: float
    failures: float
    keys: float
    """KSA keys that AKMS Berlin released."""
    released: float
    """Batches of them."""
    outgoing: dict[str, int]
    """Pads of both directions of the slowest link, each as its sender counts them, added up."""
    confirmed: float
    """Batches that both AKMSs agreed on."""
    failed: float
    """News that a batch failed; it may have arrived all the same."""
    lost: float
    """Batches that the maker burned because nobody confirmed them as long as they could come, or other bits came."""
    pooled: int
    """CN bytes that AKMSs hold for the gold class and nobody has used."""
    stock: float
    """In the modules of that link, once."""
    dropped: float


async def measure() -> Figure:
    """Return the share."""
    with tempfile.TemporaryDirectory(prefix="kh-", dir="/tmp") as scratch:
        description = Path(scratch) / "otp.toml"
        description.write_text(on_static_paths(_scaled(BERLIN_BONN.read_text())))
        with running(description=description) as network:
            first, second = network.far_pair("second")
            async with Encryptor(first) as master, Encryptor(second) as slave:
                keys = _Keys()
                asking = [asyncio.create_task(_ask(master, slave, keys)) for _ in range(ENCRYPTORS)]
                try:
                    drained = await _drained(network, keys)
                    before, keys_before = await _count(network), keys.delivered
                    await asyncio.wait(asking, timeout=WINDOW, return_when=asyncio.FIRST_COMPLETED)
                    for task in asking:
                        if task.done():
                            task.result()
                    after, keys_after = await _count(network), keys.delivered
                finally:
                    for task in asking:
                        task.cancel()
                    await asyncio.gather(*asking, return_exceptions=True)
    return _figure(before, after, keys_after - keys_before, keys, drained)


def _figure(before: Counts, after: Counts, keys: int, all_keys: _Keys, drained: float) -> Figure:
    seconds = after.at - before.at
    spent = {name: after.outgoing[name] - before.outgoing[name] for name in before.outgoing}
    batches = after.delivered - before.delivered
    carried = after.carried - before.carried
    released = after.keys - before.keys
    pooled = after.pooled - before.pooled
    delivered = KEY_BYTES * released + MAC_BYTES * (after.released - before.released) + pooled
    consumed = spent["used_total"] + spent["burned_total"]
    confirmed = after.confirmed - before.confirmed
    gained = spent["payload_available"] + spent["control_available"] + after.stock - before.stock
    made = SLOWEST_BPS * FACTOR / 8 * seconds - gained
    return Figure(
        "otp_efficiency",
        delivered / max(consumed, made),
        "of the slowest link's key rate",
        0.90,
        "higher",
        {
            "link": SLOWEST,
            "link_bits_per_second": SLOWEST_BPS * FACTOR,
            "table_rates_times": FACTOR,
            "window_seconds": round(seconds, 1),
            "drained_after_seconds": round(drained, 1),
            "delivered_bytes": round(delivered),
            "keys_released": round(released),
            "arrived_bytes": round(carried),
            "batches_arrived": round(batches),
            "batches_forwarded_by_the_last_hop_but_one": round(after.batches - before.batches),
            "batches_confirmed": round(confirmed),
            "batches_said_to_have_failed": round(after.failed - before.failed),
            "batches_burned_by_the_maker": round(after.lost - before.lost),
            "batches_failed_there": round(after.failures - before.failures),
            "consumed_bytes": consumed,
            "consumed_by": {"used": spent["used_total"], "burned": spent["burned_total"]},
            "made_bytes": round(made),
            "rate_times_window_bytes": round(made + gained),
            "pads_gained_bytes": spent["payload_available"] + spent["control_available"],
            "module_stock_gained_bytes": round(after.stock - before.stock),
            "modules_dropped_bytes": round(after.dropped - before.dropped),
            "arrived_of_consumed": round(carried / consumed, 4),
            "delivered_of_consumed": round(delivered / consumed, 4),
            "delivered_of_made": round(delivered / made, 4),
            "delivered_of_rate_times_window": round(delivered / (made + gained), 4),
            "cn_pool_gained_bytes": pooled,
            "keys_to_both_encryptors": keys,
            "encryptors_share_of_made": round(KEY_BYTES * keys / made, 4),
            "requests_refused_in_all": all_keys.refused,
        },
    )


def _scaled(description: str) -> str:
    """The description with all links on `otp`, even rates, and the table's rates multiplied."""

    def rate(found: re.Match[str]) -> str:
        return f"skr = {min(int(found[1]), CAP * SLOWEST_BPS) * FACTOR}"

    text = re.sub(r"skr = (\d+)", rate, description)
    text = re.sub(r"skr_deviation = \d+\n", "", text)
    text = text.replace("assumed_rate = 2000.0", f"assumed_rate = {float(CAP * SLOWEST_BPS * FACTOR)}")
    text = text.replace('suites = ["aes-256-gcm", "otp"]', 'suites = ["otp"]')
    text = text.replace('floor = "aes-256-gcm"', 'floor = "otp"')
    return text.replace("stock = 180.0", "stock = 8.0\nfixed_rate = true")


class _Keys:
    """KSA keys that both encryptors have."""

    def __init__(self) -> None:
        self.delivered = 0
        self.refused = 0


async def _ask(master: Encryptor, slave: Encryptor, keys: _Keys) -> None:
    while True:
        try:
            shared = await share(master, slave, KEYS_PER_REQUEST)
        except (Refused, aiohttp.ClientError):
            keys.refused += 1
            await asyncio.sleep(PAUSE)
        else:
            keys.delivered += len(shared)


async def _drained(network: Network, keys: _Keys) -> float:
    """Wait until keys have come and the slowest link's pads have run low; return how long it took."""
    begin = time.perf_counter()

    async def low() -> bool:
        outgoing = (await link(network, ENDS[1], SLOWEST))["outgoing"]
        return bool(keys.delivered and outgoing["payload_available"] <= LOW)

    await until(low, DRAIN_LIMIT, 0.5)
    return time.perf_counter() - begin


async def _count(network: Network) -> Counts:
    pools = await ask(network.socket("akms-14"), "pools")
    cn_batches = {
        outcome: (await metrics(network, "akms-14", outcome=outcome)).get("keyhaul_akms_cn_batches_total", 0.0)
        for outcome in ("confirmed", "failed", "lost", "different")
    }
    last, end, modules, asker, *ends = await asyncio.gather(
        metrics(network, "ckms-3"),
        metrics(network, "ckms-2"),
        metrics(network, "qkdm-9", link=SLOWEST),
        metrics(network, "akms-2"),
        *(link(network, service, SLOWEST) for service in ENDS),
    )
    return Counts(
        at=time.perf_counter(),
        carried=last["keyhaul_ckms_forwarded_bytes_total"],
        batches=last["keyhaul_ckms_forwarded_total"],
        delivered=end["keyhaul_ckms_delivered_total"],
        keys=asker["keyhaul_akms_keys_released_total"],
        released=(await metrics(network, "akms-2", outcome="released"))["keyhaul_akms_batches_total"],
        failures=last["keyhaul_ckms_failures_total"],
        outgoing={
            name: sum(found["outgoing"][name] for found in ends)
            for name in ("used_total", "burned_total", "payload_available", "control_available")
        },
        confirmed=cn_batches["confirmed"],
        failed=cn_batches["failed"],
        lost=cn_batches["lost"] + cn_batches["different"],
        pooled=sum(int(pool["available"]) for pool in pools["made"]),
        stock=32 * modules["keyhaul_qkdm_keys_stored"],
        dropped=32 * modules["keyhaul_qkdm_keys_dropped_total"],
    )
