"""Listeners and channels over real sockets, as tests use them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.names import ServiceName
from keyhaul.transport.channel import Channel, ChannelSettings
from keyhaul.transport.dialling import DialSettings
from keyhaul.transport.interface import Routes
from keyhaul.transport.listener import Listener, ListenerSettings
from keyhaul.transport.tls import service_client, service_server
from tests.keyhaul.transport.pki import Pki

QUICK = ChannelSettings(dial=DialSettings(patience=10.0, first_delay=0.005, longest_delay=0.02, settled=0.0))


class House:
    """Listeners and channels of one test, closed at its end."""

    def __init__(self, pki: Pki) -> None:
        self.pki = pki
        self.stack = contextlib.AsyncExitStack()
        self.registry = CollectorRegistry()
        self.alarms: list[tuple[str, dict[str, Any]]] = []

    async def listener(
        self,
        own: ServiceName,
        routes: Routes | None = None,
        *,
        identity: ServiceIdentity | None = None,
        settings: ListenerSettings | None = None,
        address: str = "127.0.0.1:0",
    ) -> Listener:
        identity = identity or self.pki.identity(own)
        listener = Listener(
            own,
            address,
            service_server(identity),
            routes or Routes(),
            registry=self.registry,
            alarm=lambda name, **facts: self.alarms.append((name, facts)),
            settings=settings,
        )
        await listener.start()
        self.stack.push_async_callback(listener.close)
        return listener

    async def channel(
        self,
        own: ServiceName,
        peer: ServiceName,
        address: str,
        *,
        identity: ServiceIdentity | None = None,
        settings: ChannelSettings | None = None,
    ) -> Channel:
        identity = identity or self.pki.identity(own)
        channel = Channel(own, peer, address, service_client(identity), settings=settings or QUICK)
        await channel.start()
        self.stack.push_async_callback(channel.close)
        return channel

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop run until something is so."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.002)
