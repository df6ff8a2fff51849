"""A network with a controller, as real processes: paths on request, moved by a cut, adopted after a kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.laboratory import SMALL, Network, keyhaul, loopback_for, running, with_controller
from tests.network.load import Clients, encryptors, load, more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("network")]

CUT = "m-b"
AROUND = ["ckms-b", "ckms-d", "ckms-a"]


@pytest.fixture(scope="module")
def steered() -> Iterator[Network]:
    with running(with_controller(SMALL.read_text()), loopback_for(1)) as network:
        yield network


@pytest.fixture
async def clients(steered: Network) -> AsyncIterator[Clients]:
    async with encryptors(steered) as found:
        yield found


def controller(network: Network) -> str:
    found: str = next(entry["id"] for entry in network.facts["services"] if entry["role"] == "controller")
    return found


def epoch(network: Network) -> int | None:
    """In which the controller leads; None while it does not run."""
    page = f"http://{network.service(controller(network))['metrics']}/health"
    try:
        with urlopen(page, timeout=5) as answer:
            found: int | None = json.load(answer)["epoch"]
    except URLError:
        return None
    return found


def demands(network: Network) -> list[dict[str, Any]]:
    found = json.loads(keyhaul("path", "list", "--network", network.directory, "--json").stdout)
    served: list[dict[str, Any]] = found["demands"]
    return served


def ways(network: Network) -> list[list[str]]:
    """The nodes of all paths in force from ckms-b to ckms-a."""
    return [
        path["nodes"]
        for demand in demands(network)
        if (demand["source"], demand["target"]) == ("ckms-b", "ckms-a")
        for path in demand.get("paths", [])
        if path["state"] == "installed"
    ]


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < ends, "not in time"
        await asyncio.sleep(0.1)


async def test_keys_go_over_paths_of_the_controller_and_follow_it(steered: Network, clients: Clients) -> None:
    master, slave = next(pair for pair in steered.pairs() if pair[0].id.startswith("first-west"))
    async with load(clients, [(master.id, slave.id)]) as seen:
        await more(seen, 20)
        await until(lambda: len(ways(steered)) == 2)
        await asyncio.to_thread(keyhaul, "link", "cut", CUT, "--network", steered.directory)
        await until(lambda: ways(steered) == [AROUND])
        await more(seen, 40)
        await asyncio.to_thread(keyhaul, "link", "restore", CUT, "--network", steered.directory)
        await more(seen, 20)
    assert seen.faults == {}
    assert seen.refused == 0


async def test_keys_go_on_without_the_controller_and_it_adopts_what_is_installed(
    steered: Network, clients: Clients
) -> None:
    master, slave = next(pair for pair in steered.pairs() if pair[0].id.startswith("first-west"))
    async with load(clients, [(master.id, slave.id)]) as seen:
        await more(seen, 20)
        await until(lambda: ways(steered))
        before = epoch(steered)
        assert before is not None
        os.kill(steered.pid(controller(steered)), signal.SIGKILL)
        await more(seen, 40)
        await until(lambda: (epoch(steered) or 0) > before and ways(steered))
        await more(seen, 20)
    assert seen.faults == {}
    assert seen.refused == 0


async def test_what_operators_are_told_beforehand_is_what_comes(steered: Network, clients: Clients) -> None:
    at = ("--network", steered.directory)

    def ask(*words: str) -> Any:
        return json.loads(keyhaul(*words, *at, "--json").stdout)

    master, slave = next(pair for pair in steered.pairs() if pair[0].id.startswith("first-west"))
    async with load(clients, [(master.id, slave.id)]) as seen:
        await more(seen, 20)
        await until(lambda: ways(steered))
        between = ways(steered)[0][1].removeprefix("ckms-")
        told = await asyncio.to_thread(ask, "whatif", "--node", between)
        foretold = [
            path["nodes"]
            for one in told["outcomes"]
            if (one["source"], one["target"]) == ("ckms-b", "ckms-a")
            for path in one["after"]
        ]
        assert foretold == [["ckms-b", "ckms-d" if between == "m" else "ckms-m", "ckms-a"]]
        await asyncio.to_thread(keyhaul, "node", "quarantine", between, "--reason", "seal broken", *at)
        await until(lambda: ways(steered) == foretold)
        await more(seen, 20)
        await asyncio.to_thread(keyhaul, "node", "release", between, *at)
        await more(seen, 20)
    assert seen.faults == {}
    assert seen.refused == 0
    plan = steered.directory / "nodes" / "dc" / "controller" / "plan.json"
    assert (await asyncio.to_thread(ask, "whatif", "--description", str(plan))).get("changes") == []
    shown = (await asyncio.to_thread(keyhaul, "topology", "events", *at)).stdout
    assert shown.index(f"node-quarantined  {between}  reason seal broken") < shown.index(f"node-released  {between}")
