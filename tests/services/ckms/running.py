"""Carrier KMSs as roles, in the process of the test, and the AKMSs that they see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from keyhaul.config.loader import load
from keyhaul.config.services import AkmsConfig, CkmsConfig, QkdmConfig
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.names import Role, ServiceName, node_id
from keyhaul.runtime.interface import LocalCommand, Take
from keyhaul.transport.channel import Channel
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.listener import Listener
from keyhaul.transport.messages.base import Accepted
from keyhaul.transport.messages.relay import Deliver, Outcome, RelayFailure, Submit
from keyhaul.transport.operations import CARRIER_DELIVER, CARRIER_OUTCOME, CARRIER_SUBMIT
from keyhaul.transport.tls import service_client, service_server
from services.ckms.role import ROLE as CKMS
from services.qkdm.role import ROLE as QKDM


class FakeRuntime:
    """The process around a role."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.serving = asyncio.Event()
        self.commands: dict[str, LocalCommand] = {}
        self.alarms: list[str] = []
        self.take: Take | None = None
        self.check: Callable[[], dict[str, Any]] = dict

    def task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work, name=name)

    def alarm(self, name: str, **facts: Any) -> None:
        self.alarms.append(name)

    def on_reload(self, tables: Iterable[str], take: Take) -> None:
        self.take = take

    def ready(self) -> None:
        self.serving.set()

    def health(self, check: Callable[[], dict[str, Any]]) -> None:
        self.check = check

    def command(self, name: str, answer: LocalCommand) -> None:
        self.commands[name] = answer


class Access:
    """The AKMS of a node, as far as its CKMS sees it."""

    def __init__(self, network: Path, node: str) -> None:
        directory = network / "nodes" / node / "akms"
        config = load(directory / "config.toml", AkmsConfig)
        self.name = ServiceName(config.service.domain, Role.AKMS, node_id(node))
        identity = ServiceIdentity.load(config.identity, directory, self.name)
        self.delivered: asyncio.Queue[Deliver] = asyncio.Queue()
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        routes = Routes()
        routes.add(CARRIER_DELIVER, self._deliver)
        routes.add(CARRIER_OUTCOME, self._outcome)
        ckms = ServiceName(self.name.domain, Role.CKMS, node_id(node))
        self.listener = Listener(self.name, config.listen.address, service_server(identity), routes)
        self.channel = Channel(self.name, ckms, config.ckms.address, service_client(identity))

    async def _deliver(self, peer: Peer, message: Deliver) -> Accepted:
        self.delivered.put_nowait(message)
        return Accepted()

    async def _outcome(self, peer: Peer, message: Outcome) -> Accepted:
        self.outcomes.put_nowait(message)
        return Accepted()

    async def carry(self, destination: str, batch: str, bits: bytes) -> RelayFailure | None:
        request = Submit(batch=batch, destination=destination, bits=bits, service_class="gold", remaining_ms=5_000)
        await self.channel.call(CARRIER_SUBMIT, request, deadline=5)
        outcome = await self.outcomes.get()
        assert outcome.batch == batch
        return outcome.failure


async def start(role: Any, config: Any, directory: Path, stack: AsyncExitStack) -> FakeRuntime:
    runtime, stop = FakeRuntime(), asyncio.Event()
    running = asyncio.create_task(role.run(config, directory, runtime, stop))
    serving = asyncio.create_task(runtime.serving.wait())
    async with asyncio.timeout(60):
        await asyncio.wait({running, serving}, return_when=asyncio.FIRST_COMPLETED)
    serving.cancel()
    if running.done():
        await running

    async def end() -> None:
        stop.set()
        async with asyncio.timeout(30):
            await running

    stack.push_async_callback(end)
    return runtime


async def start_row(network: Path, stack: AsyncExitStack) -> tuple[dict[str, Access], dict[str, FakeRuntime]]:
    """Start the row a – m – b with the AKMSs of its ends; node d, on the detour, does not run.

    Returns the AKMSs and the CKMSs, once they are connected and the links have pads.
    """
    access = {node: Access(network, node) for node in "ab"}
    for akms in access.values():
        await akms.listener.start()
        stack.push_async_callback(akms.listener.close)
        await akms.channel.start()
        stack.push_async_callback(akms.channel.close)
    for node in "amb":
        directory = network / "nodes" / node / "qkdm"
        config = load(directory / "config.toml", QkdmConfig)
        config.module = [module for module in config.module if module.link in ("a-m", "m-b")]
        await start(QKDM, config, directory, stack)
    runtimes = {}
    for node in "amb":
        directory = network / "nodes" / node / "ckms"
        runtimes[node] = await start(CKMS, load(directory / "config.toml", CkmsConfig), directory, stack)
    async with asyncio.timeout(60):
        while not all([await filled(runtime) for runtime in runtimes.values()]):
            await asyncio.sleep(0.02)
        while not all(akms.channel.connected for akms in access.values()):
            await asyncio.sleep(0.02)
    return access, runtimes


async def filled(runtime: FakeRuntime) -> bool:
    """Whether the links of the row are up and have pads in both directions."""
    row = [link for link in (await runtime.commands["links"]({}))["links"] if link["link"] in ("a-m", "m-b")]
    return all(
        link["state"] == "up" and link["connected"] and link[direction]["payload_available"] >= 16_384
        for link in row
        for direction in ("outgoing", "incoming")
    )
