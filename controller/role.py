"""The role `controller`: the database, gNMI to every CKMS, and the listener for CKMSs and operators."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import structlog

from controller.metrics import ControllerCollector
from controller.northbound.service import Northbound
from controller.paths.policies import Policy
from controller.plan_file import Plan, PlanFile
from controller.requests import PathRequests
from controller.service import ControllerService
from controller.state.database import open_database
from keyhaul.config.loader import resolve
from keyhaul.config.problems import ConfigurationError
from keyhaul.config.services import ControllerConfig
from keyhaul.database.errors import DatabaseUnusable
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import load_link_private
from keyhaul.identity.names import ServiceName
from keyhaul.runtime.interface import Role, Runtime, StartError
from keyhaul.transport.interface import Routes
from keyhaul.transport.listener import Listener
from keyhaul.transport.tls import TlsFiles, service_server

log = structlog.get_logger(__name__)


class ControllerRole:
    """Sees the links of all CKMSs, and steers where they relay keys."""

    name = "controller"
    config: type[Any] = ControllerConfig
    schema = None

    async def run(self, config: ControllerConfig, directory: Path, runtime: Runtime, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Raises:
            StartError: the identity, the statement key, the plan, the database or the address cannot be used.
        """
        own = ServiceName.of(config.service.domain, f"controller-{config.service.node}")
        try:
            identity = ServiceIdentity.load(config.identity, directory, own)
            key = load_link_private(resolve(directory, config.statement_key))
        except IdentityError as error:
            raise StartError(str(error)) from None
        files = _gnmi_files(config, directory, identity)
        plan_file = PlanFile(resolve(directory, config.plan))
        plan = _read(plan_file)
        try:
            database = await asyncio.to_thread(open_database, config.database, directory)
        except DatabaseUnusable as error:
            raise StartError(str(error)) from None
        try:
            service = ControllerService(
                own,
                database,
                config.listen.address,
                key,
                files,
                (plan_file, plan),
                Policy(config.policy),
                runtime,
            )
            if not database.shared:
                log.info("this controller is alone: its database is a file; two or more share a PostgreSQL database")
            await _serve(service, own, config, identity, runtime, stop)
        finally:
            await asyncio.to_thread(database.close)


async def _serve(
    service: ControllerService,
    own: ServiceName,
    config: ControllerConfig,
    identity: ServiceIdentity,
    runtime: Runtime,
    stop: asyncio.Event,
) -> None:
    routes = Routes()
    PathRequests(service.wanted, service.exposing.of, runtime.registry).serve(routes)
    northbound = Northbound(routes, service, time.monotonic, Policy(config.policy))
    runtime.registry.register(ControllerCollector(service))
    runtime.health(service.health)
    listener = Listener(
        own, config.listen.address, service_server(identity), routes, registry=runtime.registry, alarm=runtime.alarm
    )
    try:
        await listener.start()
    except OSError as error:
        raise StartError(error.strerror or str(error)) from None
    running = runtime.task(service.run(), "controller")
    try:
        runtime.ready()
        await stop.wait()
    finally:
        northbound.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await listener.close()


def _gnmi_files(config: ControllerConfig, directory: Path, identity: ServiceIdentity) -> TlsFiles:
    if identity.classic_certificate is None or identity.classic_key is None:
        raise StartError("[identity] classic_certificate and classic_key are missing: gNMI needs them")
    return TlsFiles(identity.classic_certificate, identity.classic_key, resolve(directory, config.gnmi.trust))


def _read(plan_file: PlanFile) -> Plan:
    try:
        return plan_file.read()
    except ConfigurationError as error:
        raise StartError(str(error)) from None


ROLE: Role = ControllerRole()
"""What the entry point `keyhaul.roles` names."""
