"""Usage to AAA: every released batch once, later words on its keys after it, through outages and restarts.

Lines are written in the transaction that releases (or voids) and deleted when AAA has acknowledged them; AAA counts
a line once however often it comes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from keyhaul.keys.identifiers import pack, unpack
from keyhaul.runtime.interface import Runtime
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls
from keyhaul.transport.messages.aaa import Usage, UsageChange, UsageRecord
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import AAA_USAGE
from services.akms.batches import Batch
from services.akms.metrics import Metrics
from services.akms.pace import Pace
from services.akms.tables import USAGE

_LINES = 64
_REFUSALS = frozenset({ErrorCode.NOT_PERMITTED, ErrorCode.MALFORMED})
_RECORD = "record"
VOID = "void"
EXPIRED = "expired"

MAXIMUM_UNKNOWN = 1_024
"""Lines by the word of one UKMS on batches that have no record here any more, those that AAA refused among them."""


class Room(Enum):
    """Whether a UKMS's share of such lines had room for one more."""

    FREE = auto()
    MADE = auto()
    """A refused one went."""
    NONE = auto()


def note_release(connection: Connection, batch: Batch, now: float) -> None:
    """Write the usage record of a batch, in the transaction that releases it."""
    _line(connection, _RECORD, batch, batch.key_ids, now)


def note_change(connection: Connection, batch: Batch, change: str, key_ids: Iterable[UUID], now: float) -> None:
    """Write that keys of a recorded batch are `VOID` (their count is reversed) or `EXPIRED` (never fetched)."""
    known = set(batch.key_ids)
    concerned = [key_id for key_id in key_ids if key_id in known]
    if concerned:
        _line(connection, change, batch, concerned, now)


def _line(connection: Connection, kind: str, batch: Batch, key_ids: list[UUID], now: float) -> None:
    connection.execute(
        insert(USAGE).values(
            kind=kind,
            batch=batch.id,
            grant=batch.grant,
            ukms=batch.master_ukms,
            size=batch.size,
            key_ids=pack(key_ids),
            at=now,
            refused=False,
        )
    )


def _note_unknown(connection: Connection, ukms: str, batch: str, key_ids: list[UUID], now: float) -> Room:
    """Write that keys are `EXPIRED` whose batch ended here before they did at their UKMS; AAA has the record.

    A line that AAA refused gives way to a new one, the oldest first.
    """
    room = Room.FREE
    mine = (USAGE.c.grant == "", USAGE.c.ukms == ukms)
    if connection.execute(select(func.count()).select_from(USAGE).where(*mine)).scalar_one() >= MAXIMUM_UNKNOWN:
        oldest = connection.execute(select(func.min(USAGE.c.id)).where(*mine, USAGE.c.refused)).scalar_one()
        if oldest is None:
            return Room.NONE
        connection.execute(delete(USAGE).where(USAGE.c.id == oldest))
        room = Room.MADE
    columns = {"kind": EXPIRED, "batch": batch, "grant": "", "ukms": ukms, "size": 0, "at": now}
    connection.execute(insert(USAGE).values(**columns, key_ids=pack(key_ids), refused=False))
    return room


class Accounting:
    """Carries usage lines to AAA."""

    def __init__(
        self,
        store: Store,
        aaa: Calls,
        runtime: Runtime,
        metrics: Metrics,
        pace: Pace,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._aaa = aaa
        self._runtime = runtime
        self._metrics = metrics
        self._pace = pace
        self._wall = wall
        self._news = asyncio.Event()
        self._news.set()

    def wake(self) -> None:
        """Lines were written."""
        self._news.set()

    async def expired(self, ukms: str, batch: str, key_ids: list[UUID]) -> None:
        """Note, durably, that a UKMS says that keys expired whose batch has no record here any more; AAA has it.

        Raises:
            ServiceError: busy, when more such lines of this UKMS wait than AAA took of late.
        """
        now = self._wall()
        room = await self._store.write(lambda c: _note_unknown(c, ukms, batch, key_ids, now))
        if room is not Room.FREE:
            self._runtime.alarm("withdrawals-waiting", ukms=ukms)
        if room is Room.NONE:
            raise ServiceError(ErrorCode.BUSY, "AAA has not taken what was told before", retry_after_ms=5000)
        self.wake()

    async def run(self) -> None:
        """Send lines as they come, for as long as the service runs."""
        while True:
            await self._news.wait()
            await asyncio.sleep(self._pace.accounting)
            self._news.clear()
            if not await self.flush():
                await asyncio.sleep(self._pace.accounting_retry)
                self._news.set()

    async def flush(self) -> bool:
        """Send everything that is written; whether AAA has acknowledged it all."""
        while True:
            rows = await self._store.read(_oldest)
            self._metrics.usage.set(await self._store.read(_count))
            if not rows:
                return True
            if not await self._send(rows):
                return False

    async def _send(self, rows: Sequence[Row[Any]]) -> bool:
        """Send lines; where AAA refuses some of them, each alone, so that a refused one holds up no other."""
        try:
            await self._aaa.call(AAA_USAGE, self._usage(rows), deadline=self._pace.call)
        except ServiceError as error:
            if error.code not in _REFUSALS:
                self._runtime.alarm("usage-not-recorded", code=error.code)
                return False
            if len(rows) > 1:
                for row in rows:
                    if not await self._send([row]):
                        return False
                return True
            self._runtime.alarm("usage-refused", batch=rows[0].batch, ukms=rows[0].ukms)
            await self._store.write(partial(_refused, line=rows[0].id))
            return True
        await self._store.write(partial(_acknowledged, lines=[row.id for row in rows]))
        return True

    def _usage(self, rows: Iterable[Row[Any]]) -> Usage:
        records, changes = [], []
        now = self._wall()
        for row in rows:
            key_ids = unpack(row.key_ids)
            if row.kind == _RECORD:
                age = max(0, int((now - row.at) * 1000))
                records.append(UsageRecord(row.batch, row.grant, key_ids, row.size, age))
            else:
                changes.append(UsageChange(row.batch, row.kind, key_ids, row.ukms))
        return Usage(records=records, changes=changes)


def _oldest(connection: Connection) -> Sequence[Row[Any]]:
    waiting = select(USAGE).where(USAGE.c.refused.is_(False))
    return connection.execute(waiting.order_by(USAGE.c.id).limit(_LINES)).all()


def _acknowledged(connection: Connection, lines: list[int]) -> None:
    connection.execute(delete(USAGE).where(USAGE.c.id.in_(lines)))


def _refused(connection: Connection, line: int) -> None:
    connection.execute(update(USAGE).where(USAGE.c.id == line).values(refused=True))


def _count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(USAGE)).scalar_one()
