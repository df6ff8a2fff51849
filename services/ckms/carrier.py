"""The asyncio driver of the relay: links to the neighbours, calls to the AKMS of this node.

A handler applies the relay's transition and returns; what is to be sent is sent by a task of its own, of which
there is a bounded number for each neighbour and for the AKMS. Bits live in that task's frame and are gone with it,
as soon as the next hop's transport took them. Nothing on this path touches a store but what the link itself does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import ExitStack
from typing import Any

from keyhaul.identity.names import ServiceName
from keyhaul.pressure.fair import Shares
from keyhaul.runtime.group import Group
from keyhaul.transport.interface import Calls, Peer, Routes
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.relay import Acknowledge, Deliver, Expect, Forward, RelayFailure, Submit
from keyhaul.transport.operations import (
    CARRIER_DELIVER,
    CARRIER_EXPECT,
    CARRIER_SUBMIT,
    RELAY_ACKNOWLEDGE,
    RELAY_FORWARD,
)
from services.ckms.effects import (
    FAILURES,
    DeliverBatch,
    Effect,
    SendAcknowledge,
    SendForward,
    StopSending,
    TellOutcome,
)
from services.ckms.outcomes import Outcomes
from services.ckms.relay import Relay
from services.ckms.returning import RelayLinks, Returning

FORWARDS_PER_NEIGHBOUR = 512
"""Batches that wait for one neighbour's transport at a time; of one path no more than are left free. More are busy."""

DELIVERIES = 512
"""Batches that wait for this node's AKMS at a time; of one path no more than are left free. More fail as busy."""

TICK = 0.05
"""Seconds between looks for what is late, while anything is in flight."""

DOWN_GRACE = 0.15
"""Seconds for which a link may be down before what was sent over it counts as failed."""

OTP_TAG = 16
"""Bytes of pad that a one-time MAC uses beside the bits."""


class Carrier:
    """Carries batches between the links and the AKMS of this node.

    `serve` registers its handlers; `run` must be running for them to take anything.

    Args:
        relay: what is in flight.
        links: the links to the neighbours.
        akms: calls to the AKMS of this node, None where there is none.
        clock: seconds, monotonic.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        relay: Relay,
        links: RelayLinks,
        akms: Calls | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.on_submitted: Callable[[Submit], None] = lambda _: None
        self._relay = relay
        self._links = links
        self._akms = akms
        self._clock = clock
        self._group = Group()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._stop = asyncio.Event()
        self._taken = asyncio.Event()
        self._forwarding: dict[str, Shares] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._down_since: dict[str, float] = {}
        self._expecting: dict[str, ExitStack] = {}
        self._delivering = Shares(DELIVERIES)
        self._returning = Returning(links, self._begin_returning, clock=clock, pause=pause)
        self._outcomes = None if akms is None else Outcomes(akms, self._begin, clock=clock, pause=pause)

    def serve(self, routes: Routes) -> None:
        """Register the handlers of the links, and of the AKMS's submissions where there is one."""
        self._links.serve(RELAY_FORWARD, self._on_forward)
        self._links.serve(RELAY_ACKNOWLEDGE, self._on_acknowledge)
        if self._akms is not None:
            routes.add(CARRIER_SUBMIT, self._on_submit)
            routes.add(CARRIER_EXPECT, self._on_expect)

    async def run(self) -> None:
        """Own all tasks and the deadlines, until `close`; an unexpected exception in any task ends it."""
        async with self._group as group:
            watch = group.begin(self._watch_deadlines(), "carrier-deadlines")
            await self._stop.wait()
            group.close()
            self._expect(set())
            for task in (watch, *self._tasks):
                if task is not None:
                    task.cancel()

    @property
    def acknowledgements_lost(self) -> int:
        """Of all neighbours."""
        return self._returning.lost

    @property
    def outcomes_lost(self) -> int:
        """That never reached this node's AKMS."""
        return 0 if self._outcomes is None else self._outcomes.lost

    async def drain(self, seconds: float) -> bool:
        """Refuse what is new and wait for what is in flight; return whether all of it ended in time."""
        self._refuse_new()
        try:
            async with asyncio.timeout(seconds):
                while self._relay.in_flight or self._tasks:
                    await asyncio.wait(self._tasks, timeout=TICK) if self._tasks else await asyncio.sleep(TICK)
        except TimeoutError:
            return False
        return True

    def _refuse_new(self) -> None:
        self._draining = self._returning.draining = True
        if self._outcomes is not None:
            self._outcomes.draining = True

    def close(self) -> None:
        """End `run`; what is still in flight is dropped."""
        self._refuse_new()
        self._relay.combining.wipe()
        self._stop.set()

    def ready(self, neighbour: str, length: int) -> bool:
        """Whether the link to a neighbour is up and, under `otp`, has pads for so many bytes now (0: up is enough)."""
        link = self._links.to(neighbour)
        if not link.up:
            return False
        status = link.status()
        return not length or status.suite != "otp" or status.outgoing.payload_available >= length + OTP_TAG

    def _only_own_akms(self, peer: Peer) -> None:
        if self._akms is None or peer.name != self._akms.peer:
            raise ServiceError(ErrorCode.FORBIDDEN, "only the AKMS of this node submits here")
        if self._draining or not self._group.takes:
            raise ServiceError(ErrorCode.UNREACHABLE, "this service is stopping")

    async def _on_expect(self, peer: Peer, request: Expect) -> Accepted:
        self._only_own_akms(peer)
        self._apply(self._relay.expect(request, self._clock()))
        return Accepted()

    async def _on_submit(self, peer: Peer, request: Submit) -> Accepted:
        self._only_own_akms(peer)
        self._apply(self._relay.submit(request, self.ready, self._clock()))
        self.on_submitted(request)
        return Accepted()

    async def _on_forward(self, neighbour: ServiceName, request: Forward, secret: bytes) -> tuple[None, bytes]:
        if self._draining:
            self._apply(self._relay.refuse(neighbour.id, request, RelayFailure.UNREACHABLE, self._clock()))
        else:
            self._apply(self._relay.forward(neighbour.id, request, secret, self._clock(), self.ready))
        return None, b""

    async def _on_acknowledge(self, neighbour: ServiceName, request: Acknowledge, _: bytes) -> tuple[None, bytes]:
        self._apply(self._relay.acknowledge(neighbour.id, request, self._clock()))
        return None, b""

    def _apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendForward():
                    self._begin_forward(effect)
                case DeliverBatch():
                    self._begin_delivery(effect)
                case SendAcknowledge():
                    self._returning.add(effect)
                case TellOutcome():
                    assert self._outcomes is not None  # only the AKMS submits
                    self._outcomes.add(effect)
                case StopSending():
                    self._stop_sending(effect.references)
        self._taken.set()

    def _begin_forward(self, effect: SendForward) -> None:
        if not self._relay.waits(effect.message.reference):
            self._relay.unsent(effect.message.reference)
            return
        waiting = self._forwarding.setdefault(effect.neighbour, Shares(FORWARDS_PER_NEIGHBOUR))
        if waiting.take(effect.flow):
            task = self._begin(self._forward(effect), "carrier-forward")
            if task is not None:
                self._sending[effect.message.reference] = task
                # Not in the task: one that is cancelled before its first step never runs.
                task.add_done_callback(lambda done: self._forwarded(effect, sent=not done.cancelled()))
                return
            waiting.give_back(effect.flow)
        self._apply(self._relay.failed(effect.message.reference, RelayFailure.BUSY, self._clock()))

    async def _forward(self, effect: SendForward) -> None:
        try:
            remaining = self._remaining(effect.deadline)
            await self._links.to(effect.neighbour).send(RELAY_FORWARD, effect.message, effect.bits, deadline=remaining)
        except ServiceError as error:
            failure = FAILURES.get(error.code, RelayFailure.UNREACHABLE)
            self._apply(self._relay.failed(effect.message.reference, failure, self._clock()))

    def _forwarded(self, effect: SendForward, *, sent: bool) -> None:
        self._forwarding[effect.neighbour].give_back(effect.flow)
        self._sending.pop(effect.message.reference, None)
        if not sent:
            self._relay.unsent(effect.message.reference)

    def _stop_sending(self, references: Iterable[str]) -> None:
        """End sending, with its bits, what nobody waits for any more."""
        for reference in references:
            task = self._sending.get(reference)
            if task is not None and not self._relay.waits(reference):
                task.cancel()

    def _remaining(self, deadline: float) -> float:
        remaining = deadline - self._clock()
        if remaining <= 0:
            raise ServiceError(ErrorCode.DEADLINE)
        return remaining

    def _begin_delivery(self, effect: DeliverBatch) -> None:
        if self._delivering.take(effect.flow):
            if self._begin(self._deliver(effect), "carrier-deliver") is not None:
                return
            self._delivering.give_back(effect.flow)
        self._apply(self._relay.finished(effect.reference, RelayFailure.BUSY, self._clock()))

    async def _deliver(self, effect: DeliverBatch) -> None:
        assert self._akms is not None  # the table has no entry that delivers here without one
        failure: RelayFailure | None = None
        try:
            message = Deliver(batch=effect.batch, bits=effect.bits, shares=effect.shares)
            await self._akms.call(CARRIER_DELIVER, message, deadline=self._remaining(effect.deadline))
        except ServiceError as error:
            failure = FAILURES.get(error.code, RelayFailure.REFUSED)
        finally:
            self._delivering.give_back(effect.flow)
        self._apply(self._relay.finished(effect.reference, failure, self._clock()))

    def _begin_returning(self, work: Coroutine[Any, Any, None]) -> bool:
        return self._begin(work, "carrier-acknowledge") is not None

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None] | None:
        task = self._group.begin(work, name)
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return task

    async def _watch_deadlines(self) -> None:
        while True:
            if self._relay.next_deadline() is None:
                self._taken.clear()
                await self._taken.wait()
            await asyncio.sleep(TICK)
            now = self._clock()
            effects = self._relay.expire(now)
            awaited = self._relay.awaited()
            self._expect(awaited)
            for neighbour in self._lost(awaited, now):
                effects += self._relay.lost(neighbour, now)
            if effects:
                self._stop_sending(self._sending)
            self._apply(effects)

    def _expect(self, awaited: set[str]) -> None:
        """Have the links to these neighbours watched closely: each owes acknowledgements, and may owe no answer."""
        for neighbour in self._expecting.keys() - awaited:
            self._expecting.pop(neighbour).close()
        for neighbour in awaited - self._expecting.keys():
            self._expecting[neighbour] = ExitStack()
            self._expecting[neighbour].enter_context(self._links.to(neighbour).expecting())

    def _lost(self, awaited: set[str], now: float) -> list[str]:
        """Those of the awaited neighbours whose link has been down for longer than the grace."""
        down = {neighbour for neighbour in awaited if not self._links.to(neighbour).up}
        self._down_since = {neighbour: self._down_since.get(neighbour, now) for neighbour in down}
        return [neighbour for neighbour, since in self._down_since.items() if now - since >= DOWN_GRACE]
