"""The role `akms`: one access KMS as a process, its parts wired to sockets, store and files."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from keyhaul.config.loader import resolve
from keyhaul.config.services import AkmsConfig, PeerSection
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import load_link_public
from keyhaul.identity.names import Role as ServiceRole
from keyhaul.identity.names import ServiceName, node_id
from keyhaul.link.commands import LinkCommands
from keyhaul.link.links import Links
from keyhaul.link.module import module_client
from keyhaul.runtime.interface import Role, Runtime, StartError
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.transport.channel import Channel
from keyhaul.transport.interface import Routes
from keyhaul.transport.listener import Listener
from keyhaul.transport.tls import service_client, service_server
from services.akms.commands import Answers
from services.akms.service import AccessKms, Terms
from services.akms.tables import SCHEMA

RENEWAL_LOOK = 1.0
"""Seconds between looks at the identity's files."""


class AkmsRole:
    """Runs one access KMS."""

    name = "akms"
    config: type[Any] = AkmsConfig
    schema = SCHEMA

    async def run(self, config: AkmsConfig, directory: Path, runtime: Runtime, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Raises:
            StartError: the identity, a key or the address cannot be used.
            StoreError: the store cannot be.
        """
        own = ServiceName(config.service.domain, ServiceRole.AKMS, node_id(config.service.node))
        async with AsyncExitStack() as closing:
            try:
                identity = ServiceIdentity.load(config.identity, directory, own)
                link_key, signing_key = identity.link_key(), identity.signing_key()
                aaa_key = load_link_public(resolve(directory, config.aaa_key))
                neighbours = [load_link_public(resolve(directory, link.peer_link_key)) for link in config.link]
                store = await EmbeddedStore.open(config.store, directory, SCHEMA)
            except IdentityError as error:
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
                    own, ServiceName.of(own.domain, section.service), section.address, tls, registry=runtime.registry
                )
                for section in _dialled(config)
            }
            peers = {section.service: channels[section.service] for section in config.peer}
            links = Links(own, routes, store, link_key, runtime, directory=directory)
            for section, key in zip(config.link, neighbours, strict=True):
                module = module_client(section, directory, identity)
                closing.push_async_callback(module.close)
                reverse = listener.reverse(ServiceName.of(own.domain, section.neighbour))
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
            runtime.health(
                lambda: (
                    service.health()
                    | {
                        "links": links.health(),
                        "connected": {name: channel.connected for name, channel in channels.items()},
                    }
                )
            )
            runtime.task(_follow_renewals(identity, service, list(peers.values())), "renewed certificates")
            runtime.ready()
            await stop.wait()


async def _follow_renewals(identity: ServiceIdentity, service: AccessKms, peers: list[Channel]) -> None:
    """Sign with the key of the certificate in force: other AKMSs check with the certificate of our connection."""
    seen = _stamp(identity)
    while True:
        await asyncio.sleep(RENEWAL_LOOK)
        stamp = _stamp(identity)
        if stamp == seen:
            continue
        seen = stamp
        try:
            key, leaf = identity.signing_key(), identity.certificates()[0].public_key()
        except IdentityError:
            continue
        if isinstance(leaf, MLDSA65PublicKey) and leaf.public_bytes_raw() == key.public_key().public_bytes_raw():
            left = [peer.redial() for peer in peers]
            service.renew(key)
            await asyncio.gather(*left)


def _stamp(identity: ServiceIdentity) -> tuple[tuple[int, int] | None, ...]:
    return tuple(_changed(path) for path in (identity.certificate, identity.key))


def _changed(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino


def _dialled(config: AkmsConfig) -> list[PeerSection]:
    return [config.ckms, config.aaa, *config.peer]


ROLE: Role = AkmsRole()
