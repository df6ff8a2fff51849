"""What one customer at ten times its contracted rate costs another: the other's p99 with it, and without.

Two customers have sites of their own; access nodes, carrier and AAA are shared. The modest one asks for a key every
50 ms and is timed, `enc_keys` alone and with `dec_keys`. The greedy one, in a process of its own, asks for ten times
what its contract says, in requests for ten keys, and does not heed Retry-After. Three kinds of phases alternate: the
greedy one silent, at its rate, and at ten times its rate; the first seconds of each do not count. It is done
twice: with buffers and pools as they are by default, and with none, so that each of the modest one's keys needs both
AKMSs and the carrier at once. The figure is the worse of the two ratios of p99 at ten times the rate to p99 with the
greedy one silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bench.encryptor import Encryptor, Refused
from bench.figure import Figure, spread
from bench.network import ROOT, Network, running
from bench.observe import metrics
from bench.town import description

GREEDY_RATE = 100
"""Keys a second of the greedy customer's contract."""
GREEDY_KEYS = 10
"""Of one of its requests."""
TIMES = 10
MODEST_RATE = 200
EVERY = 0.05
"""Seconds between two requests of the modest customer."""

REFUSED_MS = 10_000.0
"""What counts where the modest customer was refused: as long as the longest wait."""

SETTLE = 2.0
PHASE = 6.0
ROUNDS = 6
PHASES = {"silent": 0.0, "at_its_rate": 1.0, "at_ten_times": float(TIMES)}

CONTRACTS = {
    "modest": f"rate = {MODEST_RATE}",
    "greedy": f"rate = {GREEDY_RATE}\nmaximum_keys_per_request = {GREEDY_KEYS}",
}


async def measure() -> Figure:
    """Return the ratio."""
    found = {"buffered": await _measured(without_pools=False), "unbuffered": await _measured(without_pools=True)}
    ratios = {name: one["ratio"] for name, one in found.items()}
    return Figure(
        "fairness",
        max(ratios.values()),
        "p99 with the other at ten times its rate to p99 with it silent",
        1.2,
        "lower",
        {"ratios": ratios, "greedy_contract_keys_per_second": GREEDY_RATE, **found},
    )


async def _measured(*, without_pools: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="kh-", dir="/tmp") as scratch:
        file = Path(scratch) / "town.toml"
        file.write_text(description(CONTRACTS))
        with running(description=file, without_pools=without_pools) as network:
            return await _phases(network)


async def _phases(network: Network) -> dict[str, Any]:
    samples: dict[str, list[float]] = {name: [] for name in PHASES}
    shared: dict[str, list[float]] = {name: [] for name in PHASES}
    answers: dict[str, dict[str, int]] = {name: {} for name in PHASES}
    saes = {entry["id"]: entry for entry in network.facts["saes"]}
    async with Encryptor(saes["modest-west"]) as master, Encryptor(saes["modest-east"]) as slave:
        await _sample(master, slave, PHASE, [], [])
        for _ in range(ROUNDS):
            for name, times in PHASES.items():
                order = saes["greedy-west"] | {
                    "slave": "greedy-east",
                    "keys": GREEDY_KEYS,
                    "requests_per_second": times * GREEDY_RATE / GREEDY_KEYS,
                    "seconds": SETTLE + PHASE + 1.0,
                }
                async with _greedy(order, answers[name]):
                    await _sample(master, slave, SETTLE, [], [])
                    await _sample(master, slave, PHASE, samples[name], shared[name])
    told = {name: spread(times) for name, times in samples.items()}
    return {
        "ratio": round(told["at_ten_times"]["p99"] / told["silent"]["p99"], 3),
        "ratio_to_the_other_at_its_rate": round(told["at_ten_times"]["p99"] / told["at_its_rate"]["p99"], 3),
        "enc_keys_ms": told,
        "both_encryptors_ms": {name: spread(times) for name, times in shared.items()},
        "modest_refused": {name: times.count(REFUSED_MS) for name, times in samples.items()},
        "cn_batches_at_the_maker": {
            outcome: round((await metrics(network, "akms-b", outcome=outcome)).get("keyhaul_akms_cn_batches_total", 0))
            for outcome in ("confirmed", "failed", "late")
        },
        "keys_refused_beyond_a_rate": round((await metrics(network, "akms-a"))["keyhaul_akms_keys_beyond_rate_total"]),
        "greedy_answers": answers,
        "greedy_keys_per_second": {
            name: round(GREEDY_KEYS * counts.get("200", 0) / (ROUNDS * (SETTLE + PHASE + 1.0)), 1)
            for name, counts in answers.items()
        },
    }


async def _sample(master: Encryptor, slave: Encryptor, seconds: float, alone: list[float], both: list[float]) -> None:
    """Ask for a key every 50 ms, whether the one before is there or not, and time each, in milliseconds."""

    async def one() -> None:
        begin = time.perf_counter()
        try:
            made = await master.get_key(slave.id)
        except Refused as refused:
            if refused.status != 503:
                raise
            alone.append(REFUSED_MS)
            both.append(REFUSED_MS)
            return
        alone.append(1e3 * (time.perf_counter() - begin))
        if await slave.get_key_with_ids(master.id, list(made)) != made:
            raise AssertionError("the two encryptors got different keys")
        both.append(1e3 * (time.perf_counter() - begin))

    async with asyncio.TaskGroup() as group:
        begin = time.perf_counter()
        for number in range(round(seconds / EVERY)):
            await asyncio.sleep(max(0.0, begin + number * EVERY - time.perf_counter()))
            group.create_task(one())


@contextlib.asynccontextmanager
async def _greedy(order: dict[str, Any], answers: dict[str, int]) -> AsyncIterator[None]:
    """The greedy customer, in a process of its own; its answers are added up by status."""
    if not order["requests_per_second"]:
        yield
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.greedy", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        await process.stdin.drain()
        yield
        out, _ = await process.communicate()
        for status, number in json.loads(out)["answers"].items():
            answers[status] = answers.get(status, 0) + number
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
