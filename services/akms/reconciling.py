"""Coming back to one view: after a UKMS's session, after its store was replaced, after this process started.

What a UKMS holds unsettled is settled or voided by this AKMS's record; a batch of which there is no record is traced.
A new identity of a UKMS's store means that what slaves had there is lost.
"""

from __future__ import annotations

import re
from functools import partial

from sqlalchemy import Connection, delete, update

from keyhaul.identity.names import ServiceName
from keyhaul.keys.states import KeyState
from keyhaul.runtime.interface import Runtime
from keyhaul.store.interface import Store
from keyhaul.transport.messages.access import Report, Reported
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState
from services.akms import batches, errands
from services.akms.asking import Asking
from services.akms.batches import Batch, Part
from services.akms.delivery import Delivery
from services.akms.errands import Errand, ErrandKind, Errands
from services.akms.holding import void_at
from services.akms.leftovers import Leftovers
from services.akms.making import Making
from services.akms.releasing import Releases
from services.akms.stores import UkmsStores
from services.akms.tables import ERRANDS, UKMS_STORES, store_of
from services.akms.tasks import Tasks
from services.akms.tracing import Tracing

MAXIMUM_UNSETTLED = 4_096
"""Batches in one report; a UKMS with more sends several."""

_BATCH = re.compile(r"[0-9a-f]{32}")
_STORE_ID = re.compile(r"[0-9a-f]{32}")
_PIECE = 200


class Reconciling:
    """Brings the two ends of what was under way to one view."""

    def __init__(
        self,
        store: Store,
        stores: UkmsStores,
        making: Making,
        asking: Asking,
        leftovers: Leftovers,
        tracing: Tracing,
        releases: Releases,
        delivery: Delivery,
        errands: Errands,
        runtime: Runtime,
        tasks: Tasks,
    ) -> None:
        self._store = store
        self._stores = stores
        self._making = making
        self._asking = asking
        self._leftovers = leftovers
        self._tracing = tracing
        self._releases = releases
        self._delivery = delivery
        self._errands = errands
        self._runtime = runtime
        self._tasks = tasks
        self._replacing: dict[str, str] = {}

    async def recover(self) -> None:
        """At start: hand over what was released, ask about what was prepared, and what makers had under way."""
        prepared = await self._store.read(
            lambda c: [(part, batches.in_state(c, part, KeyState.PREPARED)) for part in Part]
        )
        for part, unfinished in prepared:
            if part is Part.MAKER:
                await self._store.write(partial(_resolve_all, unfinished=unfinished))
                continue
            self._leftovers.take_up(unfinished)
        await self._remember_answered()
        await self._releases.resume()
        await self._errands.start()

    async def report(self, neighbour: ServiceName, message: Report) -> Reported:
        """access.report: the identity of a UKMS's store, its generation, and what it holds unsettled."""
        named = len(message.unsettled) <= MAXIMUM_UNSETTLED and all(map(_BATCH.fullmatch, message.unsettled))
        if not _STORE_ID.fullmatch(message.store) or not named:
            raise ServiceError(ErrorCode.MALFORMED, "a report has a store's identity and a bounded list of batches")
        ukms = neighbour.id
        before = self._stores.known(ukms)
        if not message.inquiry:
            for batch in await self._stores.identified(ukms, message.store, self._releases.kept_from_others(ukms)):
                self._releases.recalled(batch)
            self._stores.told(ukms, message.generation, message.store)
            done = await self._store.read(lambda c: store_of(c, ukms))
            if done != (last := self._stores.known(ukms).store):
                self._replace(ukms, last)
            self.returned(ukms)
            await self._compare(ukms, message.unsettled)
        return Reported(store=before.store, generation=before.generation)

    def returned(self, ukms: str) -> None:
        """A UKMS can be reached again: what waits for it is tried at once."""
        self._delivery.returned(ukms)
        self._errands.wake(ukms)

    async def counts(self) -> list[dict[str, object]]:
        """Batches on record by part and state, for operators."""
        return await self._store.read(batches.counts)

    async def _compare(self, ukms: str, unsettled: list[str]) -> None:
        for start in range(0, len(unsettled), _PIECE):
            piece = unsettled[start : start + _PIECE]
            known = await self._store.read(partial(_find_all, names=piece))
            unknown = [name for name, batch in known if batch is None and name not in self._making.under_way]
            void = [name for name, batch in known if batch is not None and batch.for_peers is BatchState.VOID]
            settled = [name for name, batch in known if batch is not None and batch.for_peers is BatchState.RELEASED]
            if settled:
                self._delivery.settle(ukms, *settled)
            if void:
                await self._store.write(partial(void_at, ukms=ukms, names=void))
                self._errands.wake(ukms)
            self._tracing.trace(ukms, unknown)

    def _replace(self, ukms: str, store: str) -> None:
        """Begin to withdraw what was in other stores than this one; or go on with it, where that is under way."""
        if self._replacing.get(ukms) == store:
            return
        self._runtime.alarm("ukms-store-replaced", ukms=ukms)
        if ukms not in self._replacing:
            self._tasks.start(self._replaced(ukms), "store-replaced")
        self._replacing[ukms] = store

    async def _replaced(self, ukms: str) -> None:
        """Withdraw what was in lost stores, again while the UKMS comes with yet another one."""
        done = ""
        while (store := self._replacing[ukms]) != done:
            await self._withdraw_lost(ukms, store)
            done = store
        del self._replacing[ukms]

    async def _withdraw_lost(self, ukms: str, store: str) -> None:
        """Write errands for everything that slaves had in other stores, and only then the new identity."""
        last = ""
        while piece := await self._store.read(partial(batches.after_id, batch=last, limit=_PIECE)):
            last = piece[-1].id
            concerned = [batch.id for batch in piece if ukms != batch.master_ukms and ukms in batch.sites]
            if concerned:
                self._errands.wake(*await self._store.write(partial(_lose, names=concerned, ukms=ukms, store=store)))
        await self._store.write(lambda c: _know_store(c, ukms, store))

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
    connection.execute(update(UKMS_STORES).where(UKMS_STORES.c.ukms == ukms).values(store=store))


def _lose(connection: Connection, names: list[str], ukms: str, store: str) -> list[str]:
    """Withdraw what slaves lost at another UKMS than the master's.

    Where a batch is still being prepared, whoever releases or settles it finds that the store was replaced.
    """
    targets = []
    for batch in (batches.find(connection, name) for name in names):
        if batch is None:
            continue
        if batch.state is KeyState.PREPARED:
            batches.replaced(connection, batch, ukms, store)
        elif batch.state in (KeyState.RELEASED, KeyState.ISSUED) and batch.sites[ukms].store != store:
            if batch.part is Part.MAKER:
                errand = Errand(ErrandKind.VOID_AT_ASKER, batch.peer, batch.id, expires=batch.expires)
            else:
                errand = Errand(ErrandKind.RECALL, batch.master_ukms, batch.id, expires=batch.expires)
            targets.append(errands.add(connection, errand))
    return targets
