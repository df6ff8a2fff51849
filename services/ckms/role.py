"""The role `ckms`: one carrier KMS as a process, its parts wired to sockets, store and files."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from keyhaul.config.loader import resolve
from keyhaul.config.services import CkmsConfig, ForwardingEntry, PathSection
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import load_link_public
from keyhaul.identity.names import ServiceName
from keyhaul.link.commands import LinkCommands
from keyhaul.link.links import Links
from keyhaul.link.module import module_client
from keyhaul.randomness import identifier, random_bytes
from keyhaul.runtime.interface import Role, Runtime, StartError
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.transport.channel import Channel
from keyhaul.transport.interface import Routes
from keyhaul.transport.listener import Listener
from keyhaul.transport.tls import service_client, service_server
from services.ckms.agent.parts import AgentLink, Parts
from services.ckms.asking import Asking
from services.ckms.carrier import Carrier
from services.ckms.choice import PathChoice
from services.ckms.commands import Answers
from services.ckms.forwarding import Entry, ForwardingTable, Hop, InvalidForwarding, PathLabel
from services.ckms.forwarding import Path as CarrierPath
from services.ckms.installed import Installed
from services.ckms.metrics import CarrierCollector, SteeringCollector
from services.ckms.policing import Limit
from services.ckms.relay import Relay
from services.ckms.requesting import PathRequests
from services.ckms.schema import SCHEMA
from services.ckms.statement_store import StatementStore
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
            peer_keys = [load_link_public(resolve(directory, link.peer_link_key)) for link in config.link]
            servers = [] if config.controller is None else config.controller.server
            statement_keys = [load_link_public(resolve(directory, server.statement_key)) for server in servers]
        except IdentityError as error:
            raise StartError(str(error)) from None
        async with AsyncExitStack() as closing:
            store = await EmbeddedStore.open(config.store, directory, SCHEMA)
            closing.push_async_callback(store.close)
            routes = Routes()
            links = Links(own, routes, store, link_key, runtime, directory=directory)
            channels, told = await _join(own, config, directory, identity, links, peer_keys, runtime, closing)
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
            akms = channels[config.akms.service] if config.akms is not None else None
            carrier = Carrier(relay, links, akms)
            carrier.serve(routes)
            if steering is not None and akms is not None:
                controllers = [channels[server.service] for server in servers]
                asking = Asking(
                    PathRequests(random_bytes), controllers, table, choice, steering, lambda to: carrier.ready(to, 0)
                )
                carrier.on_submitted = asking.submitted
                closing.push_async_callback(_end, runtime.task(asking.run(), "asking"))
            runtime.registry.register(CarrierCollector(relay, carrier))
            LinkCommands(links).register(runtime)
            Answers(table, choice, relay.police).register(runtime)
            if steering is not None:
                runtime.registry.register(SteeringCollector(steering))
            agent = None if config.gnmi is None else _agent(own, told, Parts(relay, table, steering), runtime)
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


async def _join(
    own: ServiceName,
    config: CkmsConfig,
    directory: Path,
    identity: ServiceIdentity,
    links: Links,
    peer_keys: list[MLDSA65PublicKey],
    runtime: Runtime,
    closing: AsyncExitStack,
) -> tuple[dict[str, Channel], list[AgentLink]]:
    """Dial the neighbours, and the AKMS of this node with the controllers; make a link to each neighbour.

    Returns who is dialled, and the links.
    """
    tls = service_client(identity)
    channels: dict[str, Channel] = {}
    told: list[AgentLink] = []
    for section, peer_key in zip(config.link, peer_keys, strict=True):
        if section.address is None:
            raise StartError(f"link {section.id}: a CKMS dials its neighbours: give the neighbour's address")
        neighbour = ServiceName.of(own.domain, section.neighbour)
        channel = Channel(own, neighbour, section.address, tls, registry=runtime.registry)
        channels[section.neighbour] = channel
        module = module_client(section, directory, identity)
        closing.push_async_callback(module.close)
        told.append(AgentLink(section, links.add(section, channel, peer_key, module), module, channel))
    if config.akms is not None:
        akms = ServiceName.of(own.domain, config.akms.service)
        channels[config.akms.service] = Channel(own, akms, config.akms.address, tls, registry=runtime.registry)
        for server in [] if config.controller is None else config.controller.server:
            controller = ServiceName.of(own.domain, server.service)
            channels[server.service] = Channel(own, controller, server.address, tls, registry=runtime.registry)
    for channel in channels.values():
        closing.push_async_callback(channel.close)
        await channel.start()
    return channels, told


def _agent(own: ServiceName, told: list[AgentLink], parts: Parts, runtime: Runtime) -> Agent:
    # gRPC is as large as all else that a CKMS imports: only where there is an agent.
    from services.ckms.agent.agent import Agent

    return Agent(own, told, parts, runtime)


def _forwarding(own: ServiceName, config: CkmsConfig) -> ForwardingTable:
    neighbours = [link.neighbour for link in config.link]
    table = ForwardingTable(own.id, neighbours, delivers=config.akms is not None)
    if config.path and config.akms is None:
        raise StartError("paths start only where an AKMS is: give the table [akms], or take out [[path]]")
    try:
        table.replace(map(_entry, config.entry), map(_path, config.path))
    except InvalidForwarding as error:
        raise StartError("the forwarding table has errors:\n" + "\n".join(error.errors)) from None
    return table


def _entry(section: ForwardingEntry) -> Entry:
    if (section.next is None) != (section.next_label is None):
        raise StartError(f"entry {section.label} from {section.previous}: next and next_label belong together")
    onward = None
    if section.next is not None and section.next_label is not None:
        onward = Hop(section.next, PathLabel(section.next_label))
    limit = Limit(section.rate, section.burst)
    return Entry(PathLabel(section.label), section.previous, onward, section.service_class, limit)


def _path(section: PathSection) -> CarrierPath:
    first = Hop(section.next, PathLabel(section.label))
    limit = Limit(section.rate, section.burst)
    return CarrierPath(section.destination, section.rank, first, section.service_class, limit)


ROLE: Role = CkmsRole()
