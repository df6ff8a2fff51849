"""What UKMSs have told of their stores: the identity, and the greatest generation of it.

That is what a UKMS asks for before it hands anything out after a start: a store of another identity, or of a smaller
generation, is an older copy. Known at once in memory; a new identity is durable before the UKMS hears that it was
taken, a generation within about a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from keyhaul.keys.states import KeyEvent
from keyhaul.store.interface import Store
from services.akms import batches
from services.akms.pace import Pace
from services.akms.tables import UKMS_STORES

GREATEST = 2**62
"""No store gets so far."""


@dataclass(frozen=True, slots=True)
class Known:
    """A UKMS's store as it was told last; nothing where none was."""

    store: str = ""
    generation: int = 0


class UkmsStores:
    """The stores of one AKMS's UKMSs, by service id."""

    def __init__(self, store: Store, pace: Pace) -> None:
        """Prepare; `load` comes before anything else."""
        self._store = store
        self._pace = pace
        self._known: dict[str, Known] = {}
        self._durable: dict[str, str] = {}
        self._ahead: set[str] = set()
        self._news = asyncio.Event()

    async def load(self) -> None:
        """Read what is durable."""
        columns = (UKMS_STORES.c.ukms, UKMS_STORES.c.told, UKMS_STORES.c.generation)
        for ukms, store, generation in await self._store.read(lambda c: c.execute(select(*columns)).all()):
            self._known[ukms] = Known(store, generation)
            self._durable[ukms] = store

    def known(self, ukms: str) -> Known:
        """What a UKMS told."""
        return self._known.get(ukms, Known())

    async def identified(self, ukms: str, store: str, kept: Collection[str] = ()) -> list[str]:
        """A UKMS has told its store's identity: durable when this returns.

        Args:
            ukms: service id.
            store: the identity.
            kept: batches that a former store can never have got: nothing changes for them.

        Returns:
            The batches that were on their way to a former store: they are not to be pushed any more.
        """
        if self.known(ukms).store != store:
            self._known[ukms] = Known(store)
        if self._durable.get(ukms) == store:
            return []
        lost = await self._store.write(lambda connection: _identify(connection, ukms, store, kept))
        self._durable[ukms] = store
        return lost

    def told(self, ukms: str, generation: int, store: str = "") -> None:
        """A UKMS has told a generation of `store` (empty: of the one it told last); of any other it counts nothing."""
        known = self.known(ukms)
        if known.store and store in ("", known.store) and known.generation < generation <= GREATEST:
            self._known[ukms] = Known(known.store, generation)
            self._ahead.add(ukms)
            self._news.set()

    async def run(self) -> None:
        """Make durable what was told, for as long as the service runs."""
        while True:
            await self._news.wait()
            await asyncio.sleep(self._pace.generations)
            await self.flush()

    async def flush(self) -> None:
        """Make durable what was told so far."""
        self._news.clear()
        ahead = {ukms: self._known[ukms] for ukms in self._ahead}
        self._ahead.clear()

        def change(connection: Connection) -> None:
            for ukms, known in ahead.items():
                this = (UKMS_STORES.c.ukms == ukms, UKMS_STORES.c.told == known.store)
                connection.execute(update(UKMS_STORES).where(*this).values(generation=known.generation))

        if ahead:
            await self._store.write(change)


def _identify(connection: Connection, ukms: str, store: str, kept: Collection[str]) -> list[str]:
    """Record a store's identity; returns the batches without an answer that a former store may have had.

    Nobody can tell any more which of the keys there the master got: all count as handed over, and their slaves'
    copies stay until they end.
    """
    told = {"told": store, "generation": 0}
    mine = UKMS_STORES.c.ukms == ukms
    former = connection.execute(select(UKMS_STORES.c.told).where(mine)).scalar_one_or_none()
    if former is None:
        connection.execute(insert(UKMS_STORES).values(ukms=ukms, store=store, **told))
    else:
        connection.execute(update(UKMS_STORES).where(mine).values(told))
    if former in (None, "", store):
        return []
    lost = [batch.id for batch in batches.unanswered_by(connection, ukms) if batch.id not in kept]
    for name in lost:
        batches.move(connection, name, KeyEvent.ISSUE)
    batches.destroy_handed_over(connection, ukms)
    return lost
