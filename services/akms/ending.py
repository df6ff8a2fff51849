"""The end of records: what became of keys whose hand-over nobody confirmed is asked, and only the answer is booked.

A push whose answer was lost may have brought the keys, and SAEs may have them. The master's UKMS knows: what it took
is its own to report; what it did not take, and by a void never will, expired unfetched, and is withdrawn where slaves
hold it. Where it cannot be asked in time the keys stay counted as delivered, and that is alarmed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection

from keyhaul.keys.states import KeyEvent, KeyState
from keyhaul.runtime.interface import Runtime
from keyhaul.store.interface import Store
from keyhaul.transport.messages.base import ServiceError
from keyhaul.transport.messages.peer import BatchState, VoidKeys
from keyhaul.transport.operations import DELIVERY_VOID
from services.akms import batches
from services.akms.accounting import EXPIRED, Accounting, note_change
from services.akms.batches import PURGE_CHUNK, Batch, Part
from services.akms.delivery import Delivery
from services.akms.errands import Errands
from services.akms.holding import withdraw_everywhere
from services.akms.pace import Pace
from services.akms.releasing import Releases
from services.akms.stores import UkmsStores

_AT_ONCE = 256


class Endings:
    """Ends the records of one AKMS."""

    def __init__(
        self,
        store: Store,
        stores: UkmsStores,
        delivery: Delivery,
        releases: Releases,
        errands: Errands,
        accounting: Accounting,
        runtime: Runtime,
        pace: Pace,
        guard: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._stores = stores
        self._delivery = delivery
        self._releases = releases
        self._errands = errands
        self._accounting = accounting
        self._runtime = runtime
        self._pace = pace
        self._guard = guard
        self._wall = wall

    async def purge(self) -> None:
        """Ask about what is due, then delete what ended a guard time ago, a small piece a transaction."""
        await self._ask_all()
        while True:
            now = self._wall()

            def change(connection: Connection, now: float = now) -> list[Batch]:
                ended = batches.ended(connection, now - self._guard, self._forgotten(now))
                batches.purge(connection, [batch.id for batch in ended])
                return ended

            ended = await self._store.write(change)
            for batch in ended:
                if _is_unanswered(batch):
                    self._releases.recalled(batch.id)
                    self._runtime.alarm("usage-undecided", ukms=batch.master_ukms, batch=batch.id)
            if len(ended) < PURGE_CHUNK:
                return

    async def _ask_all(self) -> None:
        """Ask each master's UKMS about the batches that ended for the master and are not known to be handed over."""
        due = await self._store.read(partial(batches.unanswered, ended=self._wall() + self._guard))
        by_ukms: defaultdict[str, list[Batch]] = defaultdict(list)
        for batch in due:
            # No further attempt to push it: the answer is to be the last word.
            self._releases.recalled(batch.id)
            by_ukms[batch.master_ukms].append(batch)
        await asyncio.gather(*(self._ask(ukms, mine) for ukms, mine in by_ukms.items()))

    async def _ask(self, ukms: str, due: list[Batch]) -> None:
        """Decide what one UKMS can tell now; the rest waits for the next time."""
        for start in range(0, len(due), _AT_ONCE):
            piece = due[start : start + _AT_ONCE]
            try:
                states = await self._delivery.states(ukms, [batch.id for batch in piece])
                for batch, state in zip(piece, states, strict=True):
                    if state is BatchState.RELEASED:
                        await self._store.write(partial(_taken, batch=batch.id))
                    elif batch.expires > self._forgotten(self._wall()):
                        await self._give_up(batch)
            except ServiceError:
                return

    async def _give_up(self, batch: Batch) -> None:
        """The UKMS does not have a batch: it is told never to take it, and what nobody got is booked and withdrawn."""
        request = VoidKeys(batch=batch.id, key_ids=batch.key_ids)
        reply = await self._delivery.call(batch.master_ukms, DELIVERY_VOID, request)
        if reply.store not in ("", self._stores.known(batch.master_ukms).store):
            return  # a new store, which cannot tell what the former one had
        now = self._wall()
        issued = set(reply.issued)
        gone = [key_id for key_id in batch.key_ids if key_id not in issued]

        def change(connection: Connection) -> list[str]:
            present = batches.find(connection, batch.id)
            if present is None or not _is_unanswered(present):
                return []
            batches.move(connection, batch.id, KeyEvent.ISSUE if issued else KeyEvent.EXPIRE)
            note_change(connection, batch, EXPIRED, gone, now)
            # For a guard time, which is what the slaves' copies have left at least, whatever the clock says.
            return withdraw_everywhere(connection, dataclasses.replace(batch, expires=now + self._guard), gone)

        self._errands.wake(*await self._store.write(change))
        self._accounting.wake()

    def _forgotten(self, now: float) -> float:
        """The end of batches of which the master's UKMS may have forgotten by now that it had them."""
        return now + self._guard - self._pace.forgotten


def _is_unanswered(batch: Batch) -> bool:
    return batch.part is not Part.MAKER and batch.state is KeyState.RELEASED


def _taken(connection: Connection, batch: str) -> None:
    """It has been handed over, though no answer to the push told so."""
    present = batches.find(connection, batch)
    if present is not None and _is_unanswered(present):
        batches.move(connection, batch, KeyEvent.ISSUE)
