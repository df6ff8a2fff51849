"""The controller that leads is found and asked, for what this node's AKMS needs and only for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from keyhaul.identity.names import Role, ServiceName, node_id
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.path import PathRefusal, PathReply, PathRequest
from keyhaul.transport.messages.relay import Submit
from keyhaul.transport.operations import OPERATIONS, PATH_REQUEST, permitted
from services.ckms.asking import Asking
from services.ckms.choice import PathChoice
from services.ckms.held import Held
from services.ckms.policing import Police
from services.ckms.requesting import LONGEST_PAUSE, SETTLING, PathRequests
from tests.keyhaul.transport.house import House
from tests.keyhaul.transport.pki import Pki, service
from tests.services.ckms.stated import Leader, Memory, accept, make, path


class Controller:
    """One of the controllers, as far as a CKMS sees it."""

    def __init__(self, node: str) -> None:
        self.peer = ServiceName("test.example", Role.CONTROLLER, node_id(node))
        self.asked: list[PathRequest] = []
        self.leads = False
        self.away = False
        self.refusal: PathRefusal | None = None
        self.slow = asyncio.Event()
        self.slow.set()

    async def call(self, operation: Any, request: PathRequest, *, deadline: float) -> PathReply:
        assert operation is PATH_REQUEST
        self.asked.append(request)
        await self.slow.wait()
        if self.away:
            raise ServiceError(ErrorCode.UNREACHABLE)
        return PathReply(refusal=self.refusal if self.leads else PathRefusal.NOT_LEADER)


class Node:
    """A CKMS at an access node that asks."""

    def __init__(self) -> None:
        self.time = 0.0
        self.looks = asyncio.Semaphore(0)
        self.looked = asyncio.Semaphore(0)
        self.controllers = [Controller("1"), Controller("2")]
        self.installed, self.table = make(hard_limit=1e6)
        self.choice = PathChoice()
        self.police = Police(self.table.places)
        self.down: set[str] = set()
        self.answers_heard = 0
        self.leader = Leader(incarnation="one")
        self.asking = Asking(
            PathRequests(bytes),
            self.controllers,  # type: ignore[arg-type]
            self.table,
            self.choice,
            self.police,
            self,
            lambda neighbour: neighbour not in self.down,
            clock=self.now,
            pause=self.pause,
        )

    @property
    def held(self) -> Mapping[int, Held]:
        return self.installed.held

    def now(self) -> float:
        return self.time

    def heard(self) -> None:
        self.answers_heard += 1

    async def pause(self, _: float) -> None:
        self.looked.release()
        await self.looks.acquire()

    async def look(self, after: float = 0.0) -> None:
        """Let it look once, and whatever it asked be answered."""
        self.time += after
        self.looks.release()
        await self.looked.acquire()
        for _ in range(10):
            await asyncio.sleep(0)

    def submit(self, destination: str = "ckms-9", service_class: str = "gold") -> None:
        request = Submit(
            batch="0" * 32, destination=destination, bits=bytes(600), service_class=service_class, remaining_ms=1_000
        )
        self.asking.submitted(request)

    def installs(self, *says: Any, lifetime: int = 1_000) -> None:
        accept(self.installed, Memory(), self.leader.say(*says, lifetime=lifetime), self.time)

    @property
    def asked(self) -> list[int]:
        return [len(controller.asked) for controller in self.controllers]


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    running = asyncio.create_task(node.asking.run())
    await node.looked.acquire()
    yield node
    running.cancel()
    await asyncio.wait([running])


async def test_the_leader_is_found_and_asked_first_from_then_on(node: Node) -> None:
    node.controllers[1].leads = True
    node.submit()
    await node.look()
    assert node.asked == [1, 1]
    assert node.answers_heard == 1
    assert node.controllers[1].asked[0].destination == "ckms-9"
    node.submit("ckms-7")
    await node.look()

    assert node.asked == [1, 2]


async def test_a_controller_that_is_away_is_passed_over(node: Node) -> None:
    node.controllers[0].away = True
    node.controllers[1].leads = True
    node.submit()
    await node.look()

    assert node.asked == [1, 1]


async def test_without_a_leader_it_is_asked_again_later_and_nothing_was_heard(node: Node) -> None:
    node.submit()
    await node.look()
    await node.look()
    assert node.asked == [1, 1]
    await node.look(after=LONGEST_PAUSE)

    assert node.asked == [2, 2]
    assert node.answers_heard == 0


async def test_a_refusal_of_the_leader_is_final_for_now_and_says_that_it_is_there(node: Node) -> None:
    node.controllers[0].leads = True
    node.controllers[0].refusal = PathRefusal.NO_CAPACITY
    node.submit()
    await node.look()

    assert node.asked == [1, 0]
    assert node.answers_heard == 1


async def test_nothing_is_asked_while_the_paths_serve(node: Node) -> None:
    node.installs(path("a", service_class="gold"), path("b", to="ckms-4", rank=1, service_class="gold"))
    node.submit()
    await node.look()
    node.down.add("ckms-3")
    await node.look()
    assert node.asked == [0, 0]
    node.choice.failed(node.table.paths_to("ckms-9", "gold")[1], 0.0, node.time)
    await node.look()

    assert node.asked == [1, 1]
    assert node.controllers[0].asked[0].failed == "ckms-3"


async def test_shares_are_asked_for_where_there_are_none(node: Node) -> None:
    node.installs(path("a", service_class="gold"))
    node.submit(service_class="split")
    await node.look()

    assert [request.service_class for request in node.controllers[0].asked] == ["split"]


async def test_a_path_is_renewed_at_half_its_lifetime(node: Node) -> None:
    node.controllers[0].leads = True
    node.installs(path("a"), lifetime=100)
    node.submit()
    await node.look(after=49.0)
    assert node.asked == [0, 0]
    await node.look(after=2.0)
    assert node.asked == [1, 0]
    node.installs(path("a"), lifetime=100)
    await node.look(after=SETTLING + 1)

    assert node.asked == [1, 0]


async def test_more_is_asked_for_when_more_is_used_than_is_granted(node: Node) -> None:
    node.controllers[0].leads = True
    node.installs(path("a", service_class="gold", rate=160.0, burst=16_384))
    node.submit()
    await node.look()
    assert node.asked == [0, 0], "95 bytes a second were used"
    node.submit()
    await node.look(after=0.25)
    assert node.asked == [1, 0]
    assert node.controllers[0].asked[0].rate == pytest.approx(200)
    node.submit()
    await node.look(after=SETTLING)
    assert node.asked == [1, 0], "not at each look"


async def test_what_this_node_refused_is_a_reason_to_ask_for_more(node: Node) -> None:
    node.controllers[0].leads = True
    node.installs(path("a", service_class="gold", rate=4_000.0, burst=16_384))
    [granted] = node.table.paths_to("ckms-9", "gold")
    place = granted.first.neighbour, granted.first.label
    node.submit()
    await node.look()
    assert node.asked == [0, 0]
    assert node.police.admits(place, granted.limit, 16_384, node.time)
    assert not node.police.admits(place, granted.limit, 600, node.time)
    await node.look()
    assert node.asked == [1, 0]
    assert node.controllers[0].asked[0].rate == 5_000.0
    await node.look(after=LONGEST_PAUSE)

    assert node.asked == [1, 0], "once for one refusal"


async def test_one_request_of_a_demand_is_under_way(node: Node) -> None:
    node.controllers[0].slow.clear()
    node.submit()
    await node.look()
    node.submit()
    await node.look(after=1.0)
    assert node.asked == [1, 0]
    node.submit("ckms-7")
    await node.look()

    assert node.asked == [2, 0]


def test_of_the_services_only_a_ckms_asks_a_controller_and_for_its_paths_alone() -> None:
    tools = {Role.VIEWER, Role.OPERATOR, Role.MANAGER}
    for operation in OPERATIONS.values():
        callers = {caller for caller in Role if permitted(operation, caller, Role.CONTROLLER)}
        if operation.name in ("path.request", "path.exposures"):
            assert callers == {Role.CKMS}
        else:
            assert callers <= tools


async def test_over_real_connections_the_leader_is_asked_and_an_akms_is_turned_away(tmp_path: Path) -> None:
    house = House(Pki.make(tmp_path))
    asked: list[tuple[str, PathRequest]] = []

    def routes(node: str, reply: PathReply) -> Routes:
        made = Routes()

        async def answer(peer: Peer, request: PathRequest) -> PathReply:
            asked.append((f"{peer.name.id} to {node}", request))
            return reply

        made.add(PATH_REQUEST, answer)
        return made

    ckms, akms = service(Role.CKMS, "2"), service(Role.AKMS, "2")
    names = [service(Role.CONTROLLER, node) for node in "12"]
    replies = [PathReply(refusal=PathRefusal.NOT_LEADER), PathReply()]
    node = Node()
    async with house.stack, asyncio.timeout(30):
        listeners = [
            await house.listener(name, routes(name.id, reply), address=f"127.232.1.{place}:0")
            for place, (name, reply) in enumerate(zip(names, replies, strict=True), 1)
        ]
        channels = [
            await house.channel(ckms, name, listener.address) for name, listener in zip(names, listeners, strict=True)
        ]
        asking = Asking(PathRequests(bytes), channels, node.table, node.choice, node.police, node, lambda _: True)
        submitted = Submit(batch="0" * 32, destination="ckms-9", bits=b"0", service_class="gold", remaining_ms=9)
        asking.submitted(submitted)
        running = asyncio.create_task(asking.run())
        await house.until(lambda: node.answers_heard == 1)
        running.cancel()
        assert [who for who, _ in asked] == ["ckms-2 to controller-1", "ckms-2 to controller-2"]
        thief = await house.channel(akms, names[1], listeners[1].address)
        request = PathRequest(destination="ckms-9", service_class="gold", rate=1.0)
        with pytest.raises(ServiceError) as refused:
            await thief.exchange(PATH_REQUEST.path, request, PathReply, deadline=5)

    assert refused.value.code is ErrorCode.FORBIDDEN
    assert [name for name, _ in house.alarms] == ["wrong-role"]
    assert len(asked) == 2
