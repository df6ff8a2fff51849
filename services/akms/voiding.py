"""Void, query, withdraw: how keys that only one side can ever use are withdrawn on both.

A slave's copy goes only after the master's side has durably said that it has not issued the key and never will. A
batch of which an asker knows nothing gets a tombstone, so that a late transfer finds it void. All steps are
idempotent; those that must reach somebody are errands.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from uuid import UUID

from sqlalchemy import Connection

from keyhaul.identity.names import ServiceName
from keyhaul.keys.states import KeyEvent, KeyState
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls, Peer
from keyhaul.transport.messages.access import Revoke
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState, Query, QueryReply, Voided, VoidKeys, Withdraw
from keyhaul.transport.operations import DELIVERY_REVOKE, DELIVERY_VOID, PEER_QUERY, PEER_VOID, PEER_WITHDRAW
from services.akms import batches, errands
from services.akms.accounting import EXPIRED, VOID, Accounting, note_change
from services.akms.asking import Asking
from services.akms.batches import Batch, Part
from services.akms.changes import uncount
from services.akms.delivery import Delivery
from services.akms.errands import Errand, ErrandKind, Errands, Facts, Finish
from services.akms.holding import void_copies
from services.akms.pace import Pace
from services.akms.releasing import Releases
from services.akms.tables import store_of

MAXIMUM_QUERIED = 1024

MAXIMUM_VOID = 262_144
"""Void batches on record; a void of yet another batch of which nothing is known waits."""

_BATCH = re.compile(r"[0-9a-f]{32}")


class Voiding:
    """Withdrawal of keys, as maker and as asker."""

    def __init__(
        self,
        store: Store,
        peers: Mapping[str, Calls],
        delivery: Delivery,
        errands: Errands,
        accounting: Accounting,
        asking: Asking,
        releases: Releases,
        pace: Pace,
        lifetime: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._peers = peers
        self._delivery = delivery
        self._errands = errands
        self._accounting = accounting
        self._asking = asking
        self._releases = releases
        self._pace = pace
        self._lifetime = lifetime
        self._wall = wall
        errands.serve(ErrandKind.VOID_COPIES, self._void_copies)
        errands.serve(ErrandKind.WITHDRAW, self._withdraw)
        errands.serve(ErrandKind.VOID_AT_ASKER, self._void_at_asker)
        errands.serve(ErrandKind.RECALL, self._recall)
        errands.serve(ErrandKind.RESOLVE, self._resolve)
        errands.serve(ErrandKind.REVOKE, self._revoke)

    async def query(self, peer: Peer, message: Query) -> QueryReply:
        """peer.query: what this asker knows of a maker's batches; those of other makers are unknown to it."""
        if len(message.batches) > MAXIMUM_QUERIED:
            raise ServiceError(ErrorCode.MALFORMED, "too many batches")

        def states(connection: Connection) -> list[BatchState]:
            known = (batches.find(connection, batch) for batch in message.batches)
            return [
                batch.for_peers
                if batch is not None and batch.part is Part.ASKER and batch.peer == peer.name.id
                else BatchState.UNKNOWN
                for batch in known
            ]

        return QueryReply(states=await self._store.read(states))

    async def void(self, peer: Peer, message: VoidKeys) -> Voided:
        """peer.void: give up what the master here has not issued; the answer is durable.

        Raises:
            ServiceError: malformed; forbidden (not a configured peer); conflict (another maker's batch); busy; or what
                the master's UKMS says.
        """
        if not _BATCH.fullmatch(message.batch):
            raise ServiceError(ErrorCode.MALFORMED, "a batch's name is 32 hexadecimal digits")
        if peer.name.id not in self._peers:
            raise ServiceError(ErrorCode.FORBIDDEN, "not a configured peer")
        await self._asking.finished(message.batch)
        expires = self._wall() + self._lifetime

        def bury(connection: Connection) -> Batch | None:
            known = batches.find(connection, message.batch)
            if known is None:
                if batches.count_void(connection, Part.ASKER) >= MAXIMUM_VOID:
                    raise ServiceError(ErrorCode.BUSY, "too many void batches are on record", retry_after_ms=5000)
                batches.tombstone(connection, message.batch, peer.name.id, expires)
            return known

        batch = await self._store.write(bury)
        if batch is None or _is_tombstone(batch):
            return Voided()
        if batch.part is not Part.ASKER or batch.peer != peer.name.id:
            raise ServiceError(ErrorCode.CONFLICT, "not a batch of this maker")
        if batch.state is KeyState.VOID:
            return Voided(voided=batch.key_ids)
        if batch.state is KeyState.PREPARED:
            await self._drop_prepared(batch)
            return Voided(voided=batch.key_ids)
        gone, issued = await self._ask_master(batch, message.key_ids)
        self._errands.wake(*await self._store.write(lambda c: self._write_void(c, batch, gone, issued)))
        self._accounting.wake()
        return Voided(voided=gone, issued=issued)

    async def withdraw(self, peer: Peer, message: Withdraw) -> Accepted:
        """peer.withdraw: the master's side has given keys up; the slaves' copies here go."""
        batch = await self._store.read(lambda connection: batches.find(connection, message.batch))
        if batch is not None and batch.part is Part.MAKER and batch.peer == peer.name.id:
            gone = _known(batch, message.key_ids)
            if gone:
                self._errands.wake(*await self._store.write(lambda c: void_copies(c, batch, gone)))
        return Accepted()

    async def withdraw_expired(self, neighbour: ServiceName, message: Withdraw) -> Accepted:
        """access.withdraw: the master's UKMS let keys expire unissued."""
        batch = await self._store.read(lambda connection: batches.find(connection, message.batch))
        if batch is None or batch.master_ukms != neighbour.id:
            return Accepted()
        gone = _known(batch, message.key_ids)
        if not gone:
            return Accepted()

        def change(connection: Connection) -> list[str]:
            note_change(connection, batch, EXPIRED, gone, self._wall())
            return self._pass_on(connection, batch, gone)

        self._errands.wake(*await self._store.write(change))
        self._accounting.wake()
        return Accepted()

    async def _ask_master(self, batch: Batch, key_ids: Sequence[UUID]) -> tuple[list[UUID], list[UUID]]:
        """Have the master's UKMS give up keys (none named: all); returns those that are gone, and those issued.

        What it does not report as issued is gone if it never held the batch; otherwise only what it reports void.
        Of a batch whose master's UKMS lost its store nobody knows what was issued: all of it counts as issued.
        """
        asked = _known(batch, key_ids) if key_ids else batch.key_ids
        if not asked or batch.state is KeyState.DESTROYED:
            return [], asked
        self._releases.recalled(batch.id)
        request = VoidKeys(batch=batch.id, key_ids=asked)
        reply = await self._delivery.call(batch.master_ukms, DELIVERY_VOID, request)
        known = await self._store.read(lambda connection: store_of(connection, batch.master_ukms))
        if known is not None and reply.store not in ("", known):
            raise ServiceError(ErrorCode.BUSY, "this UKMS has a new store, which cannot tell what was issued")
        issued = [key_id for key_id in asked if key_id in set(reply.issued)]
        if batch.state is KeyState.RELEASED:
            return [key_id for key_id in asked if key_id not in set(issued)], issued
        return [key_id for key_id in asked if key_id in set(reply.voided)], issued

    def _write_void(self, connection: Connection, batch: Batch, gone: list[UUID], issued: list[UUID]) -> list[str]:
        """Record what the master's UKMS gave up: usage reversed, copies of slaves on this side withdrawn."""
        note_change(connection, batch, VOID, gone, self._wall())
        present = batches.find(connection, batch.id)
        if (
            present is not None
            and present.state is KeyState.RELEASED
            and not issued
            and len(gone) == len(batch.key_ids)
        ):
            batches.move(connection, batch.id, KeyEvent.VOID)
        return void_copies(connection, batch, gone) if gone else []

    def _pass_on(self, connection: Connection, batch: Batch, key_ids: list[UUID]) -> list[str]:
        """Errands that withdraw given-up keys at the maker and at the slaves on this side."""
        if not key_ids:
            return []
        targets = void_copies(connection, batch, key_ids)
        if batch.part is Part.ASKER:
            facts = Facts(key_ids=[str(key_id) for key_id in key_ids])
            withdraw = Errand(ErrandKind.WITHDRAW, batch.peer, batch.id, facts, batch.expires)
            targets.append(errands.add(connection, withdraw))
        return targets

    async def _drop_prepared(self, batch: Batch) -> None:
        def change(connection: Connection) -> list[str]:
            present = batches.find(connection, batch.id)
            if present is None or present.state is not KeyState.PREPARED:
                return []
            batches.move(connection, batch.id, KeyEvent.VOID)
            return void_copies(connection, batch)

        self._errands.wake(*await self._store.write(change))

    async def _void_copies(self, errand: Errand) -> Finish | None:
        await self._delivery.call(errand.target, DELIVERY_VOID, VoidKeys(batch=errand.batch, key_ids=_key_ids(errand)))
        return None

    async def _withdraw(self, errand: Errand) -> Finish | None:
        request = Withdraw(batch=errand.batch, key_ids=_key_ids(errand))
        await self._peer(errand).call(PEER_WITHDRAW, request, deadline=self._pace.call)
        return None

    async def _revoke(self, errand: Errand) -> Finish | None:
        request = Revoke(master=errand.facts.master, slaves=errand.facts.slaves)
        await self._delivery.call(errand.target, DELIVERY_REVOKE, request)
        return None

    async def _recall(self, errand: Errand) -> Finish | None:
        """The master's UKMS gives up a batch; what it gives up goes everywhere."""
        batch = await self._store.read(lambda connection: batches.find(connection, errand.batch))
        if batch is None or batch.state not in (KeyState.RELEASED, KeyState.ISSUED):
            return None
        gone, issued = await self._ask_master(batch, ())

        def finish(connection: Connection) -> list[str]:
            self._write_void(connection, batch, gone, issued)
            return self._pass_on(connection, batch, gone)

        self._accounting.wake()
        return finish

    async def _void_at_asker(self, errand: Errand) -> Finish | None:
        """Slaves' copies at one of this maker's UKMSs are lost: nobody may issue the batch any more."""
        batch = await self._store.read(lambda connection: batches.find(connection, errand.batch))
        if batch is None or batch.state is not KeyState.RELEASED:
            return None
        reply = await self._peer(errand).call(PEER_VOID, VoidKeys(batch=batch.id), deadline=2 * self._pace.call)
        return lambda connection: self._drop_copies(connection, batch, reply)

    async def _resolve(self, errand: Errand) -> Finish | None:
        """A transfer's outcome is unknown: the asker has released the batch, or records that it never will."""
        batch = await self._store.read(lambda connection: batches.find(connection, errand.batch))
        if batch is None or batch.state is not KeyState.PREPARED:
            return None
        peer = self._peer(errand)
        known = await peer.call(PEER_QUERY, Query(batches=[batch.id]), deadline=self._pace.call)
        if known.states == [BatchState.RELEASED]:
            return lambda connection: self._settle(connection, batch)
        reply = await peer.call(PEER_VOID, VoidKeys(batch=batch.id), deadline=2 * self._pace.call)

        def finish(connection: Connection) -> list[str]:
            if not reply.issued:
                uncount(connection, batch.grant, len(batch.key_ids))
            return self._drop_copies(connection, batch, reply)

        return finish

    def _settle(self, connection: Connection, batch: Batch) -> list[str]:
        present = batches.find(connection, batch.id)
        if present is None or present.state is not KeyState.PREPARED:
            return []
        batches.move(connection, batch.id, KeyEvent.RELEASE)
        if not batches.is_lost(present, {}):
            return []
        return [errands.add(connection, Errand(ErrandKind.VOID_AT_ASKER, batch.peer, batch.id, expires=batch.expires))]

    def _drop_copies(self, connection: Connection, batch: Batch, reply: Voided) -> list[str]:
        """The asker's answer is final: the copies of what was not issued go."""
        issued = set(reply.issued)
        present = batches.find(connection, batch.id)
        if present is None or present.state not in (KeyState.PREPARED, KeyState.RELEASED):
            return []
        if not issued:
            batches.move(connection, batch.id, KeyEvent.VOID)
            return void_copies(connection, batch)
        if present.state is KeyState.PREPARED:
            batches.move(connection, batch.id, KeyEvent.RELEASE)
        return void_copies(connection, batch, [key_id for key_id in batch.key_ids if key_id not in issued])

    def _peer(self, errand: Errand) -> Calls:
        try:
            return self._peers[errand.target]
        except KeyError:
            raise ServiceError(ErrorCode.NOT_PERMITTED, "no way to this AKMS is configured") from None


def _known(batch: Batch, key_ids: Iterable[UUID]) -> list[UUID]:
    wanted = set(key_ids)
    return [key_id for key_id in batch.key_ids if key_id in wanted]


def _key_ids(errand: Errand) -> list[UUID]:
    return [UUID(key_id) for key_id in errand.facts.key_ids]


def _is_tombstone(batch: Batch) -> bool:
    """Whether a batch was void before it came: it never will, whoever laid the stone and whoever asks."""
    return batch.part is Part.ASKER and batch.state is KeyState.VOID and not batch.key_ids
