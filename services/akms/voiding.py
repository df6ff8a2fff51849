"""Void and withdraw: how keys that only one side can ever use are withdrawn on both.

A slave's copy goes only after the master's side has durably said that it has not issued the key and never will. Where
an asker has no record of a batch, its own life tells that it never got it, or its UKMSs tell; a batch that none of them
has gets a tombstone, so that a late transfer finds it void. All steps are idempotent; what must reach somebody is an
errand (`resolving`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sqlalchemy import Connection

from keyhaul.keys.states import KeyState
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls, Peer
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import Voided, VoidKeys, Withdraw
from keyhaul.transport.operations import DELIVERY_VOID
from services.akms import batches
from services.akms.batches import Batch, Part, Site
from services.akms.delivery import Delivery
from services.akms.errands import Errands
from services.akms.holding import Holding, void_copies
from services.akms.leftovers import Leftovers
from services.akms.recalling import Recalling
from services.akms.requesting import Requesting
from services.akms.searching import Searching

MAXIMUM_VOID = 262_144
"""Void batches on record; a void of yet another batch of which nothing is known waits."""


class Voiding:
    """Withdrawal of keys, as maker and as asker."""

    def __init__(
        self,
        store: Store,
        peers: Mapping[str, Calls],
        delivery: Delivery,
        errands: Errands,
        requesting: Requesting,
        holding: Holding,
        leftovers: Leftovers,
        searching: Searching,
        recalling: Recalling,
        lifetime: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._peers = peers
        self._delivery = delivery
        self._errands = errands
        self._requesting = requesting
        self._holding = holding
        self._leftovers = leftovers
        self._searching = searching
        self._recalling = recalling
        self._lifetime = lifetime
        self._wall = wall

    async def void(self, peer: Peer, message: VoidKeys) -> Voided:
        """peer.void: give up what the master here has not issued; the answer is durable.

        Raises:
            ServiceError: malformed; forbidden (not a configured peer); conflict (another maker's batch, or nobody can
                tell any more what was issued); busy; or what the master's UKMS says.
        """
        if not batches.NAME.fullmatch(message.batch):
            raise ServiceError(ErrorCode.MALFORMED, "a batch's name is 32 hexadecimal digits")
        if peer.name.id not in self._peers:
            raise ServiceError(ErrorCode.FORBIDDEN, "not a configured peer")
        async with self._requesting.refusing(message.batch):
            batch = await self._find(peer, message)
        if batch is None or batch.is_tombstone:
            return Voided()
        if not batch.is_made_by(peer.name.id):
            raise ServiceError(ErrorCode.CONFLICT, "not a batch of this maker")
        if batch.state is KeyState.VOID:
            return Voided(voided=batch.key_ids)
        recalled = await self._recalling.recall(batch, message.key_ids)
        if not message.key_ids and not batch.request:
            raise ServiceError(ErrorCode.CONFLICT, "the record is lost: not all that was issued can be named")
        return Voided(voided=recalled.gone, issued=recalled.issued)

    async def _find(self, peer: Peer, message: VoidKeys) -> Batch | None:
        """The batch as it is now decided: not prepared any more; None with a tombstone where it was never released.

        Raises:
            ServiceError: busy, or as the master's UKMS; nothing is decided.
        """
        name = message.batch
        own = self._requesting.asked(message.request)
        batch = await self._store.read(lambda connection: batches.find(connection, name))
        if batch is None:
            return await self._recovered(peer, message, own) or await self._bury(peer, name)
        if not batch.is_made_by(peer.name.id) or batch.state is not KeyState.PREPARED:
            return batch
        if own:
            await self._holding.discard(batch)
        else:
            await self._leftovers.decide(batch.master_ukms, [batch])
        return await self._store.read(lambda connection: batches.find(connection, name))

    async def _recovered(self, peer: Peer, message: VoidKeys, own: bool) -> Batch | None:
        """A batch that was released before its record was lost, as far as it can be told; it is not recorded again.

        What this process asked for itself it never got, where there is no record of it.
        """
        if own:
            return None
        found = (await self._searching.find([message.batch], peer.name.id))[message.batch]
        if len(found.masters) > 1:
            raise ServiceError(ErrorCode.CONFLICT, "two UKMSs say that they have the master's copies")
        if not found.masters:
            if not found.sure:
                raise ServiceError(ErrorCode.BUSY, "not every UKMS can be asked", retry_after_ms=1000)
            return None
        ukms, key_ids = found.masters[0], message.key_ids
        if not key_ids:
            reply = await self._delivery.call(ukms, DELIVERY_VOID, VoidKeys(batch=message.batch))
            key_ids = [*reply.voided, *reply.issued]
        return Batch(
            id=message.batch,
            part=Part.ASKER,
            peer=peer.name.id,
            request="",
            grant="",
            master="",
            master_ukms=ukms,
            slaves=[],
            sites={holder: Site([]) for holder in found.holders},
            service_class="",
            size=0,
            key_ids=key_ids,
            expires=self._wall() + self._lifetime,
            state=KeyState.ISSUED,
        )

    async def _bury(self, peer: Peer, name: str) -> Batch | None:
        """Lay a tombstone, unless there is a record by now; returns that."""
        expires = self._wall() + self._lifetime

        def bury(connection: Connection) -> Batch | None:
            known = batches.find(connection, name)
            if known is None:
                if batches.count_void(connection, Part.ASKER) >= MAXIMUM_VOID:
                    raise ServiceError(ErrorCode.BUSY, "too many void batches are on record", retry_after_ms=5000)
                batches.tombstone(connection, name, peer.name.id, expires)
            return known

        return await self._store.write(bury)

    async def withdraw(self, peer: Peer, message: Withdraw) -> Accepted:
        """peer.withdraw: the master's side has given keys up; the slaves' copies here go."""
        batch = await self._store.read(lambda connection: batches.find(connection, message.batch))
        if batch is not None and batch.part is Part.MAKER and batch.peer == peer.name.id:
            gone = batch.among(message.key_ids)
            if gone:
                self._errands.wake(*await self._store.write(lambda c: void_copies(c, batch, gone)))
        return Accepted()
