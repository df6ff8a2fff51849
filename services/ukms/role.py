"""The role `ukms`: one user KMS as a process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from keyhaul.config.loader import resolve
from keyhaul.config.services import UkmsConfig
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import load_link_public
from keyhaul.identity.names import KmeId, ServiceName, node_id
from keyhaul.identity.names import Role as RoleName
from keyhaul.link.commands import LinkCommands
from keyhaul.link.links import Links
from keyhaul.link.module import module_client
from keyhaul.randomness import Source, random_bytes
from keyhaul.runtime.interface import Role, Runtime, StartError
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.transport.channel import Channel
from keyhaul.transport.interface import Routes
from keyhaul.transport.reverse import ReverseChannel
from keyhaul.transport.tls import classic_server, service_client
from services.ukms.access import Akms, Deliveries
from services.ukms.buffer import Policy
from services.ukms.commands import Answers
from services.ukms.kme import Kme
from services.ukms.metrics import Metrics
from services.ukms.opening import Opening
from services.ukms.schema import SCHEMA
from services.ukms.server import SaeServer
from services.ukms.standing import Standing
from services.ukms.supply import Supply
from services.ukms.terms import Terms
from services.ukms.upkeep import Upkeep
from services.ukms.vault import Vault

FINISH_SECONDS = 2.0
"""At a stop, for requests that run; those that wait for keys are answered 503 after it."""


class UkmsRole:
    """Runs one user KMS."""

    name = "ukms"
    config: type[Any] = UkmsConfig
    schema = SCHEMA

    def __init__(self, source: Source = random_bytes, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._clock = clock

    async def run(self, config: UkmsConfig, directory: Path, runtime: Runtime, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Raises:
            StartError: the identity or an address cannot be used.
            StoreError: the store cannot be.
        """
        own = ServiceName(config.service.domain, RoleName.UKMS, node_id(config.service.node))
        akms_name = ServiceName(own.domain, RoleName.AKMS, node_id(config.akms.service.removeprefix("akms-")))
        async with AsyncExitStack() as closing:
            try:
                identity = ServiceIdentity.load(config.identity, directory, own)
                link_key = identity.link_key()
                akms_key = load_link_public(resolve(directory, config.link.peer_link_key))
                store = await EmbeddedStore.open(config.store, directory, SCHEMA)
            except IdentityError as error:
                raise StartError(str(error)) from None
            closing.push_async_callback(store.close)
            tls = service_client(identity)
            routes = Routes()
            channel = Channel(own, akms_name, config.akms.address, tls, registry=runtime.registry)
            reverse = ReverseChannel(
                own, akms_name, config.akms.address, tls, routes, registry=runtime.registry, alarm=runtime.alarm
            )
            module = module_client(config.link, directory, identity)
            closing.push_async_callback(module.close)
            links = Links(own, routes, store, link_key, runtime, source=self._source, directory=directory)
            link = links.add(config.link, calls=channel, peer_key=akms_key, module=module)

            metrics = Metrics(runtime.registry)
            vault = Vault(store, self._clock)
            standing = Standing(store)
            akms = Akms(link, standing)
            terms = Terms(store, akms.describe, self._clock)
            supply = Supply(
                vault,
                akms.request,
                terms.doubt,
                Policy(config.buffer.minimum, config.buffer.maximum, config.buffer.horizon),
                metrics,
                source=self._source,
                clock=self._clock,
                expecting=link.expecting,
            )
            kme = Kme(
                KmeId(config.sae.kme),
                terms,
                supply,
                vault,
                metrics,
                standing,
                patience=config.request_timeout,
                clock=self._clock,
            )
            opening = Opening(store, akms, standing, supply, terms, metrics, runtime.alarm)
            upkeep = Upkeep(vault, akms, supply, standing, opening, metrics, runtime.alarm)
            server = SaeServer(
                kme,
                metrics,
                classic_server(
                    resolve(directory, config.sae.certificate),
                    resolve(directory, config.sae.key),
                    resolve(directory, config.sae.trust),
                    None if config.sae.crl is None else resolve(directory, config.sae.crl),
                    config.sae.minimum_tls,
                ),
                config.sae.address,
                maximum_connections=config.sae.maximum_connections,
            )
            await terms.load()
            Deliveries(supply, terms, vault, standing).serve(link)
            links.on_store_older(config.link.id, opening.found_older)
            links.on_session(lambda _link: upkeep.new_session())
            closing.push_async_callback(_end, runtime.task(supply.run(), "supply"))
            closing.push_async_callback(_end, runtime.task(upkeep.run(), "upkeep"))
            for start, close in (
                (channel.start, channel.close),
                (reverse.start, reverse.close),
                (links.start, links.close),
                (server.start, server.close),
            ):
                closing.push_async_callback(close)
                await start()
            LinkCommands(links).register(runtime)
            Answers(supply).register(runtime)
            runtime.health(
                lambda: {
                    "open": standing.is_open,
                    "links": links.health(),
                    "connected": {config.akms.service: channel.connected and reverse.connected},
                }
            )
            runtime.ready()
            await stop.wait()
            await server.drain(FINISH_SECONDS)
            supply.close()
            await supply.give_back()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


ROLE: Role = UkmsRole()
