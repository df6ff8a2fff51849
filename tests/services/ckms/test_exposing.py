"""What the leading controller says is exposed is told to the AKMS until it has acted, and goes on being told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from keyhaul.identity.names import Role, ServiceName, node_id
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.path import AskExposures, Exposures, PathRefusal
from keyhaul.transport.messages.relay import MOST_EXPOSURES, Exposed, Exposure
from keyhaul.transport.operations import CARRIER_EXPOSED, OPERATIONS, PATH_EXPOSURES, permitted
from services.ckms.exposing import LOOK, Exposing

ONE = Exposure("1" * 32, "ckms-2", "silver", sends=True, over=False)


class Controller:
    """One of the controllers."""

    def __init__(self) -> None:
        self.exposures: list[Exposure] | None = []
        """None: another one leads."""
        self.mark = "none"
        self.error: ErrorCode | None = None
        self.asked: list[str] = []

    async def call(self, operation: Any, request: AskExposures, *, deadline: float) -> Exposures:
        assert operation is PATH_EXPOSURES
        self.asked.append(request.known)
        if self.error is not None:
            raise ServiceError(self.error)
        if self.exposures is None:
            return Exposures(refusal=PathRefusal.NOT_LEADER)
        return Exposures(mark=self.mark, exposures=None if request.known == self.mark else self.exposures)

    def say(self, mark: str, *exposures: Exposure) -> None:
        self.mark, self.exposures = mark, list(exposures)


class Akms:
    """The AKMS of the node."""

    def __init__(self) -> None:
        self.peer = ServiceName("test.example", Role.AKMS, node_id("1"))
        self.told: list[list[Exposure]] = []
        self.error: ErrorCode | None = None

    async def call(self, operation: Any, request: Exposed, *, deadline: float) -> Accepted:
        assert operation is CARRIER_EXPOSED
        if self.error is not None:
            raise ServiceError(self.error)
        self.told.append(msgspec.json.decode(msgspec.json.encode(request), type=Exposed).exposures)
        return Accepted()


class Node:
    """A CKMS beside an AKMS."""

    def __init__(self) -> None:
        self.controllers = [Controller(), Controller()]
        self.controllers[0].exposures = None
        self.akms = Akms()
        self.alarms: list[tuple[str, dict[str, Any]]] = []
        self.waits: list[float] = []
        self.go_on = asyncio.Semaphore(0)
        self.idle = asyncio.Semaphore(0)
        calls: Any = self.controllers
        akms: Any = self.akms
        self.exposing = Exposing(calls, akms, self, lambda count: b"\x80" * count, pause=self.pause)

    def alarm(self, name: str, **facts: Any) -> None:
        self.alarms.append((name, facts))

    async def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.idle.release()
        await self.go_on.acquire()

    async def look(self) -> list[list[Exposure]]:
        """Let it ask and tell once; return what was told."""
        self.akms.told.clear()
        self.go_on.release()
        await self.idle.acquire()
        return list(self.akms.told)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    running = asyncio.create_task(node.exposing.run())
    await node.idle.acquire()
    yield node
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_nothing_is_told_where_nothing_is_exposed(node: Node) -> None:
    assert await node.look() == []
    assert node.controllers[1].asked == ["", "none"]
    assert len(node.controllers[0].asked) == 1, "who leads is asked first from then on"
    assert all(LOOK / 2 <= seconds <= 1.5 * LOOK for seconds in node.waits)


async def test_what_is_exposed_is_told_again_and_again_though_the_controller_says_it_once(node: Node) -> None:
    node.controllers[1].say("a", ONE)
    assert await node.look() == [[ONE]]
    assert await node.look() == [[ONE]]
    assert node.controllers[1].asked[-1] == "a"
    over = msgspec.structs.replace(ONE, over=True)
    node.controllers[1].say("b", over)
    assert await node.look() == [[over]]


@pytest.mark.parametrize("error", [ErrorCode.UNREACHABLE, ErrorCode.NOT_FOUND, ErrorCode.BUSY])
async def test_without_a_controller_that_leads_what_was_said_last_holds(node: Node, error: ErrorCode) -> None:
    node.controllers[1].say("a", ONE)
    await node.look()
    node.controllers[1].error = error
    assert await node.look() == [[ONE]]
    node.controllers[1].error, node.controllers[1].exposures = None, None
    assert await node.look() == [[ONE]]
    node.controllers[0].say("b")
    assert await node.look() == [], "another leads, and says that nothing is exposed any more"


async def test_a_new_leader_that_says_the_same_is_asked_for_nothing(node: Node) -> None:
    node.controllers[1].say("a", ONE)
    await node.look()
    node.controllers[1].exposures = None
    node.controllers[0].say("a", ONE)
    assert await node.look() == [[ONE]]
    assert node.controllers[0].asked[-1] == "a"


async def test_an_akms_that_is_away_is_told_when_it_is_back(node: Node) -> None:
    node.controllers[1].say("a", ONE)
    node.akms.error = ErrorCode.UNREACHABLE
    assert await node.look() == []
    node.akms.error = None
    assert await node.look() == [[ONE]]
    assert node.alarms == []


async def test_an_akms_of_the_release_before_is_an_alarm_and_is_told_once_it_is_upgraded(node: Node) -> None:
    node.controllers[1].say("a", ONE)
    node.akms.error = ErrorCode.NOT_FOUND
    for _ in range(3):
        await node.look()
    assert node.alarms == [("exposures-not-taken", {"code": ErrorCode.NOT_FOUND, "exposures": 1})]
    node.akms.error = None
    assert await node.look() == [[ONE]]
    node.akms.error = ErrorCode.NOT_FOUND
    await node.look()
    assert len(node.alarms) == 2


async def test_many_are_told_in_several_messages(node: Node) -> None:
    several = [msgspec.structs.replace(ONE, id=f"{number:032}") for number in range(MOST_EXPOSURES + 1)]
    node.controllers[1].say("a", *several)
    assert await node.look() == [several[:MOST_EXPOSURES], several[MOST_EXPOSURES:]]


def test_only_a_ckms_asks_controllers_and_tells_its_akms() -> None:
    for operation, pair in ((PATH_EXPOSURES, (Role.CKMS, Role.CONTROLLER)), (CARRIER_EXPOSED, (Role.CKMS, Role.AKMS))):
        for caller in Role:
            for server in Role:
                assert permitted(OPERATIONS[operation.name], caller, server) is ((caller, server) == pair)


def test_what_crosses_names_no_sae_ukms_or_node_between() -> None:
    reply = msgspec.json.encode(Exposures(mark="a", exposures=[ONE]))
    assert set(msgspec.json.decode(reply)["exposures"][0]) == {"id", "other", "service_class", "sends", "over"}
    older = msgspec.json.decode(b'{"v":1}', type=Exposures)
    assert (older.refusal, older.exposures) == (None, None), "a reply without anything changes nothing"
