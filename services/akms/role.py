"""The role `akms`: one access KMS as a process, its parts wired to sockets, store and files."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from keyhaul.config.loader import resolve
from keyhaul.config.services import AkmsConfig, LinkSection, PeerSection
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import load_link_public
from keyhaul.identity.names import MalformedName, ServiceName, node_id
from keyhaul.identity.names import Role as ServiceRole
from keyhaul.link.commands import LinkCommands
from keyhaul.link.interface import LinkCalls
from keyhaul.link.links import Links
from keyhaul.runtime.interface import Role, Runtime, StartError
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import StoreError
from keyhaul.transport.channel import Channel
from keyhaul.transport.etsi014 import Client014
from keyhaul.transport.interface import Routes
from keyhaul.transport.listener import Listener
from keyhaul.transport.tls import classic_client, service_client, service_server
from services.akms.commands import Answers
from services.akms.service import AccessKms, Terms
from services.akms.tables import SCHEMA


class AkmsRole:
    """Runs one access KMS."""

    name = "akms"
    config: type[Any] = AkmsConfig

    async def run(self, config: AkmsConfig, directory: Path, runtime: Runtime, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Raises:
            StartError: the identity, a key, the store or the address cannot be used.
        """
        own = ServiceName(config.service.domain, ServiceRole.AKMS, node_id(config.service.node))
        async with AsyncExitStack() as closing:
            try:
                identity = ServiceIdentity.load(config.identity, directory, own)
                link_key, signing_key = identity.link_key(), identity.signing_key()
                aaa_key = load_link_public(resolve(directory, config.aaa_key))
                neighbours = [load_link_public(resolve(directory, link.peer_link_key)) for link in config.link]
                store = await EmbeddedStore.open(config.store, directory, SCHEMA)
            except (IdentityError, StoreError) as error:
                raise StartError(str(error)) from None
            closing.push_async_callback(store.close)
            if not isinstance(signing_key, MLDSA65PrivateKey):
                raise StartError(f"{identity.key} is not an ML-DSA-65 key: an AKMS signs what it hands over")
            routes = Routes()
            listener = Listener(
                own,
                config.listen.address,
                service_server(identity),
                routes,
                registry=runtime.registry,
                alarm=runtime.alarm,
            )
            tls = service_client(identity)
            channels = {
                section.service: Channel(
                    own, _name(own.domain, section.service), section.address, tls, registry=runtime.registry
                )
                for section in _dialled(config)
            }
            peers = {section.service: channels[section.service] for section in config.peer}
            links = Links(own, routes, store, link_key, runtime, directory=directory)
            for section, key in zip(config.link, neighbours, strict=True):
                module = _module(section, directory, identity)
                closing.push_async_callback(module.close)
                reverse = listener.reverse(_name(own.domain, section.neighbour))
                links.add(section, calls=reverse, peer_key=key, module=module)
            terms = Terms(config.key_lifetime, config.guard, config.requests_per_peer, config.pool)
            service = AccessKms(
                own,
                terms,
                store,
                links,
                channels[config.ckms.service],
                channels[config.aaa.service],
                peers,
                aaa_key,
                signing_key,
                runtime,
            )
            service.serve(routes)
            links.on_session(lambda link: service.returned(link.neighbour.id))
            for channel in channels.values():
                closing.push_async_callback(channel.close)
                await channel.start()
            closing.push_async_callback(links.close)
            await links.start()
            closing.push_async_callback(service.close)
            await service.start()
            closing.push_async_callback(listener.close)
            try:
                await listener.start()
            except OSError as error:
                raise StartError(str(error)) from None
            LinkCommands(links).register(runtime)
            Answers(service).register(runtime)
            runtime.health(lambda: service.health() | _health(links.all(), channels))
            runtime.ready()
            await stop.wait()


def _dialled(config: AkmsConfig) -> list[PeerSection]:
    return [config.ckms, config.aaa, *config.peer]


def _name(domain: str, service: str) -> ServiceName:
    """A service's name from its id, e.g. ``ckms-8``."""
    role, _, node = service.partition("-")
    try:
        return ServiceName(domain, ServiceRole(role), node_id(node))
    except (ValueError, MalformedName):
        raise StartError(f"{service!r} is not a service id, e.g. ckms-8") from None


def _module(section: LinkSection, directory: Path, identity: ServiceIdentity) -> Client014:
    if identity.classic_certificate is None or identity.classic_key is None:
        raise StartError("the QKD modules need classic_certificate and classic_key in the table [identity]")
    trust = resolve(directory, section.module.trust)
    tls = classic_client(identity.classic_certificate, identity.classic_key, trust)
    return Client014(section.module.url, tls, expected_kme=section.module.kme)


def _health(links: list[LinkCalls], channels: dict[str, Channel]) -> dict[str, Any]:
    return {
        "links_up": sum(link.up for link in links),
        "links": len(links),
        "connected": {name: channel.connected for name, channel in channels.items()},
    }


ROLE: Role = AkmsRole()
