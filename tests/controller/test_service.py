"""A whole controller, its database and gNMI real, over CKMSs that verify what it says: installed, moved, adopted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from controller import recording, telemetry
from controller.metrics import ControllerCollector
from controller.northbound.interface import PathState
from controller.service import ControllerService
from controller.state import events, history, installed
from controller.state.leading import look
from controller.state.rollup import MINUTE, Sample, Summary, samples
from controller.steering.effects import Note
from controller.topology import Discovery
from keyhaul.database.errors import DatabaseUnavailable, OutcomeUnknown
from keyhaul.transport.messages.path import PathRefusal
from services.ckms.forwarding import Entry
from services.ckms.held import HighWater
from tests.controller.steered import LINKS, Net
from tests.keyhaul.agents.gnmi.pki import Twins
from tests.postgresql import PostgreSQL


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return Twins(tmp_path_factory.mktemp("twins"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(telemetry, "LONGEST_PAUSE", 0.1)


@pytest.fixture
async def net(tmp_path: Path, database_url: str, twins: Twins) -> AsyncIterator[Net]:
    net = Net(tmp_path, database_url, twins)
    await net.start_agents()
    net.write_plan()
    try:
        yield net
    finally:
        await net.close()


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def found(service: ControllerService) -> int:
    discovery = service.discovery()
    return 0 if discovery is None else sum(one.up for one in discovery.view.links)


async def ready(service: ControllerService) -> None:
    """It leads, sees all four links, and has come to know what each node has."""
    await until(lambda: service.leader().leads and found(service) == 4)
    term = service.term
    assert term is not None
    await until(lambda: all(term.steering.is_ready(f"ckms-{node}") for node in "ambd"))


def ask(service: ControllerService, service_class: str = "silver", failed: str | None = None) -> Any:
    return service.wanted("ckms-a", "ckms-b", service_class, 1_000.0, failed)


VIA_M, VIA_D = ["ckms-m", "ckms-b"], ["ckms-d", "ckms-b"]


async def test_a_path_and_its_backup_are_installed_on_request(net: Net) -> None:
    service = net.controller()
    await ready(service)
    assert ask(service).refusal is None
    await until(lambda: len(net.agents["ckms-a"].paths) == 2)
    assert sorted(net.ways()) == [VIA_D, VIA_M]
    await until(lambda: {path.state for path in service.demands()[0].paths} == {PathState.INSTALLED})
    entries: list[Entry] = [entry for agent in net.agents.values() for entry in agent.entries]
    assert len({entry.label for entry in entries}) == len(entries) == 4


async def test_a_link_that_is_cut_moves_the_path_and_events_tell(net: Net) -> None:
    service = net.controller()
    await ready(service)
    ask(service)
    await until(lambda: len(net.agents["ckms-a"].paths) == 2)
    start = await service.position()
    net.set_link("m", "b", up=False)
    await until(lambda: net.ways() == [VIA_D])

    async def kinds() -> set[str]:
        return {event.kind for event in await service.events(start, 100)}

    async with asyncio.timeout(10):
        while not {"link-down", "paths-moved"} <= await kinds():
            await asyncio.sleep(0.01)
    net.set_link("m", "b", up=True)
    await until(lambda: found(service) == 4)


async def test_a_node_in_quarantine_is_in_no_path_and_stays_so_over_restarts(net: Net) -> None:
    service = net.controller()
    await ready(service)
    await service.quarantine("ckms-m", "its seal was broken")
    assert service.quarantined() == {"ckms-m": "its seal was broken"}
    ask(service)
    await until(lambda: net.ways() == [VIA_D])
    await net.stop(service)
    net.databases.pop().close()
    service = net.controller()
    await ready(service)
    ask(service, "bronze")
    await until(lambda: len(net.agents["ckms-a"].paths) >= 2)
    assert net.agents["ckms-m"].entries == []
    assert await service.release("ckms-m")
    assert not await service.release("ckms-m")


async def test_what_crossed_a_node_is_exposed_at_both_ends_and_over_once_its_paths_have_moved(net: Net) -> None:
    service = net.controller()
    await ready(service)
    assert await service.exposing.of("ckms-a") == []
    ask(service)
    await until(lambda: len(net.agents["ckms-a"].paths) == 2)
    await until(lambda: {path.state for path in service.demands()[0].paths} == {PathState.INSTALLED})
    net.agents["ckms-a"].answering.clear()
    assert await service.quarantine("ckms-m", "its seal was broken") == 1
    [told] = await service.exposing.of("ckms-a") or ()
    assert (told.other, told.service_class, told.sends, told.over) == ("ckms-b", "silver", True, False)
    net.agents["ckms-a"].answering.set()

    async def over(service: ControllerService, node: str, *, sends: bool) -> str:
        async with asyncio.timeout(20):
            while True:
                found = await service.exposing.of(node)
                if found and [(one.sends, one.over) for one in found] == [(sends, True)]:
                    return found[0].id
                await asyncio.sleep(0.01)

    assert await over(service, "ckms-a", sends=True) == told.id
    assert VIA_M not in net.ways()
    assert await over(service, "ckms-b", sends=False) == told.id
    assert await service.exposing.of("ckms-d") == []
    [event] = [one for one in await service.events(0, 100) if one.kind == "node-quarantined"]
    assert event.facts == {"reason": "its seal was broken", "exposed": 1}
    await net.stop(service)
    net.databases.pop().close()
    service = net.controller()
    assert await service.exposing.of("ckms-a") is None, "only who leads knows what is in force"
    await ready(service)
    assert await over(service, "ckms-a", sends=True) == told.id


async def test_what_was_installed_is_adopted_after_a_restart(net: Net) -> None:
    service = net.controller()
    await ready(service)
    ask(service)
    await until(lambda: len(net.agents["ckms-a"].paths) == 2)
    await until(lambda: {path.state for path in service.demands()[0].paths} == {PathState.INSTALLED})
    demand = service.demands()[0].demand
    await net.stop(service)
    net.databases.pop().close()
    service = net.controller()
    await ready(service)
    await until(lambda: service.demands() and service.demands()[0].paths)
    assert service.demands()[0].demand == demand
    assert sorted(net.ways()) == [VIA_D, VIA_M]


async def test_a_node_that_refuses_leaves_nothing_half_installed(net: Net) -> None:
    service = net.controller()
    await ready(service)
    net.agents["ckms-a"].refuses = True
    ask(service)
    await until(lambda: any(name == "statements-not-accepted" for name, _ in alarms(service)))
    assert net.agents["ckms-a"].paths == []
    net.agents["ckms-a"].refuses = False
    await until(lambda: len(net.agents["ckms-a"].paths) == 2, 15)
    assert sorted(net.ways()) == [VIA_D, VIA_M]


async def test_a_refusal_says_why(net: Net) -> None:
    service = net.controller()
    await ready(service)
    assert service.wanted("ckms-a", "ckms-x", "silver", 1e3, None) is not None
    reply = service.wanted("ckms-a", "ckms-x", "silver", 1e3, None)
    assert reply is not None
    assert reply.refusal is PathRefusal.UNKNOWN_DESTINATION
    assert ask(service, "gold").refusal is None
    greedy = service.wanted("ckms-a", "ckms-b", "gold", 1e9, None)
    assert greedy is not None
    await until(lambda: len(net.agents["ckms-a"].paths) == 2)


async def test_a_plan_that_changes_is_followed_without_a_restart(net: Net) -> None:
    service = net.controller()
    await ready(service)
    await until(lambda: service.plan_version() == 1)
    net.write_plan({identity: ends for identity, ends in LINKS.items() if identity != "m-b"})
    await until(lambda: service.plan_version() == 2)
    discovery = service.discovery()
    assert discovery is not None
    assert {one.id for one in discovery.view.links} == {"a-m", "a-d", "d-b"}
    (net.folder / "plan.json").write_text("{")
    await until(lambda: any(name == "plan-not-read" for name, _ in alarms(service)))
    assert service.plan_version() == 2


@pytest.mark.parametrize("failure", [DatabaseUnavailable, OutcomeUnknown])
async def test_a_database_that_does_not_answer_only_delays(
    net: Net, monkeypatch: pytest.MonkeyPatch, failure: type[DatabaseUnavailable]
) -> None:
    service = net.controller()
    await ready(service)
    transact, refused = service.leadership.transact, 0

    async def unwilling(work: Any) -> Any:
        nonlocal refused
        done = await transact(work) if failure is OutcomeUnknown else None
        refused += 1
        if refused <= 3:
            raise failure("away")
        return await transact(work) if done is None else done

    with monkeypatch.context() as patched:
        patched.setattr(service.leadership, "transact", unwilling)
        assert ask(service).refusal is None
        await until(lambda: refused > 3)
        await until(lambda: len(net.agents["ckms-a"].paths) == 2)
    assert sorted(net.ways()) == [VIA_D, VIA_M]
    assert "database-unavailable" in {name for name, _ in alarms(service)}
    statements = await net.databases[0].run(installed.load)
    assert {(one.node, one.serial) for one in statements} == {
        (node, serial) for node, agent in net.agents.items() for serial in agent.installed.held
    }


async def test_metrics_tell_what_is_served(net: Net) -> None:
    service = net.controller()
    await ready(service)
    ask(service)
    await until(lambda: len(net.agents["ckms-a"].paths) == 2)
    registry = CollectorRegistry()
    registry.register(ControllerCollector(service))
    text = generate_latest(registry).decode()
    for line in (
        "keyhaul_controller_leads 1.0",
        'keyhaul_controller_nodes{state="telling"} 4.0',
        'keyhaul_controller_links{state="found"} 4.0',
        "keyhaul_controller_demands 1.0",
    ):
        assert line in text


async def test_what_links_measure_becomes_history(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("SAMPLE", 0.02), ("FLUSH", 0.1), ("ROLL", 0.2)):
        monkeypatch.setattr(recording, name, seconds)
    service = net.controller()
    await ready(service)

    def minutes(connection: Any) -> dict[int, Summary]:
        return history.read(connection, MINUTE, "a-m", "ckms-m", 0, 2**40)

    async with asyncio.timeout(10):
        while not any(one.up for one in (await net.databases[0].run(minutes)).values()):
            await asyncio.sleep(0.02)
    last = max((await net.databases[0].run(minutes)).items())[1]
    assert last.rate_most == pytest.approx(100_000, rel=0.01)
    assert last.qber == pytest.approx(0.02)


async def test_nothing_is_lost_when_the_service_is_stopped(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def counted(found: Discovery) -> list[Sample]:
        nonlocal taken
        taken += 1
        return samples(found)

    monkeypatch.setattr(recording, "SAMPLE", 0.02)
    monkeypatch.setattr(recording, "samples", counted)
    service = net.controller()
    await ready(service)
    await until(lambda: taken > 3)
    term = service.term
    assert term is not None
    transact, last = service.leadership.transact, Note("test-event", "ckms-a")

    async def stuck(work: Any) -> Any:
        """The database answers nobody until the service is being stopped."""
        if not stopping.is_set():
            await stopping.wait()
        return await transact(work)

    stopping = asyncio.Event()
    monkeypatch.setattr(service.leadership, "transact", stuck)
    term._queue.append(last)
    term._wake.set()
    await until(lambda: not term._queue)
    term._queue.append(replace(last, subject="ckms-b"))
    stopping.set()
    await net.stop(service)
    database = net.databases[0]
    told = await database.run(lambda c: events.after(c, 0))
    assert [one.subject for one in told if one.kind == "test-event"] == ["ckms-a", "ckms-b"]
    measured = await database.run(lambda c: history.read(c, MINUTE, "a-m", "ckms-m", 0, 2**40))
    assert sum(one.up for one in measured.values()) > 0, "no minute was written before the end"
    assert (await database.run(look)).holder == ""


async def test_health_tells_who_leads_and_what_is_seen(net: Net) -> None:
    service = net.controller()
    await ready(service)
    told = service.health()
    assert (told["leads"], told["epoch"], told["leader"]) == (True, 1, "controller-1")
    assert told["nodes"] == {"planned": 4, "telling": 4}
    assert told["links"]["found"] == 4
    assert told["alone"] is not net.databases[0].shared


def alarms(service: ControllerService) -> list[tuple[str, dict[str, Any]]]:
    runtime: Any = service._runtime
    recorded: list[tuple[str, dict[str, Any]]] = runtime.alarms
    return recorded


async def test_a_standby_takes_over_and_the_former_leader_is_fenced(
    tmp_path: Path, postgresql: PostgreSQL, twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net(tmp_path, postgresql.database(), twins)
    await net.start_agents()
    net.write_plan()
    try:
        first = net.controller(1)
        await ready(first)
        second = net.controller(2)
        await until(lambda: found(second) == 4)
        assert ask(second) is None
        ask(first)
        await until(lambda: len(net.agents["ckms-a"].paths) == 2)
        former = first.leadership.epoch
        assert former is not None
        freeze(monkeypatch, first)
        await ready(second)
        epoch = second.leader().epoch
        assert epoch is not None
        assert epoch > former
        assert {agent.installed.high.epoch for agent in net.agents.values()} == {epoch}
        assert ask(second).refusal is None
        await until(lambda: second.demands() and second.demands()[0].paths)
        assert sorted(net.ways()) == [VIA_D, VIA_M]
    finally:
        await net.close()


def freeze(monkeypatch: pytest.MonkeyPatch, service: ControllerService) -> None:
    """The controller's lease is not renewed any more, though it lives."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(service.leadership, "_do", never)


async def test_a_database_that_is_older_than_the_nodes_gives_nothing_out_again(net: Net) -> None:
    for number, agent in enumerate(net.agents.values()):
        agent.installed.high = HighWater(epoch=9 + number, serial=5_000, doubt=False)
    service = net.controller()
    await until(lambda: (term := service.term) and all(map(term.steering.is_ready, net.agents)), 30.0)
    epoch = service.leader().epoch
    assert epoch is not None
    assert epoch >= 9 + number
    assert "database-behind-nodes" in [name for name, _ in alarms(service)]
    ask(service)
    await until(lambda: len(net.agents["ckms-a"].paths) == 2)
    assert all(agent.installed.high.epoch == epoch for agent in net.agents.values())
    assert all(agent.installed.high.serial > 5_000 for agent in net.agents.values())
