"""The operations that compute without changing anything: why a path, what if something fails, what if the plan changes.

They run in a thread of their own, one after the other, so that none delays telemetry or a reroute; what they read are
values that nobody changes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from controller import whatif
from controller.admission.admit import Demand, admit
from controller.admission.classes import CLASSES
from controller.admission.price import undivided
from controller.admission.refusal import Refusal
from controller.admission.reservations import Lease, Reservations
from controller.northbound import facts
from controller.northbound.interface import Controller, DemandAsKept, PathState
from controller.northbound.reading import promised
from controller.paths.compute import Path
from controller.paths.explain import explain
from controller.paths.policies import Policy
from controller.planned import MalformedPlan, PlannedNetwork, planned
from controller.view import NetworkView
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.messages import foresight as foreseen
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import NETWORK_DRYRUN, NETWORK_EXPLAIN, NETWORK_WHATIF

Result = TypeVar("Result")

QUEUED = 4
"""Computations that may wait or run at once."""

LISTED = 500
"""Outcomes, groups of nodes or changes that one answer lists at most."""

NEW = "new"
"""The id of a demand that is only asked about."""

STOPPING = "this controller is stopping"

WORST_FIRST = tuple(whatif.Fate)


class GivenUp(Exception):
    """Nobody waits for the result any more."""


@dataclass(frozen=True, slots=True)
class _Present:
    """What computations work on."""

    view: NetworkView
    planned: PlannedNetwork
    leases: tuple[Lease, ...]
    kept: tuple[whatif.Kept, ...]
    now: float


class Foresight:
    """Serves what would be."""

    def __init__(self, controller: Controller, clock: Callable[[], float], policy: Policy = Policy.RESIDUAL) -> None:
        """Prepare.

        Args:
            controller: what it reads.
            clock: seconds, that of the reservations.
            policy: by which the controller chooses paths.
        """
        self._controller = controller
        self._clock = clock
        self._policy = policy
        self._thread = ThreadPoolExecutor(1, "foresight")
        self._under_way = 0
        self._closing = False

    def serve(self, routes: Routes) -> None:
        """Add the operations to what a listener serves."""
        routes.add(NETWORK_EXPLAIN, self._explain)
        routes.add(NETWORK_WHATIF, self._what_if)
        routes.add(NETWORK_DRYRUN, self._dry_run)

    def close(self) -> None:
        """Begin no further computation; those that wait are refused."""
        self._closing = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _explain(self, peer: Peer, request: foreseen.Explain) -> foreseen.Explained:
        present = self._present()
        return await self._compute(lambda _: self._explained(present, request))

    def _explained(self, present: _Present, request: foreseen.Explain) -> foreseen.Explained:
        reservations = Reservations(present.leases)
        view = reservations.onto(present.view)
        for identity in (request.source, request.target):
            if identity not in view.topology.node_number:
                raise ServiceError(ErrorCode.NOT_FOUND, f"there is no node {identity}")
        if request.service_class not in CLASSES:
            raise ServiceError(ErrorCode.NOT_FOUND, f"there is no class {request.service_class}: {', '.join(CLASSES)}")
        if request.source == request.target:
            raise ServiceError(ErrorCode.MALFORMED, "a path has two ends")
        further = facts.constraints(request.constraints)
        constraints = CLASSES[request.service_class].constraints(request.rate, further)
        asked = Demand(NEW, request.source, request.target, request.service_class, request.rate, constraints=further)
        decided = admit(view, reservations, asked, present.now, self._policy)
        shares = CLASSES[request.service_class].shares
        looked_at = explain(view, request.source, request.target, constraints, self._policy, request.count, shares)
        reply = foreseen.Explained(
            version=present.view.version,
            policy=self._policy,
            candidates=[facts.candidate(one) for one in looked_at.candidates],
            would_open=list(looked_at.would_open),
        )
        if isinstance(decided, Refusal):
            reply.refusal = facts.refusal(decided)
        else:
            reply.admitted = facts.paths(decided.paths)
            reply.price = round(decided.price, 3)
            reply.undivided = round(undivided(view, reservations, asked, self._policy), 3) if shares > 1 else 0.0
            reply.shared = facts.shared(decided)
        return reply

    async def _what_if(self, peer: Peer, request: foreseen.WhatIf) -> foreseen.Impact:
        failure = whatif.Failure(frozenset(request.nodes), frozenset(request.links), frozenset(request.risk_groups))
        present = self._present()

        def work(given_up: threading.Event) -> foreseen.Impact:
            try:
                after = whatif.failed(present.view, failure)
            except whatif.Unknown as error:
                raise ServiceError(ErrorCode.NOT_FOUND, str(error)) from None
            outcomes = self._judged(present, after, given_up)
            return _impact(present, after, outcomes, failure.nodes)

        return await self._compute(work)

    async def _dry_run(self, peer: Peer, request: foreseen.DryRun) -> foreseen.Rehearsed:
        present = self._present()

        def work(given_up: threading.Event) -> foreseen.Rehearsed:
            try:
                changed = planned(request.nodes, request.links)
            except MalformedPlan as error:
                raise ServiceError(ErrorCode.MALFORMED, str(error)) from None
            after = whatif.as_planned(present.view, changed)
            outcomes = self._judged(present, after, given_up)
            return _rehearsed(present.planned, changed, _impact(present, after, outcomes))

        return await self._compute(work)

    def _present(self) -> _Present:
        """What there is now, of which nothing changes, or is anybody else's, while the thread works on it."""
        found = promised(self._controller)
        view = found.view
        kept = (whatif.Kept(one.demand, _carrying(one)) for one in self._controller.demands())
        return _Present(
            NetworkView(view.nodes, view.links, view.version, view.topology),
            found.planned,
            self._controller.reservations().leases,
            tuple(one for one in kept if one.paths),
            self._clock(),
        )

    def _judged(self, present: _Present, after: NetworkView, given_up: threading.Event) -> list[whatif.Outcome]:
        outcomes = []
        reservations = Reservations(present.leases)
        for outcome in whatif.judge(present.view, after, reservations, present.kept, present.now, self._policy):
            if given_up.is_set():
                raise GivenUp
            outcomes.append(outcome)
        return sorted(outcomes, key=lambda outcome: WORST_FIRST.index(outcome.fate))

    async def _compute(self, work: Callable[[threading.Event], Result]) -> Result:
        """Run work in the thread; it is told when nobody waits for it any more."""
        if self._closing:
            raise ServiceError(ErrorCode.UNREACHABLE, STOPPING)
        if self._under_way >= QUEUED:
            raise ServiceError(ErrorCode.BUSY, f"{QUEUED} such questions are under way", retry_after_ms=1_000)
        given_up = threading.Event()
        self._under_way += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, work, given_up)
        future.add_done_callback(self._done)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            given_up.set()
            if future.cancelled():
                raise ServiceError(ErrorCode.UNREACHABLE, STOPPING) from None
            raise

    def _done(self, future: asyncio.Future[Result]) -> None:
        self._under_way -= 1
        if not future.cancelled():
            future.exception()


def _carrying(one: DemandAsKept) -> tuple[Path, ...]:
    """The paths that carry a demand, or will first: not those that drain, or are to replace what carries."""
    for state in (PathState.INSTALLED, PathState.INSTALLING):
        if found := tuple(path.path for path in one.paths if path.state is state):
            return found
    return ()


def _impact(
    present: _Present, after: NetworkView, outcomes: Sequence[whatif.Outcome], gone: frozenset[str] = frozenset()
) -> foreseen.Impact:
    counted = whatif.fates(outcomes)
    return foreseen.Impact(
        version=present.view.version,
        demands=len(present.kept),
        broken=whatif.broken(present.view, present.kept),
        fates={fate.value: counted[fate] for fate in WORST_FIRST},
        outcomes=[facts.outcome(one) for one in outcomes[:LISTED]],
        left_out=max(0, len(outcomes) - LISTED),
        islands=[list(group) for group in whatif.islands(after, gone)[:LISTED]],
    )


def _rehearsed(present: PlannedNetwork, planned: PlannedNetwork, impact: foreseen.Impact) -> foreseen.Rehearsed:
    differences = list(whatif.changes(present, planned))
    return foreseen.Rehearsed(
        version=impact.version,
        demands=impact.demands,
        broken=impact.broken,
        fates=impact.fates,
        outcomes=impact.outcomes,
        left_out=impact.left_out,
        islands=impact.islands,
        changes=[facts.change(one) for one in islice(differences, LISTED)],
        changes_left_out=max(0, len(differences) - LISTED),
    )
