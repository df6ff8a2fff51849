"""Errands of voids: a maker asks what became of a batch, and what was given up is passed on.

A maker's slaves' copies go only by the answer of the asker; until it is there they stay held.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import Connection

from keyhaul.keys.states import KeyEvent, KeyState
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls
from keyhaul.transport.messages.access import Revoke
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState, Query, Voided, VoidKeys, Withdraw
from keyhaul.transport.operations import DELIVERY_REVOKE, DELIVERY_VOID, PEER_QUERY, PEER_VOID, PEER_WITHDRAW
from services.akms import batches, errands, exposures
from services.akms.batches import Batch
from services.akms.changes import uncount
from services.akms.delivery import Delivery, states_of
from services.akms.errands import Errand, ErrandKind, Errands, Finish
from services.akms.holding import void_copies
from services.akms.pace import Pace


class Resolving:
    """Errands to askers and UKMSs."""

    def __init__(
        self, store: Store, peers: Mapping[str, Calls], delivery: Delivery, errands: Errands, pace: Pace
    ) -> None:
        self._store = store
        self._peers = peers
        self._delivery = delivery
        self._pace = pace
        errands.serve(ErrandKind.VOID_COPIES, self._void_copies)
        errands.serve(ErrandKind.WITHDRAW, self._withdraw)
        errands.serve(ErrandKind.VOID_AT_ASKER, self._void_at_asker)
        errands.serve(ErrandKind.RESOLVE, self._resolve)
        errands.serve(ErrandKind.REVOKE, self._revoke)

    async def _void_copies(self, errand: Errand) -> Finish | None:
        request = VoidKeys(batch=errand.batch, key_ids=_key_ids(errand))
        reply = await self._delivery.call(errand.target, DELIVERY_VOID, request)
        if not errand.facts.counted:
            return None

        def finish(connection: Connection) -> list[str]:
            batch = batches.find(connection, errand.batch)
            gone = set() if batch is None else set(batch.key_ids) & set(reply.voided)
            uncount(connection, errand.facts.counted, len(gone))
            return []

        return finish

    async def _withdraw(self, errand: Errand) -> Finish | None:
        request = Withdraw(batch=errand.batch, key_ids=_key_ids(errand))
        await self._peer(errand).call(PEER_WITHDRAW, request, deadline=self._pace.call)
        return None

    async def _revoke(self, errand: Errand) -> Finish | None:
        request = Revoke(master=errand.facts.master, slaves=errand.facts.slaves)
        await self._delivery.call(errand.target, DELIVERY_REVOKE, request)
        return None

    async def _void_at_asker(self, errand: Errand) -> Finish | None:
        """Slaves' copies at one of this maker's UKMSs are lost: nobody may issue the batch any more."""
        batch = await self._store.read(lambda connection: batches.find(connection, errand.batch))
        if batch is None or batch.state is not KeyState.RELEASED:
            return None
        reply = await self._peer(errand).call(PEER_VOID, _void_all(batch), deadline=2 * self._pace.call)
        return lambda connection: self._drop_copies(connection, batch, reply)

    async def _resolve(self, errand: Errand) -> Finish | None:
        """A transfer's outcome is unknown: the asker has released the batch, or records that it never will."""
        batch = await self._store.read(lambda connection: batches.find(connection, errand.batch))
        if batch is None or batch.state is not KeyState.PREPARED:
            return None
        peer = self._peer(errand)
        query = Query(batches=[batch.id], requests=[batch.request])
        (known,) = await states_of(peer.call(PEER_QUERY, query, deadline=2 * self._pace.call), [batch.id])
        if known is BatchState.RELEASED:
            return lambda connection: self._settle(connection, batch)
        reply = await peer.call(PEER_VOID, _void_all(batch), deadline=2 * self._pace.call)
        return lambda connection: self._drop_copies(connection, batch, reply)

    def _settle(self, connection: Connection, batch: Batch) -> list[str]:
        present = batches.find(connection, batch.id)
        if present is None or present.state is not KeyState.PREPARED:
            return []
        batches.move(connection, batch.id, KeyEvent.RELEASE)
        if not batches.is_forfeit(present, {}):
            return []
        return [errands.add(connection, Errand(ErrandKind.VOID_AT_ASKER, batch.peer, batch.id, expires=batch.expires))]

    def _drop_copies(self, connection: Connection, batch: Batch, reply: Voided) -> list[str]:
        """The asker's answer is final: the copies of what was not issued go.

        It had the keys and may have given them to somebody, whatever it says: they leave the count of its grant only
        by the word of this maker's own UKMS, that no slave has taken them and none ever will. Where several UKMSs hold
        copies they stay counted.
        """
        issued = set(reply.issued)
        present = batches.find(connection, batch.id)
        if present is None or present.state not in (KeyState.PREPARED, KeyState.RELEASED):
            return []
        exposures.note_issued(connection, present, len(issued))
        if not issued:
            batches.move(connection, batch.id, KeyEvent.VOID)
            uncertain = present.state is KeyState.PREPARED and len(batch.sites) == 1
            return void_copies(connection, batch, counted=batch.grant if uncertain else "")
        if present.state is KeyState.PREPARED:
            batches.move(connection, batch.id, KeyEvent.RELEASE)
        return void_copies(connection, batch, [key_id for key_id in batch.key_ids if key_id not in issued])

    def _peer(self, errand: Errand) -> Calls:
        try:
            return self._peers[errand.target]
        except KeyError:
            raise ServiceError(ErrorCode.NOT_PERMITTED, "no way to this AKMS is configured") from None


def _void_all(batch: Batch) -> VoidKeys:
    """Its keys are named, so that the answer is whole even where the asker lost its record."""
    return VoidKeys(batch=batch.id, key_ids=batch.key_ids, request=batch.request)


def _key_ids(errand: Errand) -> list[UUID]:
    return [UUID(key_id) for key_id in errand.facts.key_ids]
