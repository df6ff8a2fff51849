"""Void, query, withdraw: how keys that only one side can ever use are withdrawn on both.

A slave's copy goes only after the master's side has durably said that it has not issued the key and never will. Where
an asker has no record of a batch, its own life tells that it never got it, or its UKMSs tell; a batch that none of them
has gets a tombstone, so that a late transfer finds it void. All steps are idempotent; what must reach somebody is an
errand (`resolving`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from keyhaul.identity.names import ServiceName
from keyhaul.keys.states import KeyEvent, KeyState
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls, Peer
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState, Query, QueryReply, Voided, VoidKeys, Withdraw
from keyhaul.transport.operations import DELIVERY_VOID
from services.akms import batches
from services.akms.accounting import EXPIRED, VOID, Accounting, note_change
from services.akms.batches import Batch, Part, Site
from services.akms.delivery import Delivery
from services.akms.errands import Errand, ErrandKind, Errands
from services.akms.holding import Holding, void_copies, withdraw_everywhere
from services.akms.leftovers import Leftovers
from services.akms.releasing import Releases
from services.akms.requesting import Requesting
from services.akms.searching import Searching
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
        requesting: Requesting,
        holding: Holding,
        leftovers: Leftovers,
        searching: Searching,
        releases: Releases,
        lifetime: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._peers = peers
        self._delivery = delivery
        self._errands = errands
        self._accounting = accounting
        self._requesting = requesting
        self._holding = holding
        self._leftovers = leftovers
        self._searching = searching
        self._releases = releases
        self._lifetime = lifetime
        self._wall = wall
        errands.serve(ErrandKind.RECALL, self._recall)

    async def query(self, peer: Peer, message: Query) -> QueryReply:
        """peer.query: what this asker knows of a maker's batches; those of other makers are unknown to it.

        Its UKMSs are asked for what an earlier process may have released without its record having lasted. `PREPARED`
        is the answer too where that cannot be told yet.
        """
        if len(message.batches) > MAXIMUM_QUERIED or len(message.requests) not in (0, len(message.batches)):
            raise ServiceError(ErrorCode.MALFORMED, "too many batches, or not a request for each")
        requests = message.requests or [""] * len(message.batches)
        taking = {name for name in message.batches if self._requesting.taking(name)}
        before = await self._store.read(partial(_find_all, names=message.batches))
        doubtful = [
            name
            for name, batch, request in zip(message.batches, before, requests, strict=True)
            if peer.name.id in self._peers
            and _BATCH.fullmatch(name)
            and name not in taking
            and not self._requesting.asked(request)
            and (batch is None or (_of_maker(batch, peer) and batch.state is KeyState.PREPARED))
        ]
        found = await self._searching.find(doubtful, peer.name.id) if doubtful else {}
        known = await self._store.read(partial(_find_all, names=message.batches)) if doubtful else before

        def state(name: str, batch: Batch | None) -> BatchState:
            if name in found and found[name].masters:
                return BatchState.RELEASED
            if batch is not None:
                return batch.for_peers if _of_maker(batch, peer) else BatchState.UNKNOWN
            undecided = name in taking or (name in found and not found[name].sure)
            return BatchState.PREPARED if undecided else BatchState.UNKNOWN

        return QueryReply(states=[state(*one) for one in zip(message.batches, known, strict=True)])

    async def void(self, peer: Peer, message: VoidKeys) -> Voided:
        """peer.void: give up what the master here has not issued; the answer is durable.

        Raises:
            ServiceError: malformed; forbidden (not a configured peer); conflict (another maker's batch, or nobody can
                tell any more what was issued); busy; or what the master's UKMS says.
        """
        if not _BATCH.fullmatch(message.batch):
            raise ServiceError(ErrorCode.MALFORMED, "a batch's name is 32 hexadecimal digits")
        if peer.name.id not in self._peers:
            raise ServiceError(ErrorCode.FORBIDDEN, "not a configured peer")
        async with self._requesting.refusing(message.batch):
            batch = await self._find(peer, message)
        if batch is None or _is_tombstone(batch):
            return Voided()
        if not _of_maker(batch, peer):
            raise ServiceError(ErrorCode.CONFLICT, "not a batch of this maker")
        if batch.state is KeyState.VOID:
            return Voided(voided=batch.key_ids)
        gone, issued = await self._ask_master(batch, message.key_ids)
        self._errands.wake(*await self._store.write(lambda c: self._write_void(c, batch, gone, issued)))
        self._accounting.wake()
        if not message.key_ids and not batch.request:
            raise ServiceError(ErrorCode.CONFLICT, "the record is lost: not all that was issued can be named")
        return Voided(voided=gone, issued=issued)

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
        if not _of_maker(batch, peer) or batch.state is not KeyState.PREPARED:
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
            gone = _known(batch, message.key_ids)
            if gone:
                self._errands.wake(*await self._store.write(lambda c: void_copies(c, batch, gone)))
        return Accepted()

    async def withdraw_expired(self, neighbour: ServiceName, message: Withdraw) -> Accepted:
        """access.withdraw: the master's UKMS let keys expire unissued."""
        batch = await self._store.read(lambda connection: batches.find(connection, message.batch))
        if batch is None:
            if not _BATCH.fullmatch(message.batch) or not 0 < len(message.key_ids) <= MAXIMUM_QUERIED:
                raise ServiceError(ErrorCode.MALFORMED, "a withdrawal names a batch and a bounded number of its keys")
            gone = list(dict.fromkeys(message.key_ids))
            await self._accounting.expired(neighbour.id, message.batch, gone)
            return Accepted()
        if batch.master_ukms != neighbour.id:
            return Accepted()
        if batch.state is KeyState.PREPARED:
            raise ServiceError(ErrorCode.BUSY, "the batch is being decided", retry_after_ms=1000)
        gone = _known(batch, message.key_ids)
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
        if present is not None and present.state is KeyState.RELEASED:
            if issued:
                # It has been handed over, though no answer to the push told so: what is left of it expires there.
                batches.move(connection, batch.id, KeyEvent.ISSUE)
            elif len(gone) == len(batch.key_ids):
                batches.move(connection, batch.id, KeyEvent.VOID)
        return void_copies(connection, batch, gone) if gone else []

    async def _recall(self, errand: Errand) -> None:
        """The master's UKMS gives up a batch; what it gives up goes everywhere."""
        batch = await self._store.read(lambda connection: batches.find(connection, errand.batch))
        if batch is None or batch.state not in (KeyState.RELEASED, KeyState.ISSUED):
            return
        gone, issued = await self._ask_master(batch, ())

        def change(connection: Connection) -> list[str]:
            self._write_void(connection, batch, gone, issued)
            return withdraw_everywhere(connection, batch, gone)

        self._errands.wake(*await self._store.write(change))
        self._accounting.wake()


def _find_all(connection: Connection, names: Sequence[str]) -> list[Batch | None]:
    return [batches.find(connection, name) for name in names]


def _known(batch: Batch, key_ids: Iterable[UUID]) -> list[UUID]:
    wanted = set(key_ids)
    return [key_id for key_id in batch.key_ids if key_id in wanted]


def _of_maker(batch: Batch, peer: Peer) -> bool:
    return batch.part is Part.ASKER and batch.peer == peer.name.id


def _is_tombstone(batch: Batch) -> bool:
    """Whether a batch was void before it came: it never will, whoever laid the stone and whoever asks."""
    return batch.part is Part.ASKER and batch.state is KeyState.VOID and not batch.key_ids
