"""Keys go on, and stay equal, while links are cut, protections change and services stop and start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from keyhaul.transport.etsi014 import Client014, Etsi014Error, Etsi014Unreachable
from tests.network.conftest import Network, keyhaul

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("network")]

DEADLINE = 20.0
DETOURED = "m-b"
"""A link on the shortest path, which node d bypasses."""

Clients = dict[str, Client014]


@dataclass
class Load:
    """What users saw while something happened."""

    issued: dict[UUID, bytes] = field(default_factory=dict)
    delivered: int = 0
    refused: int = 0
    mismatched: int = 0
    missing: int = 0


@asynccontextmanager
async def load(network: Network, clients: Clients) -> AsyncIterator[Load]:
    """Encryptors that keep asking, in both directions, until the block ends."""
    seen = Load()
    stop = asyncio.Event()
    master, slave = network.pairs()[0]

    async def ask(one: str, other: str) -> None:
        while not stop.is_set():
            try:
                made = await clients[one].get_key(other, number=4, deadline=DEADLINE)
            except (Etsi014Error, Etsi014Unreachable):
                seen.refused += 1
                await asyncio.sleep(0.05)  # an encryptor's own pause before it asks again
                continue
            wanted = {key.key_ID: key.key for key in made.keys}
            for identifier in wanted:
                assert identifier not in seen.issued
            seen.issued.update(wanted)
            while True:
                try:
                    taken = await clients[other].get_key_with_ids(one, list(wanted), deadline=DEADLINE)
                except Etsi014Error as error:
                    if error.status == 503:
                        await asyncio.sleep(0.05)
                        continue
                    seen.missing += len(wanted)
                    break
                except Etsi014Unreachable:
                    # The answer may be lost after the keys were taken: single delivery forbids another.
                    break
                seen.delivered += len(taken.keys)
                seen.mismatched += sum(wanted[key.key_ID] != key.key for key in taken.keys)
                break

    tasks = [asyncio.create_task(ask(master.id, slave.id)), asyncio.create_task(ask(slave.id, master.id))]
    try:
        yield seen
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def more(seen: Load, keys: int) -> None:
    """Wait until that many more keys were delivered."""
    goal = seen.delivered + keys
    async with asyncio.timeout(60):
        while seen.delivered < goal:
            await asyncio.sleep(0.02)


async def in_thread(*arguments: str | os.PathLike[str]) -> str:
    return (await asyncio.to_thread(keyhaul, *map(str, arguments))).stdout


async def test_a_cut_link_is_bypassed_and_comes_back(network: Network, clients: Clients) -> None:
    async with load(network, clients) as seen:
        await more(seen, 40)
        await in_thread("link", "cut", DETOURED, "--network", network.directory)
        await more(seen, 400)
        await in_thread("link", "restore", DETOURED, "--network", network.directory)
        await more(seen, 100)
    assert seen.mismatched == 0
    assert seen.missing == 0


@pytest.mark.parametrize("suite", ["otp", "aes-256-gcm"])
async def test_both_protections_serve_and_change_under_load(network: Network, clients: Clients, suite: str) -> None:
    async with load(network, clients) as seen:
        await more(seen, 20)
        for link in network.facts["links"]:
            await in_thread("link", "protect", link["id"], suite, "--network", network.directory)
        await more(seen, 100)
        shown = json.loads(await in_thread("link", "list", "--network", network.directory, "--json"))
        assert {entry["suite"] for entry in shown["links"]} == {suite}
    assert (seen.mismatched, seen.missing) == (0, 0)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
@pytest.mark.parametrize("role", ["qkdm", "ckms", "akms", "ukms", "aaa"])
async def test_each_service_may_stop_and_start_under_load(
    network: Network, clients: Clients, role: str, how: signal.Signals
) -> None:
    services = [entry["id"] for entry in network.facts["services"] if entry["role"] == role]
    async with load(network, clients) as seen:
        await more(seen, 20)
        for service in services[:2]:
            before = await asyncio.to_thread(network.pid, service)
            os.kill(before, how)
            async with asyncio.timeout(30):
                while await asyncio.to_thread(network.pid, service) in (before, 0):
                    await asyncio.sleep(0.1)
            await more(seen, 40)
    assert (seen.mismatched, seen.missing) == (0, 0)
