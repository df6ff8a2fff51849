"""The role `aaa`: the database, the listener, the epoch."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aaa.authorisation import GrantPolicy
from aaa.database import open_database
from aaa.service import AaaService
from keyhaul.config.loader import resolve
from keyhaul.config.services import AaaConfig
from keyhaul.database.errors import DatabaseUnusable
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import load_link_private
from keyhaul.identity.names import Role as ServiceRole
from keyhaul.identity.names import ServiceName, node_id
from keyhaul.runtime.interface import Role, Runtime, StartError
from keyhaul.transport.interface import Routes
from keyhaul.transport.listener import Listener
from keyhaul.transport.messages.base import ServiceError
from keyhaul.transport.tls import service_server


class AaaRole:
    """Authentication, authorisation and accounting for all AKMSs of a domain."""

    name = "aaa"
    config: type[Any] = AaaConfig
    schema = None

    async def run(self, config: AaaConfig, directory: Path, runtime: Runtime, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Raises:
            StartError: the identity, the grant key, the database or the address cannot be used.
        """
        own = ServiceName(config.service.domain, ServiceRole.AAA, node_id(config.service.node))
        try:
            identity = ServiceIdentity.load(config.identity, directory, own)
            key = load_link_private(resolve(directory, config.grant_key))
        except IdentityError as error:
            raise StartError(str(error)) from None
        try:
            database = await asyncio.to_thread(open_database, config.database, directory)
        except DatabaseUnusable as error:
            raise StartError(str(error)) from None
        try:
            policy = GrantPolicy(own.domain, int(config.grant_lifetime), config.grant_allowance)
            service = AaaService(database, policy, key, config.epoch, runtime, keep_days=config.keep_days)
            await _serve(service, own, config, identity, runtime, stop)
        finally:
            await asyncio.to_thread(database.close)


async def _serve(
    service: AaaService,
    own: ServiceName,
    config: AaaConfig,
    identity: ServiceIdentity,
    runtime: Runtime,
    stop: asyncio.Event,
) -> None:
    routes = Routes()
    service.serve(routes)
    try:
        await service.load()
    except ServiceError as error:
        raise StartError(f"{error.message}: see the log") from None
    listener = Listener(
        own, config.listen.address, service_server(identity), routes, registry=runtime.registry, alarm=runtime.alarm
    )
    try:
        await listener.start()
    except OSError as error:
        raise StartError(error.strerror or str(error)) from None
    running = [
        runtime.task(service.count_epochs(), "epochs"),
        runtime.task(service.purge_old(), "old rows"),
    ]
    try:
        runtime.health(lambda: {"epoch": service.epoch})
        runtime.ready()
        await stop.wait()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await listener.close()


ROLE: Role = AaaRole()
