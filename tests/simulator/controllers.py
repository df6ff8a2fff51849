"""The controller as a simulated process: the whole service, over a simulated database and simulated gNMI."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Connection

from controller.paths.policies import Policy
from controller.plan_file import Plan, PlanFile
from controller.planned import PlannedLink, PlannedNetwork, PlannedNode
from controller.requests import PathRequests
from controller.service import ControllerService
from controller.state import schema
from controller.state.schema import COUNTERS, LEASE
from keyhaul.database.database import Database
from keyhaul.database.errors import OutcomeUnknown
from keyhaul.store.interface import StoreUnavailable
from keyhaul.transport.tls import TlsFiles
from tests.simulator.disk import Disk
from tests.simulator.loop import SimulatedLoop
from tests.simulator.processes import SimulatedProcess

if TYPE_CHECKING:
    from tests.simulator.world import World

Result = TypeVar("Result")

WALL = 1_790_000_000.0
"""What the database's clock shows when the loop's shows 0."""


def database(store_id: str, loop: SimulatedLoop) -> Disk:
    """What the controllers keep: a disk of their own, which all of them use where there are several."""
    disk = Disk(schema.metadata, store_id)

    def fill(connection: Connection) -> None:
        rows = [{"name": name, "value": value} for name, value in COUNTERS.items()]
        connection.execute(schema.counters.insert(), rows)
        connection.execute(schema.lease.insert().values(name=LEASE, holder="", address="", epoch=0, beat=0))

    for _, error in disk.transact(fill):
        assert error is None
    disk.begin_from_here()
    raw: sqlite3.Connection = disk.raw
    raw.create_function("julianday", 1, lambda _now: (WALL + loop.time()) / 86_400 + 2_440_587.5)
    return disk


class SimulatedDatabase:
    """One controller's way to the database: `keyhaul.database.database.Database`."""

    def __init__(self, process: ControllerProcess, *, shared: bool) -> None:
        self.shared = shared
        self._process = process

    async def run(self, work: Callable[[Connection], Result], *, deadline: float = 10.0) -> Result:
        """See `Database`: what was begun is carried out, whoever gives up."""
        try:
            async with asyncio.timeout(deadline):
                if self._process.name.id in self._process.world.offline:
                    await asyncio.Event().wait()
                return await self._process.store.write(work)
        except TimeoutError:
            raise OutcomeUnknown("no answer in time") from None
        except StoreUnavailable as error:
            raise OutcomeUnknown(str(error)) from None


class ControllerProcess(SimulatedProcess):
    """A controller."""

    metadata = schema.metadata
    service: ControllerService

    def make_disk(self) -> Disk:
        """That of all controllers."""
        return self.world.database

    async def begin(self) -> None:
        """See `ControllerRole`."""
        world = self.world
        network = planned(world)
        service = ControllerService(
            self.name,
            cast(Database, SimulatedDatabase(self, shared=len(world.controllers) > 1)),
            f"{self.name.id}:4500",
            world.private_key(f"statements {self.name.id}"),
            cast(TlsFiles, self),
            (cast(PlanFile, Unchanging()), Plan(network, "0" * 64)),
            Policy.RESIDUAL,
            cast(Any, self.runtime),
            clock=self.clock,
            since_boot=self.clock,
            source=self.source,
        )
        PathRequests(service.wanted, service.exposing.of, self.runtime.registry, clock=self.clock).serve(self.routes)
        self.runtime.task(service.run(), "controller")
        self.service = service


class Unchanging:
    """A plan that stays as it is."""

    def changed(self) -> bool:
        """Never."""
        return False


def planned(world: World) -> PlannedNetwork:
    """What the operator planned: all carrier KMSs and their links."""
    nodes = tuple(
        PlannedNode(service, access=f"akms-{service[5:]}" in world.services, target=service)
        for service in world.services
        if service.startswith("ckms")
    )
    plans = [plan for ends, plan in world.plans.items() if all(end.startswith("ckms") for end in ends)]
    return PlannedNetwork(
        nodes,
        tuple(
            PlannedLink(
                plan.id,
                plan.initiator,
                plan.other,
                quantum=plan.quantum,
                rate=round(plan.modules.bits),
                capacity=8 * (plan.pool + plan.reserve),
                suites=frozenset(plan.suites),
            )
            for plan in plans
        ),
    )
