"""The controller: telemetry, topology, the lease and, while it is held, a term; what is asked of it comes here."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from controller.admission.reservations import Reservations
from controller.in_force import LOOK, InForce
from controller.installing import Node, Result
from controller.northbound.interface import DemandAsKept, Leader
from controller.overview import kept
from controller.paths.policies import Policy
from controller.plan_file import Plan, PlanFile
from controller.planned import PlannedNetwork
from controller.recording import record
from controller.state import events, plans
from controller.state.events import Event
from controller.state.leading import Leadership
from controller.state.lease import Terms
from controller.steering.steering import Steering
from controller.telemetry import NodeState, Telemetry
from controller.term import Around, Term
from controller.topology import Discovery
from controller.watching import Watching, counted
from keyhaul.database.database import Database
from keyhaul.identity.names import ServiceName
from keyhaul.randomness import random_bytes
from keyhaul.runtime.interface import Runtime
from keyhaul.transport.messages.path import PathReply
from keyhaul.transport.tls import TlsFiles

log = structlog.get_logger(__name__)

FAREWELL = 2.0
"""Seconds for the lease to be given back when the service is stopped; else it ends by itself."""


class ControllerService:
    """One controller. `run` does the work; everything else may be called while it runs.

    Args:
        own: this controller.
        database: the controllers'.
        address: where this one serves.
        key: signs statements.
        files: for gNMI.
        plan: the planned network's file, with what was read from it.
        policy: by which paths are chosen.
        runtime: the process around.
        terms: of the lease.
    """

    def __init__(
        self,
        own: ServiceName,
        database: Database,
        address: str,
        key: MLDSA65PrivateKey,
        files: TlsFiles,
        plan: tuple[PlanFile, Plan],
        policy: Policy,
        runtime: Runtime,
        terms: Terms | None = None,
    ) -> None:
        self._database = database
        self._runtime = runtime
        self._policy = policy
        self._incarnations: dict[str, str] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self.outcomes: Counter[Result] = Counter()
        """What became of what was told to nodes, over all terms."""
        self._leading: asyncio.Task[None] | None = None
        self.term: Term | None = None
        """While this controller leads."""
        self.telemetry = Telemetry(
            own.domain, files, urgent=self._urgent, joined=self._joined, lost=lambda _node: self.watching.look()
        )
        self.watching = Watching(lambda: self.telemetry.reports, runtime.alarm)
        self.leadership = Leadership(database, address, terms or Terms(), gained=self._gained, lost=self._lost)
        self._in_force = InForce(plan, database, self.leadership, self.watching.quarantine, self._follow, runtime.alarm)
        self._around = Around(
            self.leadership,
            key,
            self._telling,
            self._reach,
            alarm=runtime.alarm,
            told=self._event_told,
            outcomes=self.outcomes,
        )

    async def run(self) -> None:
        """Watch, and lead while the lease is held, until cancelled; then give the lease back."""
        self.watching.on_seen(self._seen)
        self._follow(self._in_force.plan.network)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.watching.run(), name="discovery")
                group.create_task(self.leadership.run(), name="lease")
                group.create_task(self._in_force.run(), name="plan")
                group.create_task(self._attend(), name="telemetry")
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    await self.leadership.close()
            if self._leading is not None:
                await asyncio.gather(self._leading, return_exceptions=True)
            await self.telemetry.close()

    # What CKMSs ask

    def wanted(
        self, source: str, destination: str, service_class: str, rate: float, failed: str | None
    ) -> PathReply | None:
        """Take on what a CKMS wants; None: this controller does not lead."""
        term = self.term
        if term is None or not self._leads:
            return None
        reply = term.steering.wanted(source, destination, service_class, rate, failed, time.monotonic())
        term.drain()
        return reply

    # What operators ask (`controller.northbound.interface.Controller`)

    def leader(self) -> Leader:
        """See `Controller.leader`."""
        leads, leadership = self._leads, self.leadership
        return Leader(leads, leadership.epoch if leads else None, leadership.leader.address, leadership.alone)

    def plan_version(self) -> int:
        """See `Controller.plan_version`."""
        return self._in_force.version

    def discovery(self) -> Discovery | None:
        """See `Controller.discovery`."""
        return self.watching.discovery

    def reservations(self) -> Reservations:
        """See `Controller.reservations`."""
        return Reservations() if self.term is None else self.term.steering.reservations

    def demands(self) -> Sequence[DemandAsKept]:
        """See `Controller.demands`."""
        return () if self.term is None else kept(self.term.steering.served, time.monotonic())

    def quarantined(self) -> Mapping[str, str]:
        """See `Controller.quarantined`."""
        return self._in_force.quarantined

    async def position(self) -> int:
        """See `Controller.position`."""
        return await self._database.run(events.position)

    async def events(self, after: int, most: int) -> Sequence[Event]:
        """See `Controller.events`."""
        return await self._database.run(partial(events.after, number=after, most=most))

    async def event_told(self) -> None:
        """See `Controller.event_told`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    async def quarantine(self, node: str, reason: str) -> None:
        """See `Controller.quarantine`."""

        def write(connection: Any) -> dict[str, str]:
            plans.quarantine(connection, node, reason)
            events.tell(connection, "node-quarantined", node, {"reason": reason})
            return plans.quarantined(connection)

        self._in_force.quarantine(await self.leadership.transact(write))
        self._event_told()

    async def release(self, node: str) -> bool:
        """See `Controller.release`."""

        def write(connection: Any) -> tuple[bool, dict[str, str]]:
            was = plans.release(connection, node)
            if was:
                events.tell(connection, "node-released", node, {})
            return was, plans.quarantined(connection)

        was, quarantined = await self.leadership.transact(write)
        self._in_force.quarantine(quarantined)
        self._event_told()
        return was

    def health(self) -> dict[str, Any]:
        """What the health page tells."""
        nodes = self.telemetry.nodes.values()
        found = self.watching.discovery
        return {
            "leads": self.leader().leads,
            "epoch": self.leadership.epoch,
            "leader": self.leadership.leader.address,
            "alone": self.leadership.alone,
            "nodes": {"planned": len(nodes), "telling": sum(node.state is NodeState.TELLING for node in nodes)},
            "links": {} if found is None else {state.value: number for state, number in counted(found).items()},
            "disagreements": 0 if found is None else len(found.disagreements),
            "demands": len(self.demands()),
        }

    # Terms

    @property
    def _leads(self) -> bool:
        """Whether the lease is held at this moment, and what was promised before is known."""
        return self.term is not None and self.term.begun and self.leadership.epoch == self.term.epoch

    def _gained(self, epoch: int) -> None:
        self._leading = self._runtime.task(self._lead(epoch, self._leading), f"term {epoch}")

    def _lost(self, epoch: int) -> None:
        if self._leading is not None:
            self._leading.cancel()

    async def _lead(self, epoch: int, former: asyncio.Task[None] | None) -> None:
        if former is not None:
            await asyncio.wait({former})
        await self._in_force.caught_up()
        self.term = term = Term(epoch, Steering(random_bytes, self._policy), self._around)
        if self.watching.discovery is not None:
            term.see(self.watching.discovery)
        try:
            recording = record(self.leadership, epoch, lambda: self.watching.discovery)
            async with asyncio.TaskGroup() as group:
                history = group.create_task(recording, name="history")
                await term.run()
                history.cancel()
        finally:
            self.term = None

    # Telemetry

    def _follow(self, network: PlannedNetwork) -> None:
        targets = {node.id: node.target for node in network.nodes if node.target}
        gone = self.telemetry.nodes.keys() - targets
        self.telemetry.follow(targets)
        self.watching.plan(network)
        for node in gone:
            self._incarnations.pop(node, None)

    async def _attend(self) -> None:
        """End the service with the first error of its telemetry that nobody foresaw."""
        while True:
            await asyncio.sleep(LOOK)
            for error in self.telemetry.failed():
                raise error

    def _seen(self, found: Discovery) -> None:
        if self.term is not None:
            self.term.see(found)

    def _urgent(self, node: str) -> None:
        self._appeared(node)
        self.watching.look()

    def _joined(self, node: str) -> None:
        self._incarnations.pop(node, None)
        self._urgent(node)

    def _appeared(self, node: str) -> None:
        incarnation = self.telemetry.nodes[node].report.incarnation
        if incarnation and self._incarnations.get(node) != incarnation:
            self._incarnations[node] = incarnation
            if self.term is not None:
                self.term.appeared(node, incarnation)

    def _telling(self) -> Mapping[str, tuple[str, Node]]:
        return {
            node: (incarnation, followed.client)
            for node, followed in self.telemetry.nodes.items()
            if followed.state is NodeState.TELLING and (incarnation := followed.report.incarnation)
        }

    def _reach(self, node: str) -> Node | None:
        followed = self.telemetry.nodes.get(node)
        return None if followed is None else followed.client

    def _event_told(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
