"""Two services with a link between them, in one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from keyhaul.config.services import LinkSection, ModuleSection
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.link.core import Pace
from keyhaul.link.link import Link
from keyhaul.link.links import Links
from keyhaul.transport.interface import Routes
from keyhaul.transport.messages.base import Accepted
from keyhaul.transport.messages.relay import Acknowledge, Forward
from keyhaul.transport.operations import RELAY_FORWARD, Operation
from tests.keyhaul.link.doubles import FakeModule, FakeRuntime, MemoryStore, ModulePair, Wire

QUICK = Pace(
    disconnected=0.005,
    retry_first=0.005,
    retry_last=0.02,
    idle=0.5,
    hungry=0.005,
    fill=0.01,
    sated=0.05,
    pending=0.3,
)

KEYS = {node: MLDSA65PrivateKey.from_seed_bytes(bytes([int(node)]) * 32) for node in ("8", "9")}


def service(node: str) -> ServiceName:
    return ServiceName("qkdn.test", Role.CKMS, NodeId(node))


def section(node: str, **changes: Any) -> LinkSection:
    other = "9" if node == "8" else "8"
    settings: dict[str, Any] = {
        "id": "8-9",
        "neighbour": f"ckms-{other}",
        "initiator": node == "8",
        "peer_link_key": "unused",
        "suites": ["otp", "aes-256-gcm"],
        "floor": "aes-256-gcm",
        "pool": 8192,
        "reserve": 1024,
        "module": ModuleSection(url="", trust="", kme="", sae=f"sae-{node}", peer_sae=f"sae-{other}"),
    }
    return LinkSection(**{**settings, **changes})


class Node:
    """One end, which can crash and start again."""

    def __init__(self, node: str, modules: ModulePair, directory: Path, **changes: Any) -> None:
        self.node = node
        self.module = FakeModule(modules)
        self.store = MemoryStore()
        self.directory = directory
        self.changes = changes
        self.routes = Routes()
        self.runtime = FakeRuntime()
        self.received: list[tuple[str, bytes]] = []
        self.sessions = 0
        self.on_store_older: Callable[[], Awaitable[None]] | None = None
        self.wire: Wire
        self.links: Links
        self.link: Link

    async def start(self) -> None:
        self.routes._routes.clear()
        self.runtime = FakeRuntime()
        self.links = Links(
            service(self.node),
            self.routes,
            self.store,
            KEYS[self.node],
            self.runtime,
            pace=QUICK,
            directory=self.directory,
        )
        added = self.links.add(
            section(self.node, **self.changes),
            self.wire,
            KEYS["9" if self.node == "8" else "8"].public_key(),
            self.module,
        )
        assert isinstance(added, Link)
        self.link = added
        self.links.on_session(self._count)
        if self.on_store_older is not None:
            self.links.on_store_older(added.id, self.on_store_older)
        await self.links.start()

    async def crash(self) -> None:
        """Stop at once; what the store has not committed is lost."""
        content = self.store.snapshot()
        await self.runtime.stop()
        await self.store.close()
        self.routes._routes.clear()
        self.store = MemoryStore(content)

    def _count(self, link: Any) -> None:
        self.sessions += 1


@dataclass
class Pair:
    """The two ends."""

    a: Node
    b: Node
    modules: ModulePair

    async def start(self) -> None:
        await self.a.start()
        await self.b.start()

    async def stop(self) -> None:
        await self.a.runtime.stop()
        await self.b.runtime.stop()
        await self.a.store.close()
        await self.b.store.close()


def make_pair(directory: Path, both: dict[str, Any] | None = None, **b_changes: Any) -> Pair:
    """Two ends, not started; `b_changes` are settings of the responder alone."""
    modules = ModulePair()
    both = both or {}
    a, b = Node("8", modules, directory, **both), Node("9", modules, directory, **{**both, **b_changes})
    a.wire = Wire(service("8"), service("9"), b.routes)
    b.wire = Wire(service("9"), service("8"), a.routes)
    return Pair(a, b, modules)


ECHO: Operation[Forward, Forward] = Operation("test.echo", RELAY_FORWARD.pairs, Forward, Forward, sealed=True)

Maker = Callable[..., Awaitable[Pair]]
"""Makes two ends that serve: settings of both, then those of the responder alone."""


def serve(node: Node) -> None:
    """Take what comes one way, and answer ECHO with the secret turned round."""

    async def take(neighbour: ServiceName, request: Forward, secret: bytes) -> tuple[None, bytes]:
        node.received.append((request.label, secret))
        return None, b""

    async def echo(neighbour: ServiceName, request: Forward, secret: bytes) -> tuple[Forward, bytes]:
        node.received.append((request.label, secret))
        return request, secret[::-1]

    node.links.serve(RELAY_FORWARD, take)
    node.links.serve(ECHO, echo)


async def restart(node: Node) -> None:
    """Crash and start again, with the settings that the node has now."""
    await node.crash()
    await node.start()
    serve(node)


async def until(condition: Any, seconds: float = 5.0) -> None:
    """Give the loop turns until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


def forward(label: str = "0011223344556677") -> Forward:
    return Forward(label=label, reference="8899aabbccddeeff", batch="00" * 16, remaining_ms=1000)


def acknowledge() -> Acknowledge:
    return Acknowledge(outcomes=[])


ACCEPTED = Accepted()
