"""What one customer's excess costs another: the other's p99 while it asks for ten times what its contract says, to that
while it asks for what its contract says.

Two customers have sites of their own; access nodes, carrier and AAA are shared. The modest one asks for a key every
50 ms and is timed, `enc_keys` alone and with `dec_keys`. The greedy one, in a process of its own, asks in requests for
ten keys and does not heed Retry-After. Four kinds of phases alternate; the first seconds of each do not count:

- silent: the greedy one asks for nothing;
- at its rate: for what it has paid for, which is work that the network owes it, and the base of the figure;
- at ten times its rate: the same and nine times as much on top;
- excess elsewhere: at its rate, and the nine times on top go to a server of sixty lines on the same machine that
  refuses them all (`memory_kme`, without keys). All services and both customers share the machine's cores: this is
  what asking and being refused costs where no network is asked.

It is done twice: with buffers and pools as they are by default, and with none, so that each of the modest one's keys
needs both AKMSs and the carrier at once. The figure is the worse of the two ratios of p99 at ten times the rate to p99
at the rate. Detail has the other ratios, how sure each is (nine in ten choices of as many rounds among these lie in the
interval), the processor time of the greedy process and of its UKMS, and the keys that were made for it all in all,
idle phases included: no more than its rate, and one burst.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bench.encryptor import Encryptor, Refused
from bench.figure import Figure, spread
from bench.network import ROOT, Network, running
from bench.observe import cpu_seconds, metrics
from bench.town import description

GREEDY_RATE = 100
"""Keys a second of the greedy customer's contract; its burst is a second's."""
GREEDY_KEYS = 10
"""Of one of its requests."""
TIMES = 10
MODEST_RATE = 200
EVERY = 0.05
"""Seconds between two requests of the modest customer."""

REFUSED_MS = 10_000.0
"""What counts where the modest customer was refused: as long as the longest wait."""

SETTLE = 2.0
PHASE = 8.0
ROUNDS = 6
PORT = 8500
"""Of the server that refuses."""
LIMIT = 60.0

SILENT, AT_ITS_RATE, AT_TEN_TIMES, ELSEWHERE = "silent", "at_its_rate", "at_ten_times", "excess_elsewhere"
PHASES = {SILENT: (0, 0), AT_ITS_RATE: (1, 0), AT_TEN_TIMES: (TIMES, 0), ELSEWHERE: (1, TIMES - 1)}
"""Times its rate that the greedy customer asks for: of its UKMS, and of the server that refuses."""

RESAMPLES = 500

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
        "p99 with the other at ten times its rate to p99 with it at its rate",
        1.2,
        "lower",
        {"ratios": ratios, "greedy_contract_keys_per_second": GREEDY_RATE, **found},
    )


async def _measured(*, without_pools: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="kh-", dir="/tmp") as scratch:
        file = Path(scratch) / "town.toml"
        file.write_text(description(CONTRACTS))
        with running(description=file, without_pools=without_pools) as network:
            saes = {entry["id"]: entry for entry in network.facts["saes"]}
            async with _refusing(network, saes["greedy-west"]) as refusing, _greedy(saes["greedy-west"]) as greedy:
                return await _phases(network, saes, refusing, greedy)


async def _phases(
    network: Network, saes: dict[str, dict[str, Any]], refusing: str, greedy: asyncio.subprocess.Process
) -> dict[str, Any]:
    samples: dict[str, list[list[float]]] = {name: [] for name in PHASES}
    shared: dict[str, list[float]] = {name: [] for name in PHASES}
    answers: dict[str, Counter[str]] = {name: Counter() for name in PHASES}
    used: dict[str, dict[str, float]] = {name: {"ukms": 0.0, "greedy": 0.0} for name in PHASES}
    site = saes["greedy-west"]
    url = f"{site['ukms'].rstrip('/')}/api/v1/keys/greedy-east/enc_keys"
    ukms = network.processes()["ukms-greedy-west"]
    async with Encryptor(saes["modest-west"]) as master, Encryptor(saes["modest-east"]) as slave:
        await _sample(master, slave, PHASE, [], [])
        begin, made = time.perf_counter(), await _made(network)
        for turn in range(ROUNDS):
            for name in _rotated(list(PHASES), turn):
                times = dict(zip((url, refusing), PHASES[name], strict=True))
                used[name]["ukms"] -= cpu_seconds(ukms)
                await _order(greedy, {target: often for target, often in times.items() if often})
                await _sample(master, slave, SETTLE, [], [])
                samples[name].append([])
                await _sample(master, slave, PHASE, samples[name][-1], shared[name])
                done = await _done(greedy)
                used[name]["ukms"] += cpu_seconds(ukms)
                used[name]["greedy"] += done["cpu_seconds"]
                answers[name].update(done["answers"][0] if done["answers"] else {})
        seconds, made = time.perf_counter() - begin, await _made(network) - made
    length = ROUNDS * (SETTLE + PHASE)
    return {
        **_ratios(samples),
        "enc_keys_ms": {name: spread(_all(rounds)) for name, rounds in samples.items()},
        "both_encryptors_ms": {name: spread(times) for name, times in shared.items()},
        "modest_refused": {name: _all(rounds).count(REFUSED_MS) for name, rounds in samples.items()},
        "cpu_share_of_a_core": {
            name: {whose: round(seconds / length, 3) for whose, seconds in one.items()} for name, one in used.items()
        },
        "greedy_answers": answers,
        "greedy_keys_per_second": {
            name: round(GREEDY_KEYS * counts["200"] / length, 1) for name, counts in answers.items()
        },
        "keys_made_for_greedy_per_second_of_all_phases": round(made / seconds, 1),
        "keys_refused_at_the_akms": round((await metrics(network, "akms-a"))["keyhaul_akms_keys_beyond_rate_total"]),
        "cn_batches_at_the_maker": {
            outcome: round((await metrics(network, "akms-b", outcome=outcome)).get("keyhaul_akms_cn_batches_total", 0))
            for outcome in ("confirmed", "failed", "late")
        },
    }


def _ratios(samples: dict[str, list[list[float]]]) -> dict[str, Any]:
    pairs = {
        "ratio": (AT_TEN_TIMES, AT_ITS_RATE),
        "ratio_with_the_excess_elsewhere": (ELSEWHERE, AT_ITS_RATE),
        "ratio_to_the_excess_elsewhere": (AT_TEN_TIMES, ELSEWHERE),
        "ratio_to_silent": (AT_TEN_TIMES, SILENT),
    }
    chance = random.Random(0)
    found: dict[str, Any] = {}
    for name, (one, other) in pairs.items():
        found[name] = round(_p99(samples[one]) / _p99(samples[other]), 3)
        again = []
        for _ in range(RESAMPLES):
            rounds = chance.choices(range(ROUNDS), k=ROUNDS)
            first, second = ([samples[phase][turn] for turn in rounds] for phase in (one, other))
            again.append(_p99(first) / _p99(second))
        again.sort()
        found[f"{name}_interval"] = [round(again[place * RESAMPLES // 20], 3) for place in (1, 19)]
    return found


def _p99(rounds: list[list[float]]) -> float:
    return spread(_all(rounds))["p99"]


def _all(rounds: list[list[float]]) -> list[float]:
    return [sample for samples in rounds for sample in samples]


def _rotated(names: list[str], turn: int) -> list[str]:
    """So that no kind of phase is always the first."""
    place = turn % len(names)
    return names[place:] + names[:place]


async def _made(network: Network) -> float:
    """Keys that came to the greedy customer's UKMS."""
    return (await metrics(network, "ukms-greedy-west"))["keyhaul_ukms_keys_pushed_total"]


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


async def _order(greedy: asyncio.subprocess.Process, times: dict[str, int]) -> None:
    """Have the greedy customer ask each URL for so many times its rate, through one phase."""
    targets = [
        {"url": url, "keys": GREEDY_KEYS, "requests_per_second": often * GREEDY_RATE / GREEDY_KEYS}
        for url, often in times.items()
    ]
    assert greedy.stdin is not None
    greedy.stdin.write(json.dumps({"targets": targets, "seconds": SETTLE + PHASE}).encode() + b"\n")
    await greedy.stdin.drain()


async def _done(greedy: asyncio.subprocess.Process) -> dict[str, Any]:
    """What it was answered, target by target."""
    assert greedy.stdout is not None
    async with asyncio.timeout(LIMIT):
        line = await greedy.stdout.readline()
    if not line:
        raise RuntimeError("the greedy customer has ended")
    found: dict[str, Any] = json.loads(line)
    return found


@contextlib.asynccontextmanager
async def _greedy(sae: dict[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The greedy customer, in a process of its own."""
    async with _process("bench.greedy") as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(sae).encode() + b"\n")
        yield process


@contextlib.asynccontextmanager
async def _refusing(network: Network, sae: dict[str, Any]) -> AsyncIterator[str]:
    """The server that has no keys, at the address of the SAE's UKMS; its URL."""
    host = sae["ukms"].partition("://")[2].partition(":")[0]
    directory = network.config(f"ukms-{sae['node']}").parent
    async with _process("bench.memory_kme", str(directory), host, str(PORT), "0") as process:
        assert process.stdout is not None
        async with asyncio.timeout(LIMIT):
            await process.stdout.readline()
        yield f"https://{host}:{PORT}/api/v1/keys/nobody/enc_keys"


@contextlib.asynccontextmanager
async def _process(module: str, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words, stdin=pipe, stdout=pipe, cwd=ROOT
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
