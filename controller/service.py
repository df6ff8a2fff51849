"""The controller: telemetry, topology, the lease and, while it is held, a term; what is asked of it comes here."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from controller.admission.reservations import Reservations
from controller.exposing import Exposing
from controller.in_force import LOOK, InForce
from controller.installing import Node, Result
from controller.journal import Journal
from controller.listening import Listening
from controller.northbound.interface import DemandAsKept, Leader
from controller.outdated import Outdated
from controller.overview import health, kept
from controller.paths.policies import Policy
from controller.plan_file import Plan, PlanFile
from controller.planned import PlannedNetwork
from controller.recording import record
from controller.state.events import Event
from controller.state.leading import Leadership, boot_time
from controller.state.lease import Terms
from controller.state.rollup import Key, Summary
from controller.steering.steering import Steering
from controller.telemetry import NodeState, Telemetry
from controller.term import Around, Term
from controller.topology import Discovery
from controller.view import Link
from controller.watching import Watching
from keyhaul.database.database import Database
from keyhaul.identity.names import ServiceName
from keyhaul.randomness import Source, random_bytes
from keyhaul.runtime.interface import Runtime
from keyhaul.transport.messages.path import PathReply
from keyhaul.transport.tls import TlsFiles

log = structlog.get_logger(__name__)

FAREWELL = 2.0
"""Seconds, when the service is stopped, for what is not written yet, and as many again for the lease to be given back;
else that ends by itself."""


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
        clock: seconds, monotonic.
        since_boot: seconds, of a clock that does not stand still while the machine is suspended.
        source: draws labels, ids and pauses.
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
        *,
        clock: Callable[[], float] = time.monotonic,
        since_boot: Callable[[], float] = boot_time,
        source: Source = random_bytes,
    ) -> None:
        self._runtime = runtime
        self._policy = policy
        self._clock = clock
        self._source = source
        self._incarnations: dict[str, str] = {}
        self._journal = Journal(database)
        self.listening = Listening(lambda part: runtime.alarm("overloaded", part=round(part, 2)), clock=clock)
        """The clock of what nodes tell."""
        self.outcomes: Counter[Result] = Counter()
        """What became of what was told to nodes, over all terms."""
        self._leading: asyncio.Task[None] | None = None
        self.term: Term | None = None
        """While this controller leads."""
        self.telemetry = Telemetry(
            own.domain,
            files,
            urgent=self._urgent,
            joined=self._joined,
            lost=lambda _node: self.watching.look(),
            clock=self.listening,
            source=source,
        )
        self.watching = Watching(self.telemetry.news, runtime.alarm, clock=self.listening)
        self.leadership = Leadership(
            database, address, terms or Terms(), gained=self._gained, lost=self._lost, clock=since_boot
        )
        self._in_force = InForce(plan, database, self.leadership, self.watching.quarantine, self._follow, runtime.alarm)
        self.exposing = Exposing(
            database, self._in_force, lambda: self.term.steering if self.term and self._leads else None
        )
        self._around = Around(
            own.id,
            self.leadership,
            key,
            self._telling,
            self._reach,
            alarm=runtime.alarm,
            told=self._journal.tell,
            outcomes=self.outcomes,
            outdated=Outdated(runtime.alarm, clock),
            clock=clock,
        )

    async def run(self) -> None:
        """Watch, and lead while the lease is held, until cancelled; then give the lease back."""
        self.watching.on_seen(self._seen)
        self._follow(self._in_force.plan.network)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.listening.run(), name="listening")
                group.create_task(self.watching.run(), name="discovery")
                group.create_task(self.leadership.run(), name="lease")
                group.create_task(self._in_force.run(), name="plan")
                group.create_task(self._attend(), name="telemetry")
        finally:
            if self._leading is not None:
                self._leading.cancel()
                await asyncio.wait({self._leading}, timeout=FAREWELL)
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
        reply = term.steering.wanted(source, destination, service_class, rate, failed, self._clock())
        term.drain()
        return reply

    # What operators ask (`controller.northbound.interface.Controller`)

    def leader(self) -> Leader:
        """See `Controller.leader`."""
        leadership, term = self.leadership, self.term
        if term is None or not self._leads:
            return Leader(False, address=leadership.leader.address, alone=leadership.alone)
        return Leader(True, term.epoch, leadership.leader.address, leadership.alone, self._clock() - term.since)

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
        if self.term is None:
            return ()
        steering, now = self.term.steering, self._clock()
        return kept((*steering.served, *steering.refused_of_late(now)), now)

    def quarantined(self) -> Mapping[str, str]:
        """See `Controller.quarantined`."""
        return self._in_force.quarantined

    async def position(self) -> int:
        """See `Controller.position`."""
        return await self._journal.position()

    async def events(self, after: int, most: int) -> Sequence[Event]:
        """See `Controller.events`."""
        return await self._journal.after(after, most)

    async def event_told(self) -> None:
        """See `Controller.event_told`."""
        await self._journal.told()

    async def measured(self, link: Link, level: int, count: int) -> Mapping[Key, Summary]:
        """See `Controller.measured`."""
        return await self._journal.measured(link, level, count)

    async def quarantine(self, node: str, reason: str) -> int:
        """See `Controller.quarantine`."""
        exposed = await self._in_force.keep_out(node, reason)
        self._journal.tell()
        return exposed

    async def release(self, node: str) -> bool:
        """See `Controller.release`."""
        was = await self._in_force.let_in(node)
        self._journal.tell()
        return was

    def health(self) -> dict[str, Any]:
        """What the health page tells."""
        states = [node.state for node in self.telemetry.nodes.values()]
        return health(self.leader(), states, self.watching.discovery, len(self.demands()))

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
        self.term = term = Term(epoch, Steering(self._source, self._policy), self._around)
        if self.watching.discovery is not None:
            term.see(self.watching.discovery)
        try:
            recording = record(self.leadership, epoch, lambda: self.watching.discovery, clock=self._clock)
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
