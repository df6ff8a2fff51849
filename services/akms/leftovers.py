"""Batches that an earlier process of this AKMS left prepared, as asker or for local users.

The record may be older than the truth: the batch may have been released and handed over after the store was copied.
The UKMS of the master knows; only what it does not have is void.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from sqlalchemy import Connection

from keyhaul.keys.states import KeyEvent, KeyState
from keyhaul.store.interface import Store
from keyhaul.transport.messages.base import ServiceError
from keyhaul.transport.messages.peer import BatchState
from services.akms import batches, errands
from services.akms.accounting import Accounting, note_release
from services.akms.batches import Batch
from services.akms.delivery import Delivery
from services.akms.errands import TRANSIENT, Errand, ErrandKind, Errands
from services.akms.holding import Holding
from services.akms.pace import Pace
from services.akms.tasks import Tasks

_AT_ONCE = 256


class Leftovers:
    """Decides what was prepared before this process began."""

    def __init__(
        self,
        store: Store,
        delivery: Delivery,
        holding: Holding,
        errands: Errands,
        accounting: Accounting,
        tasks: Tasks,
        pace: Pace,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._delivery = delivery
        self._holding = holding
        self._errands = errands
        self._accounting = accounting
        self._tasks = tasks
        self._pace = pace
        self._wall = wall

    def take_up(self, prepared: Iterable[Batch]) -> None:
        """After a start: decide each of these batches as soon as its master's UKMS can be asked."""
        by_ukms: defaultdict[str, list[Batch]] = defaultdict(list)
        for batch in prepared:
            by_ukms[batch.master_ukms].append(batch)
        for ukms, mine in by_ukms.items():
            self._tasks.start(self._decide_all(ukms, mine), "leftovers")

    async def decide(self, ukms: str, prepared: list[Batch]) -> None:
        """Ask the masters' UKMS: what it has was released, the rest is void. May be repeated.

        Raises:
            ServiceError: it cannot be asked; nothing was changed.
        """
        states = await self._delivery.states(ukms, [batch.id for batch in prepared])
        for batch, state in zip(prepared, states, strict=True):
            if state is BatchState.RELEASED:
                await self._take_back(batch)
            else:
                await self._holding.discard(batch)

    async def _decide_all(self, ukms: str, prepared: list[Batch]) -> None:
        backoff = self._pace.backoff
        while waiting := [batch for batch in prepared if batch.expires > self._wall()]:
            piece = waiting[:_AT_ONCE]
            try:
                await self.decide(ukms, piece)
            except ServiceError as error:
                if error.code not in TRANSIENT:
                    return
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, self._pace.backoff_limit)
                prepared = waiting
            else:
                prepared = waiting[_AT_ONCE:]

    async def _take_back(self, batch: Batch) -> None:
        """Record as handed over what the master's UKMS has; its usage record may be lost, and is taken once."""

        def change(connection: Connection) -> list[str]:
            present = batches.find(connection, batch.id)
            if present is None or present.state is not KeyState.PREPARED:
                return []
            batches.move(connection, batch.id, KeyEvent.RELEASE)
            note_release(connection, present, self._wall())
            recall = Errand(ErrandKind.RECALL, batch.master_ukms, batch.id, expires=batch.expires)
            targets = [errands.add(connection, recall)] if batches.is_forfeit(present, {}) else []
            batches.move(connection, batch.id, KeyEvent.ISSUE)
            return targets

        self._errands.wake(*await self._store.write(change))
        self._accounting.wake()
        for ukms in batch.sites:
            if ukms != batch.master_ukms:
                self._delivery.settle(ukms, batch.id)
