"""Links and static rows come and go while a CKMS carries batches; whatever is wrong changes nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyhaul.command.init import initialise
from keyhaul.config.loader import load
from keyhaul.config.services import CkmsConfig, QkdmConfig
from keyhaul.runtime.interface import NotTaken
from services.ckms.role import ROLE as CKMS
from services.qkdm.role import ROLE as QKDM
from tests.laboratory import SMALL
from tests.services.ckms.running import Access, FakeRuntime, start

ROW = {"a-m", "m-b"}
AROUND = {"a-d", "d-b"}


class Nodes:
    """The CKMSs and modules of the small network, of which some links are configured."""

    def __init__(self, network: Path, stack: AsyncExitStack) -> None:
        self.network = network
        self.stack = stack
        self.carriers: dict[str, FakeRuntime] = {}
        self.modules: dict[str, FakeRuntime] = {}
        self.access = {node: Access(network, node) for node in "ab"}
        self._number = 0

    def carrier(self, node: str, links: set[str]) -> CkmsConfig:
        """A node's configuration with these links only, and the rows that need no others."""
        config = load(self._file(node, "ckms"), CkmsConfig)
        kept = [link for link in config.link if link.id in links]
        there = {link.neighbour for link in kept}
        entries = [one for one in config.entry if one.previous in there and (one.next is None or one.next in there)]
        paths = [path for path in config.path if path.next in there]
        return msgspec.structs.replace(config, link=kept, entry=entries, path=paths)

    def module(self, node: str, links: set[str]) -> QkdmConfig:
        config = load(self._file(node, "qkdm"), QkdmConfig)
        return msgspec.structs.replace(config, module=[one for one in config.module if one.link in links])

    async def start(self, nodes: str, links: set[str]) -> None:
        for node in nodes:
            if node in self.access:
                akms = self.access[node]
                await akms.listener.start()
                self.stack.push_async_callback(akms.listener.close)
                await akms.channel.start()
                self.stack.push_async_callback(akms.channel.close)
            where = self._file(node, "qkdm").parent
            self.modules[node] = await start(QKDM, self.module(node, links), where, self.stack)
        for node in nodes:
            where = self._file(node, "ckms").parent
            self.carriers[node] = await start(CKMS, self.carrier(node, links), where, self.stack)
        async with asyncio.timeout(120):
            while not all(self.access[node].channel.connected for node in nodes if node in self.access):
                await asyncio.sleep(0.02)

    async def take(self, node: str, links: set[str]) -> None:
        modules, carrier = self.modules[node].take, self.carriers[node].take
        assert modules is not None
        assert carrier is not None
        assert await modules(self.module(node, links)) == []
        assert await carrier(self.carrier(node, links)) == []

    async def links(self, node: str) -> dict[str, Any]:
        return {link["link"]: link for link in (await self.carriers[node].commands["links"]({}))["links"]}

    async def up(self, node: str, links: set[str]) -> None:
        async with asyncio.timeout(120):
            while not all(
                link["state"] == "up" and link["connected"] and link[way]["payload_available"] >= 16_384
                for name, link in (await self.links(node)).items()
                for way in ("outgoing", "incoming")
                if name in links
            ):
                await asyncio.sleep(0.02)

    async def carry(self) -> Any:
        self._number += 1
        return await self.access["b"].carry("ckms-a", f"{self._number:032x}", os.urandom(512))

    def _file(self, node: str, role: str) -> Path:
        return self.network / "nodes" / node / role / "config.toml"


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    process = os.getpid()
    network = Path("/tmp") / f"ckms-reload-{process}"
    initialise(SMALL, network, loopback=f"127.{128 + process % 100}.{process // 100 % 250}.0")
    try:
        async with AsyncExitStack() as stack:
            yield Nodes(network, stack)
    finally:
        shutil.rmtree(network)


@asynccontextmanager
async def batches(nodes: Nodes) -> AsyncIterator[list[Any]]:
    """One batch after the other from b to a; what became of each."""
    outcomes: list[Any] = []

    async def carry() -> None:
        while True:
            outcomes.append(await nodes.carry())

    async def look() -> None:
        """Whoever looks meanwhile sees a link whole or not at all."""
        while True:
            await nodes.links("b")
            await asyncio.sleep(0.001)

    tasks = [asyncio.create_task(carry()), asyncio.create_task(look())]
    try:
        yield outcomes
    finally:
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def more(outcomes: list[Any]) -> None:
    before = len(outcomes)
    async with asyncio.timeout(120):
        while len(outcomes) < before + 20:
            await asyncio.sleep(0.01)


async def test_a_node_joins_and_another_leaves_while_batches_are_carried(nodes: Nodes) -> None:
    await nodes.start("amb", ROW)
    await nodes.up("a", ROW)
    await nodes.up("b", ROW)
    async with batches(nodes) as outcomes:
        await more(outcomes)
        await nodes.start("d", AROUND)
        for node in "ab":
            await nodes.take(node, ROW | AROUND)
            await nodes.up(node, AROUND)
        await more(outcomes)
        links = await nodes.links("b")
        assert {name: link["sessions_total"] for name, link in links.items()} == {"m-b": 1, "d-b": 1}
        assert links["m-b"]["outgoing"]["burned_total"] == 0
        sample = nodes.carriers["b"].registry.get_sample_value
        assert sample("keyhaul_link_available_bytes", {"link": "d-b", "direction": "outgoing", "stream": "payload"})
        for node in "ba":
            await nodes.take(node, AROUND)
        await more(outcomes)
        assert set(await nodes.links("b")) == {"d-b"}
        gone = {"link": "m-b", "direction": "outgoing", "stream": "payload"}
        assert sample("keyhaul_link_available_bytes", gone) is None
        assert nodes.carriers["a"].check()["links"] == {"a-d": True}
        for node in "ab":
            await nodes.take(node, ROW | AROUND)  # what is known of the link from before is met again
            await nodes.up(node, ROW | AROUND)
        await more(outcomes)
    assert set(outcomes) == {None}
    assert [nodes.carriers[node].alarms for node in "abmd"] == [[], [], [], []]


async def test_a_link_is_switched_off_and_on_by_the_configuration(nodes: Nodes) -> None:
    await nodes.start("amb", ROW)
    await nodes.up("b", ROW)
    await nodes.up("a", ROW)
    take = nodes.carriers["b"].take
    assert take is not None
    config = nodes.carrier("b", ROW)
    config.link[0].enabled = False
    assert await take(config) == []
    assert (await nodes.links("b"))["m-b"]["state"] == "disabled"
    assert nodes.carriers["b"].check()["links"] == {}
    assert await nodes.carry() is not None
    await nodes.carriers["b"].commands["enable"]({"link": "m-b", "enabled": True})
    assert (await nodes.links("b"))["m-b"]["state"] == "disabled"  # both must want it
    assert await take(nodes.carrier("b", ROW)) == []
    await nodes.up("b", ROW)
    assert (await nodes.links("b"))["m-b"]["sessions_total"] == 1
    nodes.carriers["b"].take = None


def without_key(config: CkmsConfig) -> None:
    config.link[0].peer_link_key = "nothing.pem"


def without_bootstrap(config: CkmsConfig) -> None:
    config.link[0].bootstrap = "nothing"


def without_address(config: CkmsConfig) -> None:
    config.link[0].address = None


def renamed(config: CkmsConfig) -> None:
    config.link[0].id = "b-m"


def astray(config: CkmsConfig) -> None:
    config.path[0].next = "ckms-z"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_key, "nothing.pem"),
        (without_bootstrap, "bootstrap secret"),
        (without_address, "give the neighbour's address"),
        (renamed, "there is one to ckms-m already, m-b"),
        (astray, "no neighbour of ckms-b"),
    ],
)
async def test_what_cannot_be_used_is_refused_and_all_goes_on(
    nodes: Nodes, spoil: Callable[[CkmsConfig], None], says: str
) -> None:
    await nodes.start("b", ROW if spoil is renamed else set())
    carrier = nodes.carriers["b"]
    before = (await nodes.links("b"), await carrier.commands["paths"]({}))
    config = nodes.carrier("b", ROW)
    spoil(config)
    assert carrier.take is not None
    with pytest.raises(NotTaken, match=says):
        await carrier.take(config)
    assert (await nodes.links("b"), await carrier.commands["paths"]({})) == before


async def test_what_only_a_restart_brings_is_named(nodes: Nodes) -> None:
    await nodes.start("b", ROW)
    config = nodes.carrier("b", ROW)
    config.link[0].pool += 4_096
    config.link[0].rate = 7
    take = nodes.carriers["b"].take
    assert take is not None
    assert await take(config) == ["link m-b: rate", "link m-b: pool"]
