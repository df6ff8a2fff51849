"""The UKMS's durable keys: what the store holds, with its bits sealed and opened on the way.

Every method that hands out bits returns after the commit that ended the copy's life here.
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
from services.ukms import copies, ends, reconcile
from services.ukms.buffers import Allotment, BufferKey, Stored
from services.ukms.copies import MASTER, SLAVE, context
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
                .order_by(copies_table.c.until)
            )
            found = []
            for key_id, until, master, slaves_text, size, service_class in connection.execute(chosen):
                slaves = tuple(SaeId(name) for name in msgspec.json.decode(slaves_text, type=list[str]))
                key = BufferKey(SaeId(master), frozenset(slaves), size, service_class)
                found.append((key, slaves, Stored(KeyId(bytes=key_id), until)))
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
            Whether master copies came with it, and the keys of each allotment; if none came, nothing was issued.

        Raises:
            ServiceError: conflict or not-found.
            MissingCopies: keys of an allotment, at hand before, that are not any more; nothing was changed.
        """
        allotted = [stored.key_id for allotment in allotments for stored in allotment.keys]
        issued = frozenset(key_id for key_id in allotted if key_id in material)
        before = tuple(key_id for key_id in allotted if key_id not in material)
        sealed: dict[tuple[str, str], dict[KeyId, bytes]] = {
            (SLAVE, slave): self._sealed(material, SLAVE, slave) for slave in push.held_for
        }
        if push.for_master:
            kept = {key_id: bits for key_id, bits in material.items() if key_id not in issued}
            sealed[MASTER, push.master] = self._sealed(kept, MASTER, push.master)
        arrival = copies.Arrival(push, until, slaves_until, sealed, issued, before)
        now = self._clock()
        try:
            arrived = await self._store.write(lambda connection: copies.arrive(connection, arrival, now))
        except IntegrityError:
            raise ServiceError(ErrorCode.CONFLICT, "a key of the batch came before in another batch") from None
        if not arrived.for_master:
            return False, []
        opened = self._opened(arrived.also_issued, MASTER, push.master)
        return True, [
            [
                (stored.key_id, material[stored.key_id] if stored.key_id in material else opened[stored.key_id])
                for stored in allotment.keys
            ]
            for allotment in allotments
        ]

    async def issue(self, master: SaeId, key_ids: Sequence[KeyId]) -> Keys:
        """Hand out a master's copies, all or none.

        Raises:
            MissingCopies: some are not at hand any more.
        """
        now = self._clock()
        found = await self._store.write(lambda connection: copies.issue(connection, master, key_ids, now))
        opened = self._opened(found, MASTER, master)
        return [(key_id, opened[key_id]) for key_id in key_ids]

    async def fetch(self, caller: SaeId, master: SaeId, key_ids: Sequence[KeyId]) -> Keys:
        """Hand out a slave's copies, all or none.

        Raises:
            NotNamed: the caller was not among the slaves of one of the keys.
            NotFound: a key is unknown, of another master, taken, void or expired.
        """
        now = self._clock()
        found = await self._store.write(lambda connection: copies.fetch(connection, caller, master, key_ids, now))
        opened = self._opened(found, SLAVE, caller)
        return [(key_id, opened[key_id]) for key_id in key_ids]

    async def void(self, batch: str, key_ids: Collection[KeyId]) -> Voided:
        """Withdraw what of a batch has not been issued (no `key_ids`: all of it)."""
        now = self._clock()
        answer = await self._store.write(lambda connection: reconcile.void(connection, batch, key_ids, now))
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
        return await self._store.read(ends.unfetched)

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

    def _opened(self, sealed: dict[KeyId, bytes], side: str, holder: str) -> dict[KeyId, KeyMaterial]:
        unseal = self._store.fields.open
        return {key_id: KeyMaterial(unseal(bits, context(key_id, side, holder))) for key_id, bits in sealed.items()}
