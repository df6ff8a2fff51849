"""A node in quarantine, as real processes: what crossed it is burned at both ends, and keys go on over other paths."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.laboratory import SMALL, Network, keyhaul, loopback_for, running, with_controller
from tests.network.load import Clients, encryptors, load, more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("network")]

AKMSS = ("akms-a", "akms-b")


@pytest.fixture(scope="module")
def steered() -> Iterator[Network]:
    with running(with_controller(SMALL.read_text()), loopback_for(2)) as network:
        yield network


@pytest.fixture
async def clients(steered: Network) -> AsyncIterator[Clients]:
    async with encryptors(steered) as found:
        yield found


def counted(network: Network, service: str, metric: str, **labels: str) -> float:
    """The sum of one metric's samples."""
    with urlopen(f"http://{network.service(service)['metrics']}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [one for family in families for one in family.samples if one.name == metric]
    return sum(one.value for one in samples if labels.items() <= one.labels.items())


def burned(network: Network) -> list[float]:
    """CN batches that the AKMSs burned because they are exposed."""
    return [counted(network, akms, "keyhaul_akms_cn_batches_total", outcome="exposed") for akms in AKMSS]


def between(network: Network) -> set[str]:
    """The nodes on all installed paths from ckms-b to ckms-a."""
    found = json.loads(keyhaul("path", "list", "--network", network.directory, "--json").stdout)
    paths = [
        path["nodes"][1:-1]
        for demand in found["demands"]
        if (demand["source"], demand["target"]) == ("ckms-b", "ckms-a")
        for path in demand.get("paths", [])
        if path["state"] == "installed" and path["rank"] == 0
    ]
    return {node.removeprefix("ckms-") for path in paths for node in path}


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < ends, "not in time"
        await asyncio.sleep(0.2)


async def test_what_crossed_a_node_is_burned_at_both_ends_and_keys_go_on(steered: Network, clients: Clients) -> None:
    master, slave = next(pair for pair in steered.pairs() if pair[0].id.startswith("first-west"))
    at = ("--network", steered.directory)
    async with load(clients, [(master.id, slave.id)]) as seen:
        await more(seen, 20)
        await until(lambda: between(steered))
        [suspect] = await asyncio.to_thread(between, steered)
        assert await asyncio.to_thread(burned, steered) == [0.0, 0.0]
        words = ("node", "quarantine", suspect, "--reason", "seal broken", *at, "--json")
        told = json.loads((await asyncio.to_thread(keyhaul, *words)).stdout)
        assert told["exposed"] >= 1
        await until(lambda: all(number >= 1 for number in burned(steered)), 30.0)
        await until(lambda: between(steered) and suspect not in between(steered))
        await more(seen, 40)
    assert seen.faults == {}, "what masters got, their slaves got too, with the same bits"
    for akms in AKMSS:
        assert await asyncio.to_thread(counted, steered, akms, "keyhaul_alarms_total", alarm="cn-bits-exposed")
    again = json.loads((await asyncio.to_thread(keyhaul, *words)).stdout)
    assert again["exposed"] == told["exposed"]
    shown = (await asyncio.to_thread(keyhaul, "topology", "events", *at)).stdout
    assert f"node-quarantined  {suspect}  reason seal broken, exposed {told['exposed']}" in shown
