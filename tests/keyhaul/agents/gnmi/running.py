"""A target on a real socket."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from keyhaul.agents.gnmi.client import Client
from keyhaul.agents.gnmi.errors import Refused
from keyhaul.agents.gnmi.limits import Limits
from keyhaul.agents.gnmi.peers import Peers, Rpc
from keyhaul.agents.gnmi.target import Target, serve
from keyhaul.identity.names import ServiceName
from keyhaul.transport.tls import TlsFiles
from tests.keyhaul.agents.gnmi.carrier import Carrier
from tests.keyhaul.agents.gnmi.pki import CKMS, CONTROLLER, DOMAIN, Twins

_HOSTS = itertools.count(1)
LIMITS = Limits(look=0.02, fresh=0.0, revalidate=0.05)


@dataclass
class Running:
    twins: Twins
    carrier: Carrier
    files: TlsFiles
    target: Target
    server: grpc.aio.Server
    host: str
    port: int
    refusals: list[tuple[Rpc, ServiceName | None, Refused]]
    limits: Limits
    clients: list[Client] = field(default_factory=list)

    @classmethod
    async def start(cls, twins: Twins, carrier: Carrier, limits: Limits = LIMITS) -> Running:
        host = f"127.230.{next(_HOSTS) % 250}.0"
        port = free_port(host)
        files = twins.files(CKMS)
        refusals: list[tuple[Rpc, ServiceName | None, Refused]] = []
        target = Target(
            carrier.tree,
            Peers(files, DOMAIN),
            limits=limits,
            refused=lambda rpc, peer, refused: refusals.append((rpc, peer, refused)),
        )
        server = await serve(target, f"{host}:{port}", files, limits)
        return cls(twins, carrier, files, target, server, host, port, refusals, limits)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def client(
        self, name: ServiceName = CONTROLLER, *, files: TlsFiles | None = None, peer: ServiceName = CKMS
    ) -> Client:
        client = Client(self.address, peer, files or self.twins.files(name))
        self.clients.append(client)
        return client

    async def stop(self) -> None:
        for client in self.clients:
            await client.close()
        await self.server.stop(None)
        await self.target.finish()


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def within(work: Awaitable[Any], seconds: float = 10.0) -> Any:
    async with asyncio.timeout(seconds):
        return await work
