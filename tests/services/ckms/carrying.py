"""A carrier between links and an AKMS that do what a test lets them do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from keyhaul.identity.names import Role, ServiceName, node_id
from keyhaul.link.interface import DirectionStatus, LinkStatus
from keyhaul.randomness import random_bytes
from keyhaul.transport.interface import Routes
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.operations import CARRIER_DELIVER, CARRIER_OUTCOME, RELAY_ACKNOWLEDGE, RELAY_FORWARD
from services.ckms.carrier import Carrier
from services.ckms.choice import PathChoice
from services.ckms.forwarding import ForwardingTable
from services.ckms.relay import Relay


def service(role: Role, node: str) -> ServiceName:
    return ServiceName("keyhaul.example", role, node_id(node))


AKMS = service(Role.AKMS, "2")
PREVIOUS = service(Role.CKMS, "1")
NEXT = service(Role.CKMS, "3")


@dataclass
class FakeLink:
    """A link that takes messages when the test lets it."""

    neighbour: ServiceName
    up: bool = True
    process: bytes = b"the neighbour's"
    suite: str = "aes-256-gcm"
    payload: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    failure: ErrorCode | None = None
    sent: asyncio.Queue[tuple[Any, int]] = field(default_factory=asyncio.Queue)
    attempts: int = 0
    expected: int = 0

    def __post_init__(self) -> None:
        self.open.set()

    @property
    def id(self) -> str:
        return self.neighbour.node

    async def send(
        self, operation: Any, request: Any, secret: bytes = b"", *, deadline: float, stream: Any = None
    ) -> None:
        assert operation in (RELAY_FORWARD, RELAY_ACKNOWLEDGE)
        assert deadline > 0
        length = len(secret)
        self.attempts += 1
        await self.open.wait()
        if self.failure is not None:
            raise ServiceError(self.failure)
        self.sent.put_nowait((request, length))

    async def call(self, *_arguments: Any, **_keywords: Any) -> Any:
        raise AssertionError("the carrier sends one way")

    @contextmanager
    def expecting(self) -> Iterator[None]:
        self.expected += 1
        yield
        self.expected -= 1

    def serve(self, operation: Any, handler: Any) -> None:
        raise AssertionError("the carrier serves on all links at once")

    def status(self) -> LinkStatus:
        direction = DirectionStatus(self.payload, 0, 0, 0, 0)
        return LinkStatus(
            link=self.id,
            neighbour=self.neighbour.id,
            state="up",
            suite=self.suite,
            suites=(self.suite,),
            connected=True,
            sessions_total=1,
            rejected_total=0,
            outgoing=direction,
            incoming=direction,
            floor=self.suite,
            configured=(self.suite,),
            chosen=False,
        )


class FakeLinks:
    """Links to two neighbours and to one on a detour."""

    def __init__(self) -> None:
        names = (PREVIOUS, NEXT, service(Role.CKMS, "16"))
        self.links = {name.id: FakeLink(name) for name in names}
        self.handlers: dict[str, Any] = {}

    def serve(self, operation: Any, handler: Any) -> None:
        self.handlers[operation.name] = handler

    def to(self, service_id: str) -> FakeLink:
        return self.links[service_id]


class FakeAkms:
    """The AKMS of the node."""

    peer = AKMS
    connected = True

    def __init__(self) -> None:
        self.got: asyncio.Queue[Any] = asyncio.Queue()
        self.failures: list[ErrorCode] = []

    async def call(self, operation: Any, request: Any, *, deadline: float) -> Accepted:
        assert operation in (CARRIER_DELIVER, CARRIER_OUTCOME)
        assert deadline > 0
        if self.failures:
            raise ServiceError(self.failures.pop(0))
        self.got.put_nowait(request)
        return Accepted()

    async def exchange(self, *_arguments: Any, **_keywords: Any) -> Any:
        raise AssertionError("nothing is sealed between AKMS and CKMS")

    def expecting(self) -> AbstractContextManager[None]:
        raise AssertionError("the carrier waits for answers of its AKMS, not for messages")

    async def lost(self) -> None:
        raise AssertionError("the carrier waits for answers of its AKMS, not for messages")

    async def peer_certificate(self) -> None:
        return None


class Carried:
    """A carrier that runs in between, and what it sends."""

    def __init__(self, table: ForwardingTable, links: FakeLinks, **times: Any) -> None:
        self.links, self.akms = links, FakeAkms()
        self.relay = Relay(table, PathChoice(), random_bytes)
        self.carrier = Carrier(self.relay, links, self.akms, **times)  # type: ignore[arg-type]
        self.routes = Routes()
        self.carrier.serve(self.routes)

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.carrier.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.carrier.close()
        async with asyncio.timeout(5):
            await self._running

    async def sent_to(self, neighbour: str) -> Any:
        async with asyncio.timeout(5):
            return (await self.links.to(neighbour).sent.get())[0]

    async def told(self) -> Any:
        async with asyncio.timeout(5):
            return await self.akms.got.get()
