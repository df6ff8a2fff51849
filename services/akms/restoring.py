"""Records that this AKMS has lost, from those with whom it shared the batches.

A store may have been destroyed, or put back to an older copy. After every start the other AKMSs are asked which
released batches they share with this one. One without a record here is recorded again, provided that a UKMS of this
AKMS has it: so its keys are counted (AAA takes a record once), and later words on them find their way.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from functools import partial

from sqlalchemy import Connection

from keyhaul.keys.states import KeyState
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls, Peer
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import Records, RecordsReply, Shared, SharedBatches, SharedRecord
from keyhaul.transport.operations import PEER_RECORDS, PEER_SHARED
from services.akms import batches
from services.akms.accounting import Accounting, note_release
from services.akms.batches import Batch, Part, Site
from services.akms.errands import TRANSIENT
from services.akms.metrics import Metrics
from services.akms.pace import Pace
from services.akms.permission import MAXIMUM_BATCH, Refused, check_names
from services.akms.receiving import MAXIMUM_LIFETIME_MS
from services.akms.searching import Found, Searching
from services.akms.stores import UkmsStores
from services.akms.tasks import Tasks

MAXIMUM_RECORDS = 32
"""Records in one answer: of up to 1,024 keys each."""

LARGEST_KEY = 65_536
"""Bits."""

LONGEST_CLASS = 16
"""Characters of a service class's name."""

_PAGE = 1_024
_NAME = re.compile(r"[0-9a-f]{32}")


class _Unsure(Exception):
    """Not every UKMS could be asked."""


class Restoring:
    """Answers other AKMSs from this one's records, and asks them for what is missing here."""

    def __init__(
        self,
        store: Store,
        peers: Mapping[str, Calls],
        searching: Searching,
        stores: UkmsStores,
        accounting: Accounting,
        tasks: Tasks,
        metrics: Metrics,
        pace: Pace,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._peers = peers
        self._searching = searching
        self._stores = stores
        self._accounting = accounting
        self._tasks = tasks
        self._metrics = metrics
        self._pace = pace
        self._wall = wall

    async def shared(self, peer: Peer, message: Shared) -> SharedBatches:
        """peer.shared: names of released batches of the caller and this AKMS."""
        now = self._wall()
        page = partial(batches.shared, peer=peer.name.id, after=message.after, now=now, limit=_PAGE)
        return SharedBatches(batches=await self._store.read(page))

    async def records(self, peer: Peer, message: Records) -> RecordsReply:
        """peer.records: what is on record of batches of the caller and this AKMS."""
        if len(message.batches) > MAXIMUM_RECORDS:
            raise ServiceError(ErrorCode.MALFORMED, "too many batches")
        now = self._wall()
        found = await self._store.read(lambda c: [batches.find(c, name) for name in message.batches])
        mine = [batch for batch in found if batch is not None and batch.peer == peer.name.id and batch.key_ids]
        return RecordsReply(records=[_record_of(batch, now) for batch in mine])

    def start(self) -> None:
        """Ask every other AKMS once, as soon as it answers."""
        for peer, calls in self._peers.items():
            self._tasks.start(self._restore(peer, calls), f"records shared with {peer}")

    async def _restore(self, peer: str, calls: Calls) -> None:
        backoff = self._pace.backoff
        while True:
            try:
                await self._go_through(peer, calls)
            except _Unsure:
                pass
            except ServiceError as error:
                if error.code not in TRANSIENT:
                    return
            else:
                return
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, self._pace.trace_limit)

    async def _go_through(self, peer: str, calls: Calls) -> None:
        after, sure = "", True
        while True:
            page = (await calls.call(PEER_SHARED, Shared(after=after), deadline=self._pace.call)).batches
            if not page or page[-1] <= after or len(page) > _PAGE:
                break
            after = page[-1]
            lost = await self._store.read(partial(_unknown, names=[name for name in page if _NAME.fullmatch(name)]))
            found = await self._searching.find(lost)
            here = [name for name in lost if found[name].masters or found[name].holders]
            for start in range(0, len(here), MAXIMUM_RECORDS):
                request = Records(batches=here[start : start + MAXIMUM_RECORDS])
                reply = await calls.call(PEER_RECORDS, request, deadline=2 * self._pace.call)
                await self._record_again(peer, reply.records, found)
            sure &= all(found[name].sure for name in lost if name not in here)
        if not sure:
            raise _Unsure

    async def _record_again(self, peer: str, records: list[SharedRecord], found: Mapping[str, Found]) -> None:
        """Record batches of which both the other AKMS and a UKMS here say that they are shared."""
        again = [self._batch(peer, record, found[record.batch]) for record in records if _fits(record, found)]

        def change(connection: Connection) -> None:
            for batch in again:
                if batches.find(connection, batch.id) is None:
                    batches.record(connection, batch)
                    if batch.part is Part.ASKER:
                        note_release(connection, batch, self._wall())

        await self._store.write(change)
        self._metrics.restored.inc(len(again))
        self._accounting.wake()

    def _batch(self, peer: str, record: SharedRecord, place: Found) -> Batch:
        """The batch as this AKMS had it."""
        return Batch(
            id=record.batch,
            part=Part.ASKER if record.made_here else Part.MAKER,
            peer=peer,
            request=record.request,
            grant=record.grant,
            master=record.master,
            master_ukms=place.masters[0] if record.made_here else "",
            slaves=record.slaves,
            sites={ukms: Site([], self._stores.known(ukms).store) for ukms in place.holders},
            service_class=record.service_class,
            size=record.size,
            key_ids=record.key_ids,
            expires=self._wall() + record.left_ms / 1000,
            state=KeyState.ISSUED if record.made_here else KeyState.RELEASED,
        )


def _fits(record: SharedRecord, found: Mapping[str, Found]) -> bool:
    """Whether a record is well-formed, and the UKMSs here have the batch as it says."""
    place = found.get(record.batch)
    try:
        check_names(record.master, record.slaves)
    except Refused:
        return False
    return (
        place is not None
        and (len(place.masters) == 1 if record.made_here else bool(place.holders) and not place.masters)
        and _NAME.fullmatch(record.grant) is not None
        and (not record.request or _NAME.fullmatch(record.request) is not None)
        and len(record.service_class) <= LONGEST_CLASS
        and 0 < record.size <= LARGEST_KEY
        and 0 < len(set(record.key_ids)) == len(record.key_ids) <= MAXIMUM_BATCH
        and 0 < record.left_ms <= MAXIMUM_LIFETIME_MS
    )


def _unknown(connection: Connection, names: list[str]) -> list[str]:
    return [name for name in names if batches.find(connection, name) is None]


def _record_of(batch: Batch, now: float) -> SharedRecord:
    made_here = batch.part is Part.MAKER
    return SharedRecord(
        batch=batch.id,
        made_here=made_here,
        grant=batch.grant,
        master=batch.master,
        slaves=batch.slaves,
        service_class=batch.service_class,
        size=batch.size,
        key_ids=batch.key_ids,
        left_ms=max(0, int((batch.expires - now) * 1000)),
        request=batch.request if made_here else "",
    )
