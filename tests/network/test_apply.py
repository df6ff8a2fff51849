"""A changed description applied to a network that runs, under load: nothing is restarted, and no request fails."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.laboratory import ROOT, SMALL, Network, keyhaul, loopback_for, running, with_controller
from tests.network.load import Clients, encryptors, load, more
from tests.network.test_controller import until, ways

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("network")]

TEXT = with_controller(SMALL.read_text())
E = '[[node]]\nname = "e"\nnumber = 7\nroles = ["ckms"]\n\n'
D = '[[node]]\nname = "d"\nnumber = 4\nroles = ["ckms"]\n\n'


def link(a: str, b: str, km: int) -> str:
    return f'[[link]]\na = "{a}"\nb = "{b}"\nkm = {km}\nskr = 100_000\n\n'


BIGGER = TEXT.replace("[[link]]", E + "[[link]]", 1).replace(
    "[[customer]]", link("a", "e", 10) + link("e", "b", 10) + "[[customer]]", 1
)
OTHER = BIGGER.replace(D, "").replace(link("a", "d", 30), "").replace(link("d", "b", 30), "")
assert "ckms-d" not in OTHER
assert '"d"' not in OTHER


@pytest.fixture
def network() -> Iterator[Network]:
    with running(TEXT, loopback_for(2)) as started:
        yield started


@pytest.fixture
async def clients(network: Network) -> AsyncIterator[Clients]:
    async with encryptors(network) as found:
        yield found


def described(network: Network, text: str) -> Path:
    file = network.directory.parent / "changed.toml"
    file.write_text(text)
    return file


def apply(network: Network, text: str, *options: str) -> Any:
    out = ("--out", network.directory)
    return json.loads(keyhaul("network", "apply", described(network, text), *out, *options, "--json").stdout)


def processes(network: Network) -> dict[str, int | None]:
    status = json.loads(keyhaul("network", "status", network.directory, "--json").stdout)
    return {service["id"]: service["pid"] for service in status["services"]}


def away(network: Network, node: str) -> bool:
    """Whether there are paths, and none over a node."""
    found = ways(network)
    return bool(found) and not any(node in way for way in found)


def restarts(network: Network) -> list[str]:
    return [line for line in (network.directory / "logs/network.log").read_text().splitlines() if "again" in line]


async def test_a_node_comes_and_another_goes_under_load_and_nothing_else_stops(
    network: Network, clients: Clients
) -> None:
    master, slave = next(pair for pair in network.pairs() if pair[0].id.startswith("first-west"))
    before = processes(network)
    async with load(clients, [(master.id, slave.id)]) as seen:
        await more(seen, 20)
        await until(lambda: ways(network))
        done = await asyncio.to_thread(apply, network, BIGGER)
        assert sorted(done["applied"]["started"]) == ["ckms-e", "qkdm-e"]
        assert done["applied"]["restart"] == {}
        await more(seen, 20)
        after = processes(network)
        assert {name: after.get(name) for name in before} == before
        assert after.keys() - before.keys() == {"ckms-e", "qkdm-e"}
        topology = json.loads(keyhaul("topology", "--network", network.directory, "--json").stdout)
        assert {"a-e", "e-b"} <= {one["id"] for one in topology["links"]}
        await asyncio.to_thread(keyhaul, "link", "cut", "m-b", "--network", network.directory)
        await until(lambda: away(network, "ckms-m"))
        await asyncio.to_thread(keyhaul, "link", "cut", "d-b", "--network", network.directory)
        await until(lambda: ways(network) == [["ckms-b", "ckms-e", "ckms-a"]])
        await more(seen, 40)
        for cut in ("m-b", "d-b"):
            await asyncio.to_thread(keyhaul, "link", "restore", cut, "--network", network.directory)
        again = await asyncio.to_thread(apply, network, BIGGER)
        assert (again["changes"], again["applied"]) == ([], None)
        with pytest.raises(AssertionError, match="refused: only links between carriers"):
            await asyncio.to_thread(
                keyhaul, "network", "apply", described(network, BIGGER.replace("km = 5\n", "km = 6\n")),
                "--out", network.directory,
            )  # fmt: skip
        gone = await asyncio.to_thread(apply, network, OTHER)
        assert sorted(gone["applied"]["stopped"]) == ["ckms-d", "qkdm-d"]
        await more(seen, 40)
        last = processes(network)
        assert last == {name: pid for name, pid in after.items() if name not in ("ckms-d", "qkdm-d")}
    assert seen.faults == {}
    assert seen.refused == 0
    assert restarts(network) == []


async def test_one_that_was_killed_is_ended_by_the_next(network: Network, clients: Clients) -> None:
    master, slave = next(pair for pair in network.pairs() if pair[0].id.startswith("first-west"))
    before = processes(network)
    command = [sys.executable, "-m", "keyhaul.command.main", "network", "apply"]
    command += [str(described(network, BIGGER)), "--out", str(network.directory)]
    async with load(clients, [(master.id, slave.id)]) as seen:
        await more(seen, 20)
        for part in ("applying", "nodes/e/ckms", "nodes/e/ckms/config.toml"):
            dying = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            ends = time.monotonic() + 60
            while not (network.directory / part).exists() and time.monotonic() < ends:
                await asyncio.sleep(0.001)
            dying.send_signal(signal.SIGKILL)
            dying.wait()
        assert (network.directory / "applying").exists()
        done = await asyncio.to_thread(apply, network, BIGGER)
        assert done["interrupted"]
        await until(lambda: set(processes(network).values()) and None not in processes(network).values())
        await more(seen, 20)
    assert seen.faults == {}
    assert seen.refused == 0
    after = processes(network)
    assert {name: after.get(name) for name in before} == before
    assert (await asyncio.to_thread(apply, network, BIGGER))["applied"] is None
