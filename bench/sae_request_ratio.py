"""How near the UKMS comes to a server that does nothing but answer: `enc_keys` requests a second over 16 connections.

The UKMS of Berlin, on its real store, starts with a buffer full of keys made by the real network. It is compared with a
KME of sixty lines in memory (`memory_kme`), aiohttp with the same TLS and certificates. Both answer
requests for one key each, in turn and several times over, to the same load generator in a process of its own. The UKMS
fetches more keys meanwhile, as it does in operation: AKMSs, CKMSs and the other UKMS take their share of the machine.
Before each round its buffer is full again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bench.encryptor import Encryptor
from bench.figure import Figure
from bench.network import ROOT, Network, append, running
from bench.observe import cpu_seconds

CONNECTIONS = 16
REQUESTS = 3000
"""In a round, to the UKMS: fewer than its buffer holds."""
MEMORY_REQUESTS = 12_000
ROUNDS = 5
BUFFER = 4096
PORT = 8500
LIMIT = 60.0


async def measure() -> Figure:
    """Return the median of the rounds' ratios."""
    rounds: list[tuple[dict[str, float], dict[str, float]]] = []
    with running(prepare=_full_buffers) as network:
        first, second = network.far_pair()
        ukms = network.processes()[f"ukms-{first['node']}"]
        path = f"/api/v1/keys/{second['id']}/enc_keys"
        async with Encryptor(first) as master, _memory(network, first) as (memory, host):
            await master.get_key(second["id"])
            for _ in range(ROUNDS):
                await _filled(master, second["id"])
                real = await _load(first, first["ukms"].rstrip("/") + path, ukms, REQUESTS)
                plain = await _load(first, f"https://{host}:{PORT}{path}", memory, MEMORY_REQUESTS)
                rounds.append((real, plain))
    ratios = [real["requests_per_second"] / plain["requests_per_second"] for real, plain in rounds]
    return Figure(
        "sae_request_ratio",
        statistics.median(ratios),
        "of an in-memory server's requests per second",
        0.5,
        "higher",
        {
            "connections": CONNECTIONS,
            "requests_per_round": {"ukms": REQUESTS, "in_memory": MEMORY_REQUESTS},
            "keys_per_request": 1,
            "ratios": [round(ratio, 3) for ratio in ratios],
            "ukms": _medians([real for real, _ in rounds]),
            "in_memory": _medians([plain for _, plain in rounds]),
            "buffer_keys": BUFFER,
        },
    )


def _full_buffers(network: Network) -> None:
    for path in network.directory.glob("nodes/*/ukms/config.toml"):
        append(path, f"[buffer]\nminimum = {BUFFER}\nmaximum = {BUFFER}\n")


async def _filled(master: Encryptor, slave: str) -> None:
    """Wait until the buffer is full and nothing more comes."""
    async with asyncio.timeout(LIMIT):
        former = -1
        while (stored := int((await master.status(slave))["stored_key_count"])) < REQUESTS or stored != former:
            former = stored
            await asyncio.sleep(1.0)


@contextlib.asynccontextmanager
async def _memory(network: Network, sae: dict[str, Any]) -> AsyncIterator[tuple[int, str]]:
    """Run the in-memory server at the UKMS's address; its process id and host."""
    directory = network.config(f"ukms-{sae['node']}").parent
    host = sae["ukms"].partition("://")[2].partition(":")[0]
    words = ("-m", "bench.memory_kme", str(directory), host, str(PORT), str(ROUNDS * MEMORY_REQUESTS))
    process = await _start(*words)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(LIMIT):
            await process.stdout.readline()
        yield process.pid, host
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _load(sae: dict[str, Any], url: str, server: int, requests: int) -> dict[str, float]:
    """Have a process send a round of requests; what it and the server needed for it."""
    order = {name: str(Path(sae[name])) for name in ("certificate", "key", "ca")}
    line = json.dumps(order | {"url": url, "connections": CONNECTIONS, "requests": requests, "number": 1})
    process = await _start("-m", "bench.generator")
    try:
        used = cpu_seconds(server)
        async with asyncio.timeout(LIMIT):
            out, _ = await process.communicate(line.encode() + b"\n")
        server_used = cpu_seconds(server) - used
        if process.returncode:
            raise RuntimeError(f"the load generator ended with {process.returncode}")
        found = json.loads(out)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return {
        "requests_per_second": requests / found["seconds"],
        "server_us_of_cpu_per_request": 1e6 * server_used / requests,
        "generator_us_of_cpu_per_request": 1e6 * found["cpu_seconds"] / requests,
    }


async def _start(*words: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, *words, stdin=pipe, stdout=pipe, cwd=ROOT)


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(one[name] for one in rounds), 1) for name in rounds[0]}
