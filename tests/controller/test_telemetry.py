"""Telemetry from real gNMI targets over mutual TLS: it begins, notices, begins again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from controller import telemetry
from controller.listening import Listening
from controller.rhythm import SAMPLE, Rhythm
from controller.telemetry import NodeState, Telemetry
from tests.controller.agents import CONTROLLER, Agent, free_address, link
from tests.keyhaul.agents.gnmi.pki import DOMAIN, Twins


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return Twins(tmp_path_factory.mktemp("twins"))


@dataclass
class Told:
    urgent: list[str] = field(default_factory=list)
    joined: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


@dataclass
class Net:
    twins: Twins
    agents: dict[str, Agent]
    telemetry: Telemetry
    told: Told

    def follow(self) -> None:
        self.telemetry.follow({node: agent.address for node, agent in self.agents.items()})


def following(twins: Twins, told: Told, **more: Any) -> Telemetry:
    """Telemetry that tells what it is told."""
    return Telemetry(
        DOMAIN,
        twins.files(CONTROLLER, crl=False),
        urgent=told.urgent.append,
        joined=told.joined.append,
        lost=told.lost.append,
        **more,
    )


def quick(_nodes: int) -> Rhythm:
    """Nodes are given up soon."""
    return Rhythm(SAMPLE, 2 * SAMPLE)


@pytest.fixture
async def net(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Net]:
    monkeypatch.setattr(telemetry, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(telemetry, "LONGEST_PAUSE", 0.1)
    told = Told()
    agents = {
        "ckms-1": Agent("ckms-1", {"ckms-2": link("1-2")}, twins),
        "ckms-2": Agent("ckms-2", {"ckms-1": link("1-2")}, twins),
    }
    for agent in agents.values():
        await agent.start()
    net = Net(twins, agents, following(twins, told), told)
    try:
        yield net
    finally:
        await net.telemetry.close()
        for agent in agents.values():
            await agent.stop()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_all_nodes_tell_of_their_links(net: Net) -> None:
    net.follow()
    await until(lambda: sorted(net.told.joined) == ["ckms-1", "ckms-2"])
    report = net.telemetry.reports["ckms-1"]
    assert report.service_id == "ckms-1"
    assert report.incarnation == net.agents["ckms-1"].incarnation
    assert report.links["ckms-2"].facts.rate == 100_000
    assert {one.state for one in net.telemetry.nodes.values()} == {NodeState.TELLING}


async def test_a_link_that_goes_down_is_told_at_once(net: Net) -> None:
    net.follow()
    await until(lambda: len(net.told.joined) == 2)
    agent = net.agents["ckms-1"]
    agent.links["ckms-2"] |= {"up": False}
    agent.told()
    async with asyncio.timeout(0.9):  # less than the time between two samples
        while "ckms-1" not in net.told.urgent:
            await asyncio.sleep(0.005)
    assert not net.telemetry.reports["ckms-1"].links["ckms-2"].facts.up


async def test_a_node_that_goes_and_comes_back_is_followed_again(net: Net) -> None:
    net.follow()
    await until(lambda: len(net.told.joined) == 2)
    agent = net.agents["ckms-2"]
    await agent.stop()
    await until(lambda: net.told.lost == ["ckms-2"])
    assert net.telemetry.nodes["ckms-2"].state is NodeState.DIALLING
    assert net.telemetry.nodes["ckms-1"].state is NodeState.TELLING
    agent.incarnation = "ab" * 16
    await agent.start()
    await until(lambda: net.told.joined.count("ckms-2") == 2)
    assert net.telemetry.reports["ckms-2"].incarnation == "ab" * 16


async def test_who_answers_must_be_the_node_that_is_planned_there(net: Net) -> None:
    net.telemetry.follow({"ckms-3": net.agents["ckms-1"].address})
    await until(lambda: net.telemetry.failures.total() >= 2)
    assert net.telemetry.reports == {}
    assert net.told.joined == []


async def test_a_node_that_is_planned_no_more_is_left_and_a_new_one_is_followed(net: Net) -> None:
    net.follow()
    await until(lambda: len(net.told.joined) == 2)
    followed = net.telemetry.nodes["ckms-1"]
    net.telemetry.follow({"ckms-1": net.agents["ckms-1"].address, "ckms-9": free_address()})
    assert net.telemetry.nodes["ckms-1"] is followed
    assert set(net.telemetry.reports) == {"ckms-1"}
    await until(lambda: net.telemetry.failures["unreachable"] > 0)
    assert list(net.telemetry.failed()) == []


async def test_nonsense_of_one_node_is_counted_and_the_rest_of_it_is_believed(net: Net) -> None:
    net.agents["ckms-1"].links["ckms-9"] = link("1-9", id="a" * 64)
    net.follow()
    await until(lambda: len(net.told.joined) == 2)
    assert net.telemetry.unreadable == 0
    assert set(net.telemetry.reports["ckms-1"].links) == {"ckms-2", "ckms-9"}


class Fibre:
    """Carries bytes to an agent, until it is frozen: then nothing comes, and nothing breaks."""

    def __init__(self, target: str) -> None:
        self.address = free_address()
        self.flows = asyncio.Event()
        self.flows.set()
        self._target = target.rpartition(":")
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        host, _, port = self.address.rpartition(":")
        self._server = await asyncio.start_server(self._join, host, int(port))

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target
        there, towards = await asyncio.open_connection(host, int(port))
        for source, sink in ((reader, towards), (there, writer)):
            task = asyncio.get_running_loop().create_task(self._carry(source, sink))
            self._tasks.add(task)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                await self.flows.wait()
                sink.write(data)
        except ConnectionError:
            pass
        finally:
            sink.close()


async def test_a_node_that_freezes_is_given_up_and_followed_again_once_it_tells(net: Net) -> None:
    fibre = Fibre(net.agents["ckms-1"].address)
    await fibre.start()
    own = following(net.twins, net.told, rhythm=quick)
    own.follow({"ckms-1": fibre.address})
    await until(lambda: net.told.joined == ["ckms-1"])
    fibre.flows.clear()
    await until(lambda: net.told.lost == ["ckms-1"])
    assert own.failures == {"silent": 1}
    fibre.flows.set()
    await until(lambda: net.told.joined == ["ckms-1", "ckms-1"])
    await own.close()
    await fibre.close()


async def test_a_node_is_not_silent_for_the_time_in_which_nobody_listened(net: Net) -> None:
    """The process stands still for longer than nodes may be silent."""
    stood = [0.0]
    listening = Listening(lambda _part: None, clock=lambda: time.monotonic() + stood[0])
    own = following(net.twins, net.told, clock=listening, rhythm=quick)
    marks = asyncio.create_task(listening.run())
    try:
        own.follow({node: agent.address for node, agent in net.agents.items()})
        await until(lambda: len(net.told.joined) == 2)
        stood[0] = 60.0
        messages = own.messages
        await until(lambda: own.messages >= messages + 6)
        assert not net.told.lost
        assert not own.failures
    finally:
        marks.cancel()
        await own.close()


async def test_nodes_that_answer_nothing_take_no_turn_from_those_that_do(net: Net) -> None:
    """However few are dialled at once: one listens and never says a word, and is dialled again and again."""
    own = following(net.twins, net.told, at_once=1, rhythm=quick)
    heard: list[asyncio.StreamWriter] = []
    host, port = free_address().rsplit(":", 1)
    mute = await asyncio.start_server(lambda _reader, writer: heard.append(writer), host, int(port))
    try:
        own.follow({"ckms-9": f"{host}:{port}"})
        await until(lambda: len(heard) > 0)
        own.follow({"ckms-9": f"{host}:{port}"} | {node: agent.address for node, agent in net.agents.items()})
        await until(lambda: own.nodes["ckms-1"].state is own.nodes["ckms-2"].state is NodeState.TELLING)
        await net.agents["ckms-1"].stop()
        await until(lambda: own.nodes["ckms-1"].state is NodeState.DIALLING)
        await net.agents["ckms-1"].start()
        await until(lambda: own.nodes["ckms-1"].state is NodeState.TELLING)
        assert own.nodes["ckms-9"].state is NodeState.DIALLING
    finally:
        await own.close()
        for writer in heard:
            writer.close()
        mute.close()
