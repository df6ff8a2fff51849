"""The UKMS's durable keys: what the store holds, with its bits sealed and opened on the way.

Every method that hands out bits returns after the commit that ended the copy's life here. What is set aside ahead of
need stays sealed in memory until it is opened for an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from keyhaul.identity.names import SaeId
from keyhaul.keys.material import KeyId, KeyMaterial
from keyhaul.keys.states import KeyState
from keyhaul.store.interface import Store
from keyhaul.transport.messages.access import Push
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState, Voided
from services.ukms import arrivals, copies, ends, reconcile
from services.ukms.buffer import Allotment, BufferKey
from services.ukms.copies import MASTER, SLAVE, context
from services.ukms.leases import Leased, Stored
from services.ukms.tables import batches, requests
from services.ukms.tables import copies as copies_table

Keys = list[tuple[KeyId, KeyMaterial]]


class Vault:
    """The keys of one UKMS. `clock` gives seconds of this node's clock."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    @property
    def store_id(self) -> str:
        """The identity of the store: a new one means that what was held is lost."""
        return self._store.store_id

    async def at_hand(self) -> list[tuple[BufferKey, tuple[SaeId, ...], Stored]]:
        """Every master copy that may be issued, first to expire first."""
        now = self._clock()

        def query(connection: Connection) -> list[tuple[BufferKey, tuple[SaeId, ...], Stored]]:
            chosen = (
                select(
                    copies_table.c.key_id,
                    copies_table.c.until,
                    copies_table.c.batch,
                    copies_table.c.position,
                    batches.c.master,
                    batches.c.slaves,
                    batches.c.size,
                    batches.c.service_class,
                )
                .join(batches, batches.c.batch == copies_table.c.batch)
                .where(
                    copies_table.c.state == KeyState.RELEASED,
                    copies_table.c.side == MASTER,
                    copies_table.c.until > now,
                )
                .order_by(copies_table.c.until, copies_table.c.batch, copies_table.c.position)
            )
            found = []
            for row in connection.execute(chosen):
                slaves = tuple(SaeId(name) for name in msgspec.json.decode(row.slaves, type=list[str]))
                key = BufferKey(SaeId(row.master), frozenset(slaves), row.size, row.service_class)
                stored = Stored(KeyId(bytes=row.key_id), row.until, row.batch, row.position)
                found.append((key, slaves, stored))
            return found

        return await self._store.read(query)

    async def request_made(self, request: str, key: BufferKey, number: int) -> None:
        """Remember a request before it goes out, so that its answer is accepted even after a restart."""
        row = {
            "request": request,
            "master": key.master,
            "slaves": msgspec.json.encode(sorted(key.slaves)).decode(),
            "size": key.size,
            "remaining": number,
            "made": self._clock(),
        }

        def change(connection: Connection) -> None:
            connection.execute(insert(requests).values(row))

        await self._store.write(change)

    async def request_ended(self, request: str) -> None:
        """Nothing more will come for a request."""

        def change(connection: Connection) -> None:
            connection.execute(delete(requests).where(requests.c.request == request))

        await self._store.write(change)

    async def arrive(
        self,
        push: Push,
        material: dict[KeyId, KeyMaterial],
        until: float,
        slaves_until: float,
        allotments: Iterable[Allotment],
    ) -> tuple[bool, list[Keys]]:
        """Take a checked push in, and issue in the same transaction what waiting requests get.

        Returns:
            Whether master copies came with it, and the keys of each allotment that were not set aside before; if none
            came, nothing was issued.

        Raises:
            ServiceError: conflict or not-found.
            MissingCopies: keys of an allotment, at hand before, that are not any more; nothing was changed.
        """
        allotted = [stored for allotment in allotments for stored in allotment.keys]
        issued = frozenset(stored.key_id for stored in allotted if stored.key_id in material)
        before = tuple(stored for stored in allotted if stored.key_id not in material)
        sealed: dict[tuple[str, str], dict[KeyId, bytes]] = {
            (SLAVE, slave): self._sealed(material, SLAVE, slave) for slave in push.held_for
        }
        if push.for_master:
            kept = {key_id: bits for key_id, bits in material.items() if key_id not in issued}
            sealed[MASTER, push.master] = self._sealed(kept, MASTER, push.master)
        arrival = arrivals.Arrival(push, until, slaves_until, sealed, issued, before)
        now = self._clock()
        try:
            arrived = await self._store.write(lambda connection: arrivals.arrive(connection, arrival, now))
        except IntegrityError:
            raise ServiceError(ErrorCode.CONFLICT, "a key of the batch came before in another batch") from None
        if not arrived.for_master:
            return False, []
        opened = dict(self._opened(arrived.also_issued, MASTER, push.master))
        return True, [
            [
                (stored.key_id, material[stored.key_id] if stored.key_id in material else opened[stored.key_id])
                for stored in allotment.keys
            ]
            for allotment in allotments
        ]

    async def issue(self, master: SaeId, chosen: Sequence[Stored]) -> Keys:
        """Hand out a master's copies, all or none.

        Raises:
            MissingCopies: some are not at hand any more.
        """
        return self.opened(master, await self.set_aside(master, chosen))

    async def set_aside(self, master: SaeId, chosen: Sequence[Stored]) -> list[Leased]:
        """Mark a master's copies as issued, all or none, and return them still sealed.

        Raises:
            MissingCopies: some are not at hand any more.
        """
        now = self._clock()
        found = await self._store.write(lambda connection: copies.issue(connection, master, chosen, now))
        return [Leased(stored, found[stored.key_id]) for stored in chosen]

    async def take_back(self, master: SaeId, leased: Sequence[Leased]) -> None:
        """Have copies that were set aside, and certainly not handed out, at hand again."""
        await self._store.write(lambda connection: copies.take_back(connection, master, leased))

    def opened(self, master: SaeId, leased: Iterable[Leased]) -> Keys:
        """The bits of copies that were set aside.

        Raises:
            StoreCorrupt: one was changed in the store.
        """
        return self._opened({one.stored.key_id: one.sealed for one in leased}, MASTER, master)

    async def fetch(self, caller: SaeId, master: SaeId, key_ids: Sequence[KeyId]) -> Keys:
        """Hand out a slave's copies, all or none.

        Raises:
            NotNamed: the caller was not among the slaves of one of the keys.
            NotFound: a key is unknown, of another master, taken, void or expired.
        """
        now = self._clock()
        found = await self._store.write(lambda connection: copies.fetch(connection, caller, master, key_ids, now))
        return self._opened({key_id: found[key_id] for key_id in key_ids}, SLAVE, caller)

    async def void(
        self, batch: str, key_ids: Collection[KeyId], withheld: Sequence[tuple[SaeId, Sequence[Leased]]] = ()
    ) -> Voided:
        """Withdraw what of a batch has not been issued (no `key_ids`: all of it).

        `withheld`: copies that were set aside, by master, which have not been handed out and never will be.
        """
        now = self._clock()

        def change(connection: Connection) -> Voided:
            for master, leased in withheld:
                copies.take_back(connection, master, leased)
            return reconcile.void(connection, batch, key_ids, now)

        answer = await self._store.write(change)
        answer.store = self.store_id
        return answer

    async def states(self, names: Sequence[str]) -> list[BatchState]:
        """The state of each batch."""
        return await self._store.read(lambda connection: reconcile.states(connection, names))

    async def settle(self, names: Collection[str]) -> None:
        """These batches need no reconciling any more."""
        await self._store.write(lambda connection: reconcile.settle(connection, names))

    async def unsettled(self, beyond: str, number: int) -> list[str]:
        """A page of the names of batches that are held and not settled, the first one after `beyond`."""
        now = self._clock()
        return await self._store.read(lambda connection: reconcile.unsettled(connection, beyond, number, now))

    async def expire(self) -> int:
        """End some copies whose life is over; return how many."""
        now = self._clock()
        return await self._store.write(lambda connection: ends.expire(connection, now))

    async def unfetched(self) -> dict[str, list[KeyId]]:
        """Some master copies, by batch, that expired unissued and are not known to be withdrawn."""
        now = self._clock()
        return await self._store.read(lambda connection: ends.unfetched(connection, now))

    async def withdrawn(self, batch: str, key_ids: Collection[KeyId]) -> None:
        """The AKMS knows of these expired copies."""
        now = self._clock()
        await self._store.write(lambda connection: ends.withdrawn(connection, batch, key_ids, now))

    async def purge(self) -> int:
        """Delete some rows that are needed no more; return how many."""
        now = self._clock()
        return await self._store.write(lambda connection: ends.purge(connection, now))

    def _sealed(self, material: dict[KeyId, KeyMaterial], side: str, holder: str) -> dict[KeyId, bytes]:
        seal = self._store.fields.seal
        return {key_id: seal(bits.reveal(), context(key_id, side, holder)) for key_id, bits in material.items()}

    def _opened(self, sealed: dict[KeyId, bytes], side: str, holder: str) -> Keys:
        unseal = self._store.fields.open
        return [(key_id, KeyMaterial(unseal(bits, context(key_id, side, holder)))) for key_id, bits in sealed.items()]
