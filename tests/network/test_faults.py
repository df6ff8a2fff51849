"""Keys go on, and stay equal, while links are cut, protections change and services stop and start."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest

from tests.laboratory import Network, keyhaul
from tests.network.load import Clients, load, more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("network")]

DETOURED = "m-b"
"""A link on the shortest path, which node d bypasses."""


def pair(network: Network) -> list[tuple[str, str]]:
    """The two SAEs that keep asking."""
    master, slave = network.pairs()[0]
    return [(master.id, slave.id)]


async def in_thread(*arguments: str | os.PathLike[str]) -> str:
    return (await asyncio.to_thread(keyhaul, *map(str, arguments))).stdout


async def test_a_cut_link_is_bypassed_and_comes_back(network: Network, clients: Clients) -> None:
    async with load(clients, pair(network)) as seen:
        await more(seen, 40)
        await in_thread("link", "cut", DETOURED, "--network", network.directory)
        await more(seen, 400)
        await in_thread("link", "restore", DETOURED, "--network", network.directory)
        await more(seen, 100)
    assert seen.faults == {}


@pytest.mark.parametrize("suite", ["otp", "aes-256-gcm"])
async def test_both_protections_serve_and_change_under_load(network: Network, clients: Clients, suite: str) -> None:
    async with load(clients, pair(network)) as seen:
        await more(seen, 20)
        for link in network.facts["links"]:
            await in_thread("link", "protect", link["id"], suite, "--network", network.directory)
        await more(seen, 100)
        shown = json.loads(await in_thread("link", "list", "--network", network.directory, "--json"))
        assert {entry["suite"] for entry in shown["links"]} == {suite}
    assert seen.faults == {}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
@pytest.mark.parametrize("role", ["qkdm", "ckms", "akms", "ukms", "aaa"])
async def test_each_service_may_stop_and_start_under_load(
    network: Network, clients: Clients, role: str, how: signal.Signals
) -> None:
    services = [entry["id"] for entry in network.facts["services"] if entry["role"] == role]
    async with load(clients, pair(network)) as seen:
        await more(seen, 20)
        for service in services[:2]:
            before = await asyncio.to_thread(network.pid, service)
            os.kill(before, how)
            async with asyncio.timeout(30):
                while await asyncio.to_thread(network.pid, service) in (before, 0):
                    await asyncio.sleep(0.1)
            await more(seen, 40)
    assert seen.faults == {}
