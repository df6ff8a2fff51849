"""What a UKMS holds for slaves and this AKMS has no record of: everybody who may have released it is asked.

A batch without a record is void only when it is certain that nobody released it: its own UKMSs and all other AKMSs
have answered that they do not know it, at a time when no request of an earlier process of this AKMS can be open any
more. Until then it stays held. One that was released stays for its slaves and is settled. Nothing of this is durable:
a UKMS reports what is unsettled after every new session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sqlalchemy import Connection

from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState, Query
from keyhaul.transport.operations import PEER_QUERY
from services.akms import batches
from services.akms.delivery import Delivery, states_of
from services.akms.errands import Errands
from services.akms.holding import void_at
from services.akms.metrics import Metrics
from services.akms.pace import Pace
from services.akms.searching import Found, Searching
from services.akms.tasks import Tasks

MAXIMUM_TRACED = 16_384
"""Batches of one UKMS that are traced at a time."""

_AT_ONCE = 1_024
_CALLS = 16
"""Other AKMSs that are asked side by side."""


class Tracing:
    """Batches whose records are missing, by the UKMS that holds them for slaves."""

    def __init__(
        self,
        store: Store,
        peers: Mapping[str, Calls],
        delivery: Delivery,
        searching: Searching,
        errands: Errands,
        tasks: Tasks,
        metrics: Metrics,
        pace: Pace,
        lifetime: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._peers = peers
        self._delivery = delivery
        self._searching = searching
        self._errands = errands
        self._tasks = tasks
        self._metrics = metrics
        self._pace = pace
        self._lifetime = lifetime
        self._clock = clock
        self._begun = clock()
        self._traced: dict[str, dict[str, float]] = {}
        self._room = asyncio.Semaphore(_CALLS)

    def trace(self, ukms: str, names: Sequence[str]) -> None:
        """Find out about batches; those that are traced already are not traced twice.

        Raises:
            ServiceError: busy, with too many.
        """
        traced = self._traced.get(ukms, {})
        new = [name for name in names if name not in traced]
        if len(traced) + len(new) > MAXIMUM_TRACED:
            raise ServiceError(ErrorCode.BUSY, "too much waits for this UKMS", retry_after_ms=5000)
        traced.update(dict.fromkeys(new, self._clock() + self._lifetime))
        if new and ukms not in self._traced:
            self._traced[ukms] = traced
            self._tasks.start(self._trace(ukms, traced), "trace")

    async def _trace(self, ukms: str, traced: dict[str, float]) -> None:
        """Ask until nothing is open; what cannot be decided for a key's lifetime is left to expire."""
        backoff = self._pace.backoff
        while traced:
            names = list(traced)[:_AT_ONCE]
            if not await self._round(ukms, traced, names):
                # What was asked about goes to the end, so that it holds up nothing else.
                for name in traced.keys() & set(names):
                    traced[name] = traced.pop(name)
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, self._pace.trace_limit)
            now = self._clock()
            for name in [name for name in names if traced.get(name, now) < now]:
                del traced[name]
        del self._traced[ukms]

    async def _round(self, ukms: str, traced: dict[str, float], names: list[str]) -> bool:
        """Ask once about some batches; whether all of them were decided."""
        certain = self._clock() >= self._begun + self._pace.over
        states = await self._states(names)
        void = [name for name in names if states[name] is BatchState.VOID]
        if certain:
            void += [name for name in names if states[name] is BatchState.UNKNOWN]
        released = [name for name in names if states[name] is BatchState.RELEASED]
        if released:
            self._delivery.settle(ukms, *released)
        if void:
            try:
                await self._store.write(partial(void_at, ukms=ukms, names=void))
            except ServiceError:
                void = []
            self._errands.wake(ukms)
        for outcome, decided in (("released", released), ("void", void)):
            self._metrics.traced.labels(outcome).inc(len(decided))
            for name in decided:
                traced.pop(name, None)
        return len(released) + len(void) == len(names)

    async def _states(self, names: list[str]) -> dict[str, BatchState]:
        """What is known of batches anywhere; `PREPARED` where that is not certain."""
        own = await self._searching.find(names)
        asked = [name for name in names if not own[name].masters]
        answers = await asyncio.gather(*(self._ask(calls, asked) for calls in self._peers.values())) if asked else []
        said = {
            name: {answer[number] if answer else BatchState.PREPARED for answer in answers}
            for number, name in enumerate(asked)
        }
        known = await self._store.read(partial(_recorded, names=names))
        return {name: known[name] or _joined(own[name], said.get(name, set())) for name in names}

    async def _ask(self, calls: Calls, names: list[str]) -> list[BatchState] | None:
        async with self._room:
            try:
                asked = calls.call(PEER_QUERY, Query(batches=names), deadline=2 * self._pace.call)
                return await states_of(asked, names)
            except ServiceError:
                return None


def _joined(own: Found, said: set[BatchState]) -> BatchState:
    """One says that it was released: it was. That it is void, or unknown, counts when all have answered."""
    if own.masters or BatchState.RELEASED in said:
        return BatchState.RELEASED
    if not own.sure or not said <= {BatchState.UNKNOWN, BatchState.VOID}:
        return BatchState.PREPARED
    return BatchState.VOID if BatchState.VOID in said else BatchState.UNKNOWN


def _recorded(connection: Connection, names: list[str]) -> dict[str, BatchState | None]:
    """What the record says, where there is one after all."""
    found = ((name, batches.find(connection, name)) for name in names)
    return {name: None if batch is None else batch.for_peers for name, batch in found}
