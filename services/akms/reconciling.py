"""Coming back to one view: after a UKMS's session, after its store was replaced, after this process started.

What a UKMS holds unsettled is settled or voided by this AKMS's record; a batch of which there is no record any more is
void. A new identity of a UKMS's store means that what slaves had there is lost.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection, delete

from keyhaul.identity.names import ServiceName
from keyhaul.keys.states import KeyEvent, KeyState
from keyhaul.runtime.interface import Runtime
from keyhaul.store.interface import Store
from keyhaul.transport.messages.access import Report
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState
from services.akms import batches, errands
from services.akms.accounting import EXPIRED, Accounting, note_change
from services.akms.asking import Asking
from services.akms.batches import PURGE_CHUNK, Batch, Part
from services.akms.delivery import Delivery
from services.akms.errands import Errand, ErrandKind, Errands
from services.akms.holding import Holding
from services.akms.making import Making
from services.akms.releasing import Releases
from services.akms.tables import ERRANDS, UKMS_STORES, store_of
from services.akms.tasks import Tasks

MAXIMUM_UNSETTLED = 4_096
"""Batches in one report; a UKMS with more sends several."""

MAXIMUM_ERRANDS = 16_384
"""Voids that may wait for one UKMS because of its reports."""

_BATCH = re.compile(r"[0-9a-f]{32}")
_STORE_ID = re.compile(r"[0-9a-f]{32}")
_PIECE = 200


class Reconciling:
    """Brings the two ends of what was under way to one view."""

    def __init__(
        self,
        store: Store,
        making: Making,
        asking: Asking,
        holding: Holding,
        releases: Releases,
        delivery: Delivery,
        errands: Errands,
        accounting: Accounting,
        runtime: Runtime,
        tasks: Tasks,
        guard: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._making = making
        self._asking = asking
        self._holding = holding
        self._releases = releases
        self._delivery = delivery
        self._errands = errands
        self._accounting = accounting
        self._runtime = runtime
        self._tasks = tasks
        self._guard = guard
        self._wall = wall
        self._replacing: set[str] = set()

    async def recover(self) -> None:
        """At start: hand over what was released, void what cannot go on, ask about what makers had under way."""
        prepared = await self._store.read(
            lambda c: [(part, batches.in_state(c, part, KeyState.PREPARED)) for part in Part]
        )
        for part, unfinished in prepared:
            if part is Part.MAKER:
                await self._store.write(partial(_resolve_all, unfinished=unfinished))
                continue
            for batch in unfinished:
                await self._holding.discard(batch)
        await self._remember_answered()
        await self._releases.resume()
        await self._errands.start()

    async def report(self, neighbour: ServiceName, message: Report) -> Accepted:
        """access.report: the identity of a UKMS's store, and what it holds unsettled."""
        named = len(message.unsettled) <= MAXIMUM_UNSETTLED and all(map(_BATCH.fullmatch, message.unsettled))
        if not _STORE_ID.fullmatch(message.store) or not named:
            raise ServiceError(ErrorCode.MALFORMED, "a report has a store's identity and a bounded list of batches")
        ukms = neighbour.id
        known = await self._store.read(lambda c: store_of(c, ukms))
        if known is None:
            await self._store.write(lambda c: _know_store(c, ukms, message.store))
        elif known != message.store and ukms not in self._replacing:
            self._replacing.add(ukms)
            self._runtime.alarm("ukms-store-replaced", ukms=ukms)
            self._tasks.start(self._replaced(ukms, message.store), "store-replaced")
        self.returned(ukms)
        await self._compare(ukms, message.unsettled)
        return Accepted()

    def returned(self, ukms: str) -> None:
        """A UKMS can be reached again: what waits for it is tried at once."""
        self._delivery.returned(ukms)
        self._errands.wake(ukms)

    async def counts(self) -> list[dict[str, object]]:
        """Batches on record by part and state, for operators."""
        return await self._store.read(batches.counts)

    async def purge(self) -> None:
        """Delete what ended a guard time ago, a small piece a transaction; record what was never handed over."""
        while True:
            now = self._wall()

            def change(connection: Connection, now: float = now) -> int:
                ended = batches.expired(connection, now - self._guard)
                for batch in ended:
                    if batch.part is not Part.MAKER and batch.state is KeyState.RELEASED:
                        note_change(connection, batch, EXPIRED, batch.key_ids, now)
                batches.purge(connection, [batch.id for batch in ended])
                return len(ended)

            if await self._store.write(change) < PURGE_CHUNK:
                self._accounting.wake()
                return

    async def _compare(self, ukms: str, unsettled: list[str]) -> None:
        for start in range(0, len(unsettled), _PIECE):
            piece = unsettled[start : start + _PIECE]
            known = await self._store.read(partial(_find_all, names=piece))
            void = [name for name, batch in known if self._is_void(name, batch)]
            settled = [name for name, batch in known if batch is not None and batch.for_peers is BatchState.RELEASED]
            if settled:
                self._delivery.settle(ukms, *settled)
            if void:
                await self._store.write(partial(_void_at, ukms=ukms, names=void))
                self._errands.wake(ukms)

    def _is_void(self, name: str, batch: Batch | None) -> bool:
        """Whether what a UKMS holds must go; what is being decided at this moment is left alone."""
        if batch is None:
            return name not in self._making.under_way
        return batch.for_peers is BatchState.VOID

    async def _replaced(self, ukms: str, store: str) -> None:
        """Write errands for everything that slaves had in the lost store, and only then the new identity."""
        last = ""
        while piece := await self._store.read(partial(batches.after_id, batch=last, limit=_PIECE)):
            last = piece[-1].id
            concerned = [batch.id for batch in piece if ukms == batch.master_ukms or ukms in batch.sites]
            if concerned:
                self._errands.wake(*await self._store.write(partial(_lose, names=concerned, ukms=ukms, store=store)))
        await self._store.write(lambda c: _know_store(c, ukms, store))
        self._replacing.discard(ukms)

    async def _remember_answered(self) -> None:
        for part in (Part.ASKER, Part.LOCAL):
            released = await self._store.read(partial(batches.in_state, part=part, state=KeyState.RELEASED))
            for batch in released:
                self._asking.remember(batch.master_ukms, batch.request)


def _resolve_all(connection: Connection, unfinished: list[Batch]) -> None:
    connection.execute(delete(ERRANDS).where(ERRANDS.c.kind == ErrandKind.RESOLVE))
    for batch in unfinished:
        errands.add(connection, Errand(ErrandKind.RESOLVE, batch.peer, batch.id, expires=batch.expires))


def _find_all(connection: Connection, names: list[str]) -> list[tuple[str, Batch | None]]:
    return [(name, batches.find(connection, name)) for name in names]


def _know_store(connection: Connection, ukms: str, store: str) -> None:
    connection.execute(delete(UKMS_STORES).where(UKMS_STORES.c.ukms == ukms))
    connection.execute(UKMS_STORES.insert().values(ukms=ukms, store=store))


def _void_at(connection: Connection, ukms: str, names: list[str]) -> None:
    """Errands to void batches at a UKMS; those that wait already are not written twice."""
    waiting = errands.waiting(connection, ErrandKind.VOID_COPIES, ukms)
    if len(waiting) + len(names) > MAXIMUM_ERRANDS:
        raise ServiceError(ErrorCode.BUSY, "too much waits for this UKMS", retry_after_ms=5000)
    for name in names:
        if name not in waiting:
            errands.add(connection, Errand(ErrandKind.VOID_COPIES, ukms, name))


def _lose(connection: Connection, names: list[str], ukms: str, store: str) -> list[str]:
    """Withdraw what slaves lost; of what a master's UKMS lost, nobody can tell any more what it had issued.

    Where a batch is still being prepared, whoever releases or settles it finds that the store was replaced.
    """
    targets = []
    for batch in (batches.find(connection, name) for name in names):
        if batch is None:
            continue
        if ukms == batch.master_ukms:
            if batch.state is KeyState.ISSUED:
                batches.move(connection, batch.id, KeyEvent.DESTROY)
        elif batch.state is KeyState.PREPARED:
            batches.replaced(connection, batch, ukms, store)
        elif batch.state in (KeyState.RELEASED, KeyState.ISSUED) and batch.sites[ukms].store != store:
            if batch.part is Part.MAKER:
                errand = Errand(ErrandKind.VOID_AT_ASKER, batch.peer, batch.id, expires=batch.expires)
            else:
                errand = Errand(ErrandKind.RECALL, batch.master_ukms, batch.id, expires=batch.expires)
            targets.append(errands.add(connection, errand))
    return targets
