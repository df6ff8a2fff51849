"""Modules with real sockets, and clients of theirs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyhaul.config.services import ModuleConfig
from keyhaul.randomness import random_bytes
from keyhaul.transport.etsi014 import Client014
from keyhaul.transport.tls import classic_client
from services.qkdm.module import Module
from services.qkdm.receiving import ReceivingModule
from services.qkdm.transmitting import TransmittingModule
from tests.services.qkdm.authority import Authority


@dataclass(frozen=True)
class Laboratory:
    """The files of one link between SAEs `kms-a` and `kms-b`."""

    directory: Path
    modules: Authority
    kms: Authority

    def config(self, end: str, **changes: Any) -> ModuleConfig:
        """The configuration of the module at end `a` (transmitter) or `b`."""
        other = {"a": "b", "b": "a"}[end]
        config = ModuleConfig(
            link="a-b",
            address="127.0.0.1:0",
            kme=f"kme-{end}",
            peer_kme=f"kme-{other}",
            sae=f"kms-{end}",
            peer_sae=f"kms-{other}",
            certificate=f"kme-{end}.crt",
            key=f"kme-{end}.key",
            trust="kms.pem",
            channel="channel",
            transmitter=end == "a",
            rate=256_000.0,
            block=1_024,
            stock=0.02,
            capacity=4_096,
        )
        return msgspec.structs.replace(config, **changes)

    def client(self, module: Module, sae: str, *, expected_kme: str | None = None) -> Client014:
        """A client with the certificate of an SAE."""
        host, port = module.address
        tls = classic_client(self.directory / f"{sae}.crt", self.directory / f"{sae}.key", self.modules.trust)
        return Client014(f"https://{host}:{port}", tls, expected_kme=expected_kme or module.config.kme)

    def module(self, end: str, **changes: Any) -> Module:
        """A module that is not started."""
        kind = TransmittingModule if end == "a" else ReceivingModule
        return kind(self.config(end, **changes), self.directory, random_bytes, asyncio.get_running_loop().time)

    @asynccontextmanager
    async def running(self, end: str, **changes: Any) -> AsyncIterator[Module]:
        """A module that serves."""
        module = self.module(end, **changes)
        await module.start()
        task = asyncio.create_task(module.run())
        try:
            yield module
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await module.close()

    @asynccontextmanager
    async def pair(self, **changes: Any) -> AsyncIterator[tuple[Module, Module, Client014, Client014]]:
        """Both modules in step with keys for both directions, and a client of each."""
        async with AsyncExitStack() as stack:
            a = await stack.enter_async_context(self.running("a", **changes))
            b = await stack.enter_async_context(self.running("b", **changes))
            clients = self.client(a, "kms-a"), self.client(b, "kms-b")
            for client in clients:
                stack.push_async_callback(client.close)
            yield a, b, *clients


@pytest.fixture
def laboratory() -> Iterator[Laboratory]:
    with tempfile.TemporaryDirectory(prefix="qkdm") as name:
        directory = Path(name)
        modules, kms = Authority(directory, "modules"), Authority(directory, "kms")
        for end in "ab":
            modules.issue(f"kme-{end}", server=True)
            kms.issue(f"kms-{end}")
        yield Laboratory(directory, modules, kms)


async def until(condition: Callable[[], bool | Awaitable[bool]], deadline: float = 10.0) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(deadline):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.005)
