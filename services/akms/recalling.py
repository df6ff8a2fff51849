"""Keys that the master's UKMS gives up: because it is asked to, or because they expired there unissued.

It says durably which keys it has not issued and never will; their usage is reversed, and the slaves' copies go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from keyhaul.identity.names import ServiceName
from keyhaul.keys.states import KeyEvent, KeyState
from keyhaul.store.interface import Store
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import VoidKeys, Withdraw
from keyhaul.transport.operations import DELIVERY_VOID
from services.akms import batches, exposures
from services.akms.accounting import EXPIRED, VOID, Accounting, note_change
from services.akms.batches import Batch
from services.akms.delivery import Delivery
from services.akms.errands import Errand, ErrandKind, Errands
from services.akms.holding import void_copies, withdraw_everywhere
from services.akms.querying import MAXIMUM_QUERIED
from services.akms.releasing import Releases
from services.akms.tables import store_of


@dataclass(frozen=True, slots=True)
class Recalled:
    """What became of the keys that were asked for."""

    gone: list[UUID]
    """Will never be issued."""
    issued: list[UUID]


class Recalling:
    """Recalls from the masters' UKMSs of one AKMS."""

    def __init__(
        self,
        store: Store,
        delivery: Delivery,
        errands: Errands,
        accounting: Accounting,
        releases: Releases,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._delivery = delivery
        self._errands = errands
        self._accounting = accounting
        self._releases = releases
        self._wall = wall
        errands.serve(ErrandKind.RECALL, self._recall)

    async def recall(self, batch: Batch, key_ids: Sequence[UUID]) -> Recalled:
        """Have keys of a batch (none named: all) given up, and the slaves' copies on this side withdrawn.

        Raises:
            ServiceError: the master's UKMS cannot be asked, or what it says.
        """
        recalled = await self._ask(batch, key_ids)
        await self._write(lambda connection: self._record(connection, batch, recalled))
        return recalled

    async def expired(self, neighbour: ServiceName, message: Withdraw) -> Accepted:
        """access.withdraw: the master's UKMS let keys expire unissued."""
        batch = await self._store.read(lambda connection: batches.find(connection, message.batch))
        if batch is None:
            if not batches.NAME.fullmatch(message.batch) or not 0 < len(message.key_ids) <= MAXIMUM_QUERIED:
                raise ServiceError(ErrorCode.MALFORMED, "a withdrawal names a batch and a bounded number of its keys")
            gone = list(dict.fromkeys(message.key_ids))
            await self._accounting.expired(neighbour.id, message.batch, gone)
            return Accepted()
        if batch.master_ukms != neighbour.id:
            return Accepted()
        if batch.state is KeyState.PREPARED:
            raise ServiceError(ErrorCode.BUSY, "the batch is being decided", retry_after_ms=1000)
        gone = batch.among(message.key_ids)
        if not gone:
            return Accepted()
        self._releases.recalled(batch.id)

        def change(connection: Connection) -> list[str]:
            present = batches.find(connection, batch.id)
            if present is not None and present.state is KeyState.RELEASED:
                # It has been handed over, though no answer to the push told so.
                batches.move(connection, batch.id, KeyEvent.ISSUE)
            note_change(connection, batch, EXPIRED, gone, self._wall())
            return withdraw_everywhere(connection, batch, gone)

        await self._write(change)
        return Accepted()

    async def _ask(self, batch: Batch, key_ids: Sequence[UUID]) -> Recalled:
        """Have the master's UKMS give up keys.

        What it does not report as issued is gone if it never held the batch; otherwise only what it reports void.
        Of a batch whose master's UKMS lost its store nobody knows what was issued: all of it counts as issued.
        """
        asked = batch.among(key_ids) if key_ids else batch.key_ids
        if not asked or batch.state is KeyState.DESTROYED:
            return Recalled([], asked)
        self._releases.recalled(batch.id)
        request = VoidKeys(batch=batch.id, key_ids=asked)
        reply = await self._delivery.call(batch.master_ukms, DELIVERY_VOID, request)
        known = await self._store.read(lambda connection: store_of(connection, batch.master_ukms))
        if known is not None and reply.store not in ("", known):
            raise ServiceError(ErrorCode.BUSY, "this UKMS has a new store, which cannot tell what was issued")
        issued, void = set(reply.issued), set(reply.voided)
        released = batch.state is KeyState.RELEASED
        return Recalled(
            gone=[key_id for key_id in asked if (key_id not in issued if released else key_id in void)],
            issued=[key_id for key_id in asked if key_id in issued],
        )

    def _record(self, connection: Connection, batch: Batch, recalled: Recalled) -> list[str]:
        """Record what the master's UKMS gave up: usage reversed, copies of slaves on this side withdrawn."""
        gone, issued = recalled.gone, recalled.issued
        note_change(connection, batch, VOID, gone, self._wall())
        present = batches.find(connection, batch.id)
        if present is not None:
            exposures.note_issued(connection, present, len(issued))
        if present is not None and present.state is KeyState.RELEASED:
            if issued:
                # It has been handed over, though no answer to the push told so: what is left of it expires there.
                batches.move(connection, batch.id, KeyEvent.ISSUE)
            elif len(gone) == len(batch.key_ids):
                batches.move(connection, batch.id, KeyEvent.VOID)
        return void_copies(connection, batch, gone)

    async def _recall(self, errand: Errand) -> None:
        """The master's UKMS gives up a batch; what it gives up goes everywhere."""
        batch = await self._store.read(lambda connection: batches.find(connection, errand.batch))
        if batch is None or batch.state not in (KeyState.RELEASED, KeyState.ISSUED):
            return
        recalled = await self._ask(batch, ())

        def change(connection: Connection) -> list[str]:
            self._record(connection, batch, recalled)
            return withdraw_everywhere(connection, batch, recalled.gone)

        await self._write(change)

    async def _write(self, change: Callable[[Connection], list[str]]) -> None:
        """Write a change to usage, and send off the errands that come of it."""
        self._errands.wake(*await self._store.write(change))
        self._accounting.wake()
