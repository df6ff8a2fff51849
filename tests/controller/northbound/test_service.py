"""What the operator's tools get over mutual TLS: all of it, in pages, for the right roles only, and nothing changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from dataclasses import replace

import pytest
from sqlalchemy import Connection

from controller import whatif
from controller.northbound import foresight, reading
from controller.northbound.interface import PathState
from controller.state import history
from controller.state.clock import wall
from controller.state.rollup import MINUTE, Key, Sample, Summary
from controller.topology import discover
from keyhaul.database.errors import DatabaseUnavailable
from keyhaul.identity.names import Role
from keyhaul.transport.listener import Listener
from keyhaul.transport.messages import foresight as foreseen
from keyhaul.transport.messages import measured, network
from keyhaul.transport.messages.base import ErrorCode, Message, ServiceError
from keyhaul.transport.operations import (
    NETWORK_DEMANDS,
    NETWORK_DISAGREEMENTS,
    NETWORK_DRYRUN,
    NETWORK_EVENTS,
    NETWORK_EXPLAIN,
    NETWORK_HISTORY,
    NETWORK_LINKS,
    NETWORK_NODES,
    NETWORK_QUARANTINE,
    NETWORK_RELEASE,
    NETWORK_RESERVATIONS,
    NETWORK_STATUS,
    NETWORK_WHATIF,
    OPERATIONS,
    Operation,
)
from tests.controller.northbound.conftest import Ask
from tests.controller.northbound.scene import CAPACITY, Scene, planned, reports
from tests.keyhaul.transport.house import House
from tests.keyhaul.transport.pki import service

DEADLINE = 10.0

NORTHBOUND = [one for one in OPERATIONS.values() if one.name.startswith("network.")]

SAMPLES: dict[type[Message], Message] = {
    network.AskEvents: network.AskEvents(after=0),
    measured.AskHistory: measured.AskHistory(link="8-9"),
    foreseen.Explain: foreseen.Explain(source="ckms-2", target="ckms-14", service_class="bronze"),
    foreseen.DryRun: foreseen.DryRun(nodes=[], links=[]),
    network.Quarantine: network.Quarantine(node="ckms-9", reason="a test"),
    network.Release: network.Release(node="ckms-9"),
}


def sample(operation: Operation[Message, Message]) -> Message:
    return SAMPLES.get(operation.request) or operation.request()


async def refused(call: Awaitable[object]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value


async def test_a_viewer_reads_all_of_the_network_and_what_is_promised(scene: Scene, tool: Ask) -> None:
    gold = scene.take_on("a" * 32, "gold", 800)
    scene.take_on("b" * 32, "bronze", 0)
    number = scene.tell("path-installed", "a" * 32, hops=3)
    viewer = await tool(Role.VIEWER)
    status = await viewer.call(NETWORK_STATUS, network.Ask(), deadline=DEADLINE)
    assert (status.leads, status.epoch, status.plan, status.nodes, status.links_up, status.silent) == (
        True,
        7,
        1,
        5,
        5,
        [],
    )
    assert (status.demands, status.unserved, status.position) == (2, 0, number)
    links = await viewer.call(NETWORK_LINKS, network.Page(), deadline=DEADLINE)
    link = {one.id: one for one in links.links}["8-9"]
    assert (link.a, link.b, link.state, link.up, link.qber, link.risk_groups) == (
        "ckms-8", "ckms-9", "found", True, 0.0213, ["bridge"],
    )  # fmt: skip
    outgoing, back = link.directions
    assert (outgoing.sender, outgoing.rate, outgoing.pool, outgoing.reserved) == ("ckms-8", 10_000, CAPACITY, 900)
    assert (back.sender, back.reserved) == ("ckms-9", 0)
    demands = await viewer.call(NETWORK_DEMANDS, network.Page(), deadline=DEADLINE)
    assert [one.id for one in demands.demands] == ["a" * 32, "b" * 32]
    assert [path.links for path in demands.demands[0].paths] == [list(path.links) for path in gold.paths]
    assert [(path.rank, path.state) for path in demands.demands[0].paths] == [(0, "installed"), (1, "installed")]
    promised = await viewer.call(NETWORK_RESERVATIONS, network.Page(), deadline=DEADLINE)
    assert [(one.link, one.sender, one.reserved) for one in promised.reservations] == [
        (link, f"ckms-{link.split('-')[0]}", 900) for link in ("2-8", "8-9", "8-16")
    ] + [("9-16", "ckms-16", 900), ("9-14", "ckms-9", 900)]
    assert promised.reservations[0].leases == [network.LeaseFacts(demand="a" * 32, service_class="gold", rate=900)]


async def test_what_is_silent_and_what_disagrees_is_told(scene: Scene, tool: Ask) -> None:
    told = reports(scene.network, 0.0, silent={"ckms-16"})
    lie = told["ckms-9"].links["ckms-8"]
    told["ckms-9"] = replace(
        told["ckms-9"], links={**told["ckms-9"].links, "ckms-8": replace(lie, facts=replace(lie.facts, rate=1e9))}
    )
    scene.found = discover(scene.network, told, 0.0, quarantined={"ckms-14"})
    viewer = await tool(Role.VIEWER)
    nodes = await viewer.call(NETWORK_NODES, network.Page(), deadline=DEADLINE)
    assert [one.id for one in nodes.nodes if one.silent] == ["ckms-16"]
    assert [one.id for one in nodes.nodes if one.quarantined] == ["ckms-14"]
    assert [one.id for one in nodes.nodes if one.access] == ["ckms-2", "ckms-14"]
    wrong = await viewer.call(NETWORK_DISAGREEMENTS, network.Page(), deadline=DEADLINE)
    assert {(one.kind, one.subject) for one in wrong.disagreements} >= {("silent", "ckms-16"), ("absurd", "8-9")}
    links = await viewer.call(NETWORK_LINKS, network.Page(start=1, most=2), deadline=DEADLINE)
    assert [(one.id, one.state, one.up) for one in links.links] == [
        ("8-9", "disagreeing", True),
        ("8-16", "unknown", False),
    ]
    assert (links.total, links.next) == (5, 3)
    assert links.links[0].disagreements[-1].said[0] == network.Said("ckms-9", "rate 1e+09")


async def test_pages_together_are_the_whole_list_once(scene: Scene, tool: Ask) -> None:
    for number in range(7):
        scene.take_on(f"{number:032x}", "bronze", 0)
    viewer = await tool(Role.VIEWER)
    start: int | None = 0
    found: list[str] = []
    while start is not None:
        page = await viewer.call(NETWORK_DEMANDS, network.Page(start=start, most=3), deadline=DEADLINE)
        found += [one.id for one in page.demands]
        start = page.next
    assert found == [one.demand.id for one in scene.kept]
    for wrong in (network.Page(start=-1), network.Page(most=0), network.Page(most=network.LARGEST_PAGE + 1)):
        error = await refused(viewer.call(NETWORK_DEMANDS, wrong, deadline=DEADLINE))
        assert error.code is ErrorCode.MALFORMED


async def test_why_a_path_is_told_with_what_else_was_looked_at(scene: Scene, tool: Ask) -> None:
    scene.take_on("a" * 32, "gold", 4_000)
    viewer = await tool(Role.VIEWER)
    asked = foreseen.Explain(source="ckms-2", target="ckms-14", service_class="gold", rate=4_800)
    told = await viewer.call(NETWORK_EXPLAIN, asked, deadline=DEADLINE)
    assert told.refusal is None
    assert [path.links for path in told.admitted] == [["2-8", "8-9", "9-14"], ["2-8", "8-16", "9-16", "9-14"]]
    assert told.shared == ["link 2-8", "link 9-14", "risk group bridge", "node ckms-8", "node ckms-9"]
    assert told.price == pytest.approx(3 * 1.125)
    assert [one.verdict for one in told.candidates] == ["chosen", "chosen as backup"]
    assert {hop.spare for hop in told.candidates[0].hops} == {10_000 - 4_500}
    more = foreseen.Explain(source="ckms-2", target="ckms-14", service_class="gold", rate=5_000)
    told = await viewer.call(NETWORK_EXPLAIN, more, deadline=DEADLINE)
    assert told.refusal == network.RefusalFacts("the rate is promised to others", 60.0)
    assert told.admitted == []
    assert told.would_open == ["rate"]
    assert told.candidates[0].hops[0].obstacle == "too little of the rate is to spare"
    faster = foreseen.Explain(source="ckms-2", target="ckms-14", service_class="gold", rate=9_000)
    told = await viewer.call(NETWORK_EXPLAIN, faster, deadline=DEADLINE)
    assert told.refusal == network.RefusalFacts("the links make less than that rate: 8888 bit/s of payload at most")
    apart = foreseen.Explain(source="ckms-2", target="ckms-14", service_class="split", rate=8)
    told = await viewer.call(NETWORK_EXPLAIN, apart, deadline=DEADLINE)
    assert told.refusal == network.RefusalFacts("there are too few paths without a common node", paths_found=1)
    assert told.would_open == ["topology"]
    assert told.candidates[0].reason == "all of these would pass ckms-8, ckms-9"
    limited = foreseen.ConstraintFacts(excluded_links=["8-9"], maximum_hops=3)
    none = foreseen.Explain(source="ckms-2", target="ckms-14", service_class="bronze", constraints=limited)
    told = await viewer.call(NETWORK_EXPLAIN, none, deadline=DEADLINE)
    assert sorted(told.would_open) == ["excluded_links", "maximum_hops"]
    for wrong, code in (
        (foreseen.Explain(source="ckms-2", target="ckms-99", service_class="gold"), ErrorCode.NOT_FOUND),
        (foreseen.Explain(source="ckms-2", target="ckms-14", service_class="platinum"), ErrorCode.NOT_FOUND),
        (foreseen.Explain(source="ckms-2", target="ckms-2", service_class="gold"), ErrorCode.MALFORMED),
        (foreseen.Explain(source="ckms-2", target="ckms-14", service_class="gold", rate=-1), ErrorCode.MALFORMED),
    ):
        assert (await refused(viewer.call(NETWORK_EXPLAIN, wrong, deadline=DEADLINE))).code is code


async def test_what_if_tells_who_is_affected_and_reserves_nothing(scene: Scene, tool: Ask) -> None:
    scene.take_on("a" * 32, "bronze", 0)
    scene.take_on("b" * 32, "gold", 800)
    before = scene.promised.leases
    viewer = await tool(Role.VIEWER)
    told = await viewer.call(NETWORK_WHATIF, foreseen.WhatIf(links=["8-9"]), deadline=DEADLINE)
    assert scene.found is not None
    assert told.version == scene.found.view.version
    assert (told.demands, told.broken) == (2, 0)
    assert (told.demands, told.fates) == (2, {"lost": 0, "rerouted": 0, "weakened": 1, "protected": 1})
    assert [(one.demand, one.fate) for one in told.outcomes] == [("b" * 32, "weakened"), ("a" * 32, "protected")]
    assert told.outcomes[0].refusal == network.RefusalFacts(
        "there is no second path: every other has links that are down"
    )
    assert [path.links for path in told.outcomes[0].after] == [["2-8", "8-16", "9-16", "9-14"]]
    assert told.islands == []
    told = await viewer.call(NETWORK_WHATIF, foreseen.WhatIf(nodes=["ckms-9"]), deadline=DEADLINE)
    assert told.fates["lost"] == 2
    assert told.islands == [["ckms-2"], ["ckms-14"]]
    error = await refused(viewer.call(NETWORK_WHATIF, foreseen.WhatIf(links=["9-17"]), deadline=DEADLINE))
    assert (error.code, error.message) == (ErrorCode.NOT_FOUND, "there is no 9-17")
    assert scene.promised.leases == before


async def test_paths_that_drain_or_are_on_their_way_do_not_count(scene: Scene, tool: Ask) -> None:
    scene.take_on("a" * 32, "bronze", 0)
    first, second = scene.kept[0].paths
    moving = (first, replace(second, rank=0, state=PathState.INSTALLING), replace(second, state=PathState.DRAINING))
    scene.kept = [replace(scene.kept[0], paths=moving)]
    viewer = await tool(Role.VIEWER)
    told = await viewer.call(NETWORK_WHATIF, foreseen.WhatIf(links=["8-16"]), deadline=DEADLINE)
    assert (told.demands, sum(told.fates.values())) == (1, 0)
    told = await viewer.call(NETWORK_WHATIF, foreseen.WhatIf(links=["8-9"]), deadline=DEADLINE)
    assert told.fates["rerouted"] == 1
    scene.kept = [replace(scene.kept[0], paths=moving[1:])]
    told = await viewer.call(NETWORK_WHATIF, foreseen.WhatIf(links=["8-16"]), deadline=DEADLINE)
    assert told.fates["rerouted"] == 1


async def test_a_dry_run_tells_what_a_changed_plan_changes(scene: Scene, tool: Ask) -> None:
    scene.take_on("b" * 32, "gold", 800)
    viewer = await tool(Role.VIEWER)

    def asked(*pairs: tuple[str, str]) -> foreseen.DryRun:
        plan = planned(pairs)
        return foreseen.DryRun(
            nodes=[
                foreseen.PlannedNodeFacts(id=one.id, access=one.access, jurisdiction=one.jurisdiction)
                for one in plan.nodes
            ],
            links=[
                foreseen.PlannedLinkFacts(
                    id=one.id,
                    a=one.a,
                    b=one.b,
                    rate=one.rate,
                    capacity=one.capacity,
                    suites=sorted(one.suites),
                    risk_groups=sorted(one.risk_groups),
                )
                for one in plan.links
            ],
        )

    detour = ("2", "8"), ("8", "16"), ("9", "16"), ("9", "14"), ("8", "7"), ("7", "9")
    told = await viewer.call(NETWORK_DRYRUN, asked(*detour), deadline=DEADLINE)
    assert [(one.what, one.id, one.change) for one in told.changes] == [
        ("link", "8-9", "removed"),
        ("node", "ckms-7", "added"),
        ("link", "8-7", "added"),
        ("link", "7-9", "added"),
    ]
    assert told.fates["protected"] == 1
    told = await viewer.call(NETWORK_DRYRUN, asked(("2", "8"), ("9", "14")), deadline=DEADLINE)
    assert told.fates["lost"] == 1
    twice = asked(("2", "8"))
    twice.nodes *= 2
    error = await refused(viewer.call(NETWORK_DRYRUN, twice, deadline=DEADLINE))
    assert (error.code, error.message) == (ErrorCode.MALFORMED, "a node is there twice")


async def test_events_are_waited_for_and_come_once_in_order(scene: Scene, tool: Ask) -> None:
    viewer = await tool(Role.VIEWER)
    first = scene.tell("link-down", "8-9")
    told = await viewer.call(NETWORK_EVENTS, network.AskEvents(after=0), deadline=DEADLINE)
    assert [(one.number, one.kind, one.subject) for one in told.events] == [(first, "link-down", "8-9")]
    waiting = asyncio.ensure_future(
        viewer.call(NETWORK_EVENTS, network.AskEvents(after=first, wait_ms=9_000), deadline=DEADLINE)
    )
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    second = scene.tell("link-up", "8-9", rate=7)
    assert [(one.number, one.facts) for one in (await waiting).events] == [(second, {"rate": 7})]
    told = await viewer.call(NETWORK_EVENTS, network.AskEvents(after=second, wait_ms=1), deadline=DEADLINE)
    assert told.events == []
    error = await refused(viewer.call(NETWORK_EVENTS, network.AskEvents(after=second + 1), deadline=DEADLINE))
    assert error.code is ErrorCode.CONFLICT


async def test_events_of_another_controller_are_found_without_being_told(
    scene: Scene, tool: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "POLL", 0.01)
    viewer = await tool(Role.VIEWER)
    waiting = asyncio.ensure_future(
        viewer.call(NETWORK_EVENTS, network.AskEvents(after=0, wait_ms=9_000), deadline=DEADLINE)
    )
    silent, scene._told = scene._told, asyncio.Event()
    scene.tell("leader", "controller-17")
    assert len((await waiting).events) == 1
    assert not silent.is_set()


async def test_an_operator_puts_a_node_into_quarantine_and_takes_it_out(scene: Scene, tool: Ask) -> None:
    operator = await tool(Role.OPERATOR)
    scene.take_on("1" * 32, "silver", 100)
    asked = network.Quarantine(node="ckms-16", reason="seal broken")
    assert (await operator.call(NETWORK_QUARANTINE, asked, deadline=DEADLINE)).exposed == 1
    status = await operator.call(NETWORK_STATUS, network.Ask(), deadline=DEADLINE)
    assert status.quarantined == {"ckms-16": "seal broken"}
    for expected in (True, False):
        reply = await operator.call(NETWORK_RELEASE, network.Release(node="ckms-16"), deadline=DEADLINE)
        assert reply.was_quarantined is expected
    unknown = network.Quarantine(node="ckms-99", reason="typing error")
    assert (await refused(operator.call(NETWORK_QUARANTINE, unknown, deadline=DEADLINE))).code is ErrorCode.NOT_FOUND
    silent = network.Quarantine(node="ckms-16", reason="")
    assert (await refused(operator.call(NETWORK_QUARANTINE, silent, deadline=DEADLINE))).code is ErrorCode.MALFORMED


async def test_a_controller_that_stands_by_changes_nothing_and_says_who_leads(scene: Scene, tool: Ask) -> None:
    scene.leads = False
    operator = await tool(Role.OPERATOR)
    asked = network.Quarantine(node="ckms-16", reason="seal broken")
    error = await refused(operator.call(NETWORK_QUARANTINE, asked, deadline=DEADLINE))
    assert (error.code, error.message) == (
        ErrorCode.CONFLICT,
        "this controller does not lead; 127.233.0.16:7446 does",
    )
    status = await operator.call(NETWORK_STATUS, network.Ask(), deadline=DEADLINE)
    assert (status.leads, status.epoch, status.quarantined) == (False, None, {})


@pytest.mark.parametrize("name", ["demands", "reservations", "explain", "whatif", "dryrun"])
async def test_what_is_promised_only_the_leader_tells(scene: Scene, tool: Ask, name: str) -> None:
    scene.leads = False
    viewer = await tool(Role.VIEWER)
    operation = OPERATIONS[f"network.{name}"]
    error = await refused(viewer.call(operation, sample(operation), deadline=DEADLINE))
    assert error.code is ErrorCode.CONFLICT
    assert "127.233.0.16:7446 does" in error.message


async def test_who_leads_and_for_how_long_is_told_though_the_database_is_away(
    scene: Scene, tool: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = await tool(Role.VIEWER)

    async def fails() -> int:
        raise DatabaseUnavailable("gone")

    async def hangs() -> int:
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(reading, "PATIENCE", 0.01)
    for position in (fails, hangs):
        monkeypatch.setattr(scene, "position", position)
        status = await viewer.call(NETWORK_STATUS, network.Ask(), deadline=DEADLINE)
        assert (status.leads, status.led_s, status.position, status.database) == (True, 125.0, 0, False)


async def test_the_past_of_a_link_is_told_by_minute_of_both_directions(scene: Scene, tool: Ask) -> None:
    def write(connection: Connection) -> int:
        start = int(wall(connection) // 60) * 60
        for minutes, sender, rate in (
            (0, "ckms-9", 300.0),
            (1, "ckms-8", 100.0),
            (1, "ckms-9", 200.0),
            (9, "ckms-8", 1.0),
        ):
            sample = Sample("8-9", sender, rate != 200, rate, 8 * rate, 0.0007, None if minutes else 0.02)
            key = Key("8-9", sender, start - 60 * minutes)
            history.write(connection, MINUTE, 1, {key: Summary.of(sample)})
        return start

    start = scene.database.transact(write)
    viewer = await tool(Role.VIEWER)
    asked = measured.AskHistory(link="8-9", periods=5)
    told = (await viewer.call(NETWORK_HISTORY, asked, deadline=DEADLINE)).periods
    assert [(one.start - start, one.sender, one.rate, one.availability, one.qber) for one in told] == [
        (-60, "ckms-8", 100.0, 1.0, None),
        (-60, "ckms-9", 200.0, 0.0, None),
        (0, "ckms-9", 300.0, 1.0, 0.02),
    ]
    by_day = measured.AskHistory(link="8-9", by="day")
    assert (await viewer.call(NETWORK_HISTORY, by_day, deadline=DEADLINE)).periods == []
    error = await refused(viewer.call(NETWORK_HISTORY, measured.AskHistory(link="8-99"), deadline=DEADLINE))
    assert (error.code, error.message) == (ErrorCode.NOT_FOUND, "there is no link 8-99")


async def test_the_links_that_break_a_path_are_told(scene: Scene, tool: Ask) -> None:
    scene.take_on("a" * 32, "gold", 800)
    assert scene.found is not None
    view = scene.found.view
    scene.found = replace(scene.found, view=view.changed([replace(view.link("8-9"), up=False)]))
    viewer = await tool(Role.VIEWER)
    (told,) = (await viewer.call(NETWORK_DEMANDS, network.Page(), deadline=DEADLINE)).demands
    assert [path.down for path in told.paths] == [["8-9"], []]


async def test_before_the_first_look_at_the_network_nothing_is_made_up(scene: Scene, tool: Ask) -> None:
    scene.found = None
    viewer = await tool(Role.VIEWER)
    assert (await viewer.call(NETWORK_STATUS, network.Ask(), deadline=DEADLINE)).nodes == 0
    error = await refused(viewer.call(NETWORK_LINKS, network.Page(), deadline=DEADLINE))
    assert (error.code, error.retry_after_ms) == (ErrorCode.BUSY, 1_000)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.CONTROLLER])
async def test_no_other_role_gets_anything(role: Role, house: House, listener: Listener, scene: Scene) -> None:
    """The listener decides, so the caller is one that asks for what its role must not."""
    changes = {"network.quarantine", "network.release"}
    channel = await house.channel(service(role, "7"), service(Role.CONTROLLER, "16"), listener.address)
    forbidden = 0
    for operation in NORTHBOUND:
        if role is Role.OPERATOR or (role in (Role.VIEWER, Role.MANAGER) and operation.name not in changes):
            continue
        error = await refused(channel.exchange(operation.path, sample(operation), operation.reply, deadline=DEADLINE))
        assert (operation.name, error.code) == (operation.name, ErrorCode.FORBIDDEN)
        forbidden += 1
    assert forbidden == {Role.OPERATOR: 0, Role.VIEWER: 2, Role.MANAGER: 2}.get(role, len(NORTHBOUND))
    assert [name for name, _ in house.alarms] == ["wrong-role"] * forbidden
    assert scene.quarantined() == {}


async def test_questions_wait_for_one_another_and_further_ones_are_refused(
    scene: Scene, tool: Ask, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.take_on("a" * 32, "bronze", 0)
    begun, go_on = threading.Event(), threading.Event()

    def held(*_: object) -> list[object]:
        begun.set()
        assert go_on.wait(10)
        return []

    monkeypatch.setattr(foresight.Foresight, "_judged", held)
    viewer = await tool(Role.VIEWER)
    asked = [
        asyncio.ensure_future(viewer.call(NETWORK_WHATIF, foreseen.WhatIf(links=["8-9"]), deadline=DEADLINE))
        for _ in range(foresight.QUEUED)
    ]
    await house.until(begun.is_set)
    error = await refused(viewer.call(NETWORK_WHATIF, foreseen.WhatIf(links=["8-9"]), deadline=DEADLINE))
    assert error.code is ErrorCode.BUSY
    assert (await viewer.call(NETWORK_STATUS, network.Ask(), deadline=DEADLINE)).leads
    go_on.set()
    assert {reply.demands for reply in await asyncio.gather(*asked)} == {1}


async def test_a_computation_that_nobody_waits_for_is_given_up(
    scene: Scene, tool: Ask, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []
    go_on = threading.Event()

    def endless(*_: object) -> object:
        while len(looked_at) < 1_000_000:
            looked_at.append(1)
            go_on.wait(0.002)
            yield None

    monkeypatch.setattr(whatif, "judge", endless)
    viewer = await tool(Role.VIEWER)
    error = await refused(viewer.call(NETWORK_WHATIF, foreseen.WhatIf(links=["8-9"]), deadline=0.2))
    assert error.code is ErrorCode.DEADLINE
    monkeypatch.undo()
    told = await viewer.call(NETWORK_WHATIF, foreseen.WhatIf(links=["8-9"]), deadline=DEADLINE)
    assert told.demands == 0
