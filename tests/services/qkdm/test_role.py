"""The role: its commands, metrics, health, and how it starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from keyhaul.config.services import ModuleConfig, OperationsSection, QkdmConfig, ServiceSection
from keyhaul.runtime.interface import LocalCommand, NotTaken, StartError, Take
from services.qkdm.role import ROLE, QkdmRole
from tests.services.qkdm.conftest import Laboratory, until


class Surroundings:
    """Stands for the process around a role."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.commands: dict[str, LocalCommand] = {}
        self.is_ready = asyncio.Event()
        self.told: Callable[[], dict[str, Any]] = dict
        self.alarms: list[str] = []
        self.take: Take | None = None

    def task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=name)

    def alarm(self, name: str, **facts: Any) -> None:
        self.alarms.append(name)

    def on_reload(self, tables: Iterable[str], take: Take) -> None:
        self.take = take

    def ready(self) -> None:
        self.is_ready.set()

    def health(self, check: Callable[[], dict[str, Any]]) -> None:
        self.told = check

    def command(self, name: str, answer: LocalCommand) -> None:
        self.commands[name] = answer


def config(node: str, *modules: ModuleConfig) -> QkdmConfig:
    return QkdmConfig(
        service=ServiceSection(domain="qkd.example", role="qkdm", node=node),
        operations=OperationsSection(metrics="127.0.0.1:0", socket="socket"),
        module=list(modules),
    )


@asynccontextmanager
async def serving(laboratory: Laboratory, node: str, *modules: ModuleConfig) -> AsyncIterator[Surroundings]:
    around, stop = Surroundings(), asyncio.Event()
    task = asyncio.create_task(ROLE.run(config(node, *modules), laboratory.directory, around, stop))
    async with asyncio.timeout(5):
        await around.is_ready.wait()
    try:
        yield around
    finally:
        stop.set()
        async with asyncio.timeout(4):
            await task


async def test_commands_metrics_and_health(laboratory: Laboratory) -> None:
    async with (
        serving(laboratory, "1", laboratory.config("a")) as a,
        serving(laboratory, "2", laboratory.config("b")) as b,
    ):
        await until(lambda: b.told()["modules"][0]["synchronised"])
        assert (await b.commands["link"]({"link": "a-b", "action": "cut"}))["cut"] is True
        (facts,) = (await a.commands["modules"]({}))["modules"]
        assert (facts["link"], facts["cut"], facts["rate"], facts["transmitter"]) == ("a-b", True, 0.0, True)
        assert a.told()["modules"][0]["cut"] is True
        metrics = generate_latest(a.registry).decode()
        assert 'keyhaul_qkdm_cut{link="a-b"} 1.0' in metrics
        assert f'keyhaul_qkdm_keys_generated_total{{link="a-b"}} {facts["generated"]:.1f}' in metrics
        assert (await a.commands["link"]({"link": "a-b", "action": "restore"}))["cut"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"action": "burn"},
        {"action": "degrade"},
        {"action": "degrade", "qber": "0.1"},
        {"action": "degrade", "qber": True},
        {"action": "degrade", "qber": 0.6},
        {"action": "degrade", "factor": -1},
        {"action": "cut", "factor": 0.5},
        {"action": "cut", "unknown": 1},
    ],
)
async def test_wrong_commands_change_nothing(laboratory: Laboratory, arguments: dict[str, Any]) -> None:
    async with serving(laboratory, "1", laboratory.config("a")) as around:
        with pytest.raises(ValueError):
            await around.commands["link"]({"link": "a-b", **arguments})
        with pytest.raises(LookupError, match="a-b"):
            await around.commands["link"]({"link": "x-y", "action": "cut"})
        assert around.told()["modules"][0]["cut"] is False


async def test_modules_come_and_go_with_the_configuration(laboratory: Laboratory) -> None:
    other = {"link": "a-c", "channel": "other"}
    async with (
        serving(laboratory, "1", laboratory.config("a")) as a,
        serving(laboratory, "2", laboratory.config("b")) as b,
    ):
        assert a.take is not None
        assert b.take is not None
        await until(lambda: b.told()["modules"][0]["synchronised"])
        (before,) = (await a.commands["modules"]({}))["modules"]
        assert await a.take(config("1", laboratory.config("a"), laboratory.config("a", **other))) == []
        assert await b.take(config("2", laboratory.config("b", **other), laboratory.config("b"))) == []
        await until(lambda: all(module["synchronised"] for module in a.told()["modules"]))
        assert [module["link"] for module in b.told()["modules"]] == ["a-b", "a-c"]
        assert 'keyhaul_qkdm_synchronised{link="a-c"} 1.0' in generate_latest(a.registry).decode()
        first, _ = (await a.commands["modules"]({}))["modules"]
        assert first["generated"] >= before["generated"]  # it was never closed
        assert await a.take(config("1", laboratory.config("a", rate=1.0))) == ["module a-b: rate"]
        assert [module["link"] for module in a.told()["modules"]] == ["a-b"]
        assert a.told()["modules"][0]["synchronised"]
        with pytest.raises(LookupError, match="a-c"):
            await a.commands["link"]({"link": "a-c", "action": "cut"})


async def test_a_module_that_cannot_open_leaves_all_as_it_was(laboratory: Laboratory) -> None:
    async with serving(laboratory, "1", laboratory.config("a")) as around:
        assert around.take is not None
        good = laboratory.config("a", link="a-c", channel="other")
        bad = laboratory.config("a", link="a-d", channel="nowhere/channel")
        with pytest.raises(NotTaken, match="a-d"):
            await around.take(config("1", laboratory.config("a"), good, bad))
        assert [module["link"] for module in around.told()["modules"]] == ["a-b"]
        assert not (laboratory.directory / "other").exists()
        assert await around.take(config("1", laboratory.config("a"), good)) == []


async def test_it_stops_at_once_while_clients_are_connected(laboratory: Laboratory) -> None:
    loop = asyncio.get_running_loop()
    async with laboratory.pair() as (module, _, client, _):
        await client.status("kms-b")
        began = loop.time()
        await module.close()
        assert loop.time() - began < 1.0


async def test_it_stops_in_the_moment_in_which_the_other_end_does(laboratory: Laboratory) -> None:
    for turns in range(6):
        a, b = laboratory.module("a"), laboratory.module("b")
        await a.start()
        await b.start()
        tasks = [asyncio.create_task(module.run()) for module in (a, b)]
        ends = (a.end, b.end)
        await until(lambda ends=ends: all(end.synchronised for end in ends))  # type: ignore[misc]
        assert b._connection is not None
        b._connection.close()
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(2):
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(a.close(), b.close())


async def test_what_keeps_it_from_starting_is_told(laboratory: Laboratory) -> None:
    async with serving(laboratory, "1", laboratory.config("a")) as around:
        assert around.is_ready.is_set()
        with pytest.raises(StartError, match="channel"):
            await QkdmRole().run(
                config("1", laboratory.config("a")), laboratory.directory, Surroundings(), asyncio.Event()
            )
    for change in ({"certificate": "absent.crt"}, {"channel": "absent/channel"}, {"channel": "x" * 200}):
        section = laboratory.config("a", **change)
        with pytest.raises(StartError):
            await QkdmRole().run(config("1", section), laboratory.directory, Surroundings(), asyncio.Event())
    assert not (laboratory.directory / "channel").exists()
