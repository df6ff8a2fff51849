"""The role `ckms`: one carrier KMS as a process, its parts wired to sockets, store and files."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyhaul.config.loader import resolve
from keyhaul.config.services import CkmsConfig
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import load_link_public
from keyhaul.identity.names import ServiceName
from keyhaul.link.commands import LinkCommands
from keyhaul.link.links import Links
from keyhaul.randomness import identifier, random_bytes
from keyhaul.runtime.interface import Role, Runtime, StartError
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.transport.channel import Channel
from keyhaul.transport.interface import Routes
from keyhaul.transport.listener import Listener
from keyhaul.transport.tls import TlsContext, service_client, service_server
from services.ckms.agent.parts import AgentLink, Parts
from services.ckms.asking import Asking
from services.ckms.carrier import Carrier
from services.ckms.choice import PathChoice
from services.ckms.commands import Answers
from services.ckms.exposing import Exposing
from services.ckms.forwarding import ForwardingTable
from services.ckms.installed import Installed
from services.ckms.metrics import CarrierCollector, PriceCollector, SteeringCollector
from services.ckms.neighbours import Neighbours, prepare
from services.ckms.relay import Relay
from services.ckms.reloading import TABLES, Reload
from services.ckms.requesting import PathRequests
from services.ckms.schema import SCHEMA
from services.ckms.statement_store import StatementStore
from services.ckms.static import configure
from services.ckms.steering import Steering

if TYPE_CHECKING:
    from services.ckms.agent.agent import Agent

DRAIN = 2.5
"""Seconds for what is in flight when the service is stopped; the rest of its time is for closing."""

FLUSH = 0.3
"""Seconds for the last refusals to reach the neighbours, once the service does not listen any more."""


class CkmsRole:
    """Runs one carrier KMS."""

    name = "ckms"
    config: type[Any] = CkmsConfig
    schema = SCHEMA

    async def run(self, config: CkmsConfig, directory: Path, runtime: Runtime, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then refuse what is new and finish what is in flight.

        Raises:
            StartError: the identity, a key, the forwarding table or the address cannot be used.
            StoreError: the store cannot be.
        """
        own = ServiceName.of(config.service.domain, f"ckms-{config.service.node}")
        table = _forwarding(own, config)
        try:
            identity = ServiceIdentity.load(config.identity, directory, own)
            link_key = identity.link_key()
            prepared = [prepare(section, directory) for section in config.link]
            servers = [] if config.controller is None else config.controller.server
            statement_keys = [load_link_public(resolve(directory, server.statement_key)) for server in servers]
        except IdentityError as error:
            raise StartError(str(error)) from None
        async with AsyncExitStack() as closing:
            store = await EmbeddedStore.open(config.store, directory, SCHEMA)
            closing.push_async_callback(store.close)
            routes = Routes()
            links = Links(own, routes, store, link_key, runtime, directory=directory)
            tls = service_client(identity)
            neighbours = Neighbours(own, directory, identity, tls, links, runtime)
            closing.push_async_callback(neighbours.close)
            for one in prepared:
                await neighbours.join(one)
            akms, controllers = await _dial(own, config, tls, runtime, closing)
            choice = PathChoice()
            steering: Steering | None = None
            if config.controller is not None:
                limit = config.controller.hard_limit
                installed = Installed(own.id, identifier(), statement_keys, table, hard_limit=limit)
                steering = await Steering.open(installed, StatementStore(store), table, choice, runtime)
                for link in config.link:
                    links.on_store_older(link.id, steering.found_older)
                closing.push_async_callback(_end, runtime.task(steering.run(), "steering"))
            relay = Relay(table, choice, random_bytes)
            carrier = Carrier(relay, links, akms)
            carrier.serve(routes)
            if steering is not None and akms is not None:
                requests = PathRequests(random_bytes)
                runtime.registry.register(PriceCollector(requests))
                asking = Asking(
                    requests,
                    controllers,
                    table,
                    choice,
                    relay.police,
                    steering,
                    lambda to: carrier.ready(to, 0),
                )
                carrier.on_submitted = asking.submitted
                closing.push_async_callback(_end, runtime.task(asking.run(), "asking"))
                exposing = Exposing(controllers, akms, runtime, random_bytes)
                closing.push_async_callback(_end, runtime.task(exposing.run(), "exposing"))
            runtime.registry.register(CarrierCollector(relay, carrier))
            LinkCommands(links).register(runtime)
            Answers(table, choice, relay.police).register(runtime)
            if steering is not None:
                runtime.registry.register(SteeringCollector(steering))
            parts = Parts(relay, table, steering)
            agent = None if config.gnmi is None else _agent(own, neighbours.told, parts, runtime)
            runtime.on_reload(TABLES, Reload(directory, neighbours, links, parts, choice, agent).take)
            runtime.health(
                lambda: {
                    "links": links.health(),
                    "connected": {} if akms is None else {akms.peer.id: akms.connected},
                    "in_flight": relay.in_flight,
                    **({} if steering is None else {"steering": steering.health()}),
                    **({} if agent is None else {"gnmi_subscriptions": agent.subscriptions}),
                }
            )
            running = runtime.task(carrier.run(), "carrier")
            listener = Listener(
                own,
                config.listen.address,
                service_server(identity),
                routes,
                registry=runtime.registry,
                alarm=runtime.alarm,
            )
            closing.push_async_callback(links.close)
            await links.start()
            if agent is not None and config.gnmi is not None:
                await agent.start(config.gnmi, directory, identity, closing)
            closing.push_async_callback(listener.close)
            try:
                await listener.start()
            except OSError as error:
                raise StartError(error.strerror or str(error)) from None
            runtime.ready()
            await stop.wait()
            await carrier.drain(DRAIN)
            await listener.close()
            await carrier.drain(FLUSH)
            carrier.close()
            await running


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _dial(
    own: ServiceName, config: CkmsConfig, tls: TlsContext, runtime: Runtime, closing: AsyncExitStack
) -> tuple[Channel | None, list[Channel]]:
    """Dial the AKMS of this node, and the controllers where there is one; without an AKMS nobody asks for paths."""
    if config.akms is None:
        return None, []
    servers = [] if config.controller is None else config.controller.server
    channels = [
        Channel(own, ServiceName.of(own.domain, service), address, tls, registry=runtime.registry)
        for service, address in (
            (config.akms.service, config.akms.address),
            *((server.service, server.address) for server in servers),
        )
    ]
    for channel in channels:
        closing.push_async_callback(channel.close)
        await channel.start()
    return channels[0], channels[1:]


def _agent(own: ServiceName, told: list[AgentLink], parts: Parts, runtime: Runtime) -> Agent:
    # gRPC is as large as all else that a CKMS imports: only where there is an agent.
    from services.ckms.agent.agent import Agent

    return Agent(own, told, parts, runtime)


def _forwarding(own: ServiceName, config: CkmsConfig) -> ForwardingTable:
    table = ForwardingTable(own.id, [link.neighbour for link in config.link], delivers=config.akms is not None)
    configure(table, config)
    return table


ROLE: Role = CkmsRole()
