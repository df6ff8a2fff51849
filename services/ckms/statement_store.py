"""The controller's statements, and the own time, in a CKMS's store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from keyhaul.agents.signing import SignedStatement
from keyhaul.store.interface import Store
from services.ckms.held import Change, Held, HighWater, Kept, KeptStatement
from services.ckms.own_time import Checkpoint, Reading
from services.ckms.tables import standing, statements

_ONLY = 1
"""The number of the one row that says how things stand."""

_AT_ONCE = 100
"""Rows that one statement deletes."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a store had."""

    kept: Kept
    checkpoint: Checkpoint | None
    """None: nothing was ever kept."""


class StatementStore:
    """Reads and writes the rows; what `write` kept has survived a power cut when it returns."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sure = True

    async def load(self) -> Loaded:
        """Read everything.

        Raises:
            StoreUnavailable: the store failed.
        """
        return await self._store.read(_load)

    async def write(self, change: Change, held: Iterable[Held], keys: frozenset[str], checkpoint: Checkpoint) -> None:
        """Keep a change, the pinned keys' fingerprints and the time.

        Args:
            change: what is new and what has ended.
            held: all that is in force with this change; after a write of unknown outcome all of it is kept anew.
            keys: fingerprints.
            checkpoint: the own time now.

        Raises:
            StoreUnavailable: the store failed, or the outcome is unknown.
        """
        whole = None if self._sure else tuple(held)
        self._sure = False
        await self._store.write(lambda connection: _write(connection, change, whole, keys, checkpoint))
        self._sure = True


def _load(connection: Connection) -> Loaded:
    rows = connection.execute(select(statements).order_by(statements.c.serial))
    found = tuple(
        KeptStatement(row.serial, SignedStatement(row.body, row.signature), row.accepted, row.drained) for row in rows
    )
    row = connection.execute(select(standing).where(standing.c.number == _ONLY)).one_or_none()
    if row is None:
        return Loaded(Kept(statements=found), None)
    high = HighWater(row.epoch, row.serial, row.doubt)
    checkpoint = Checkpoint(row.time, Reading(row.boot, row.since_boot, row.wall))
    return Loaded(Kept(high, frozenset(row.pinned.splitlines()), found), checkpoint)


def _write(
    connection: Connection,
    change: Change,
    whole: tuple[Held, ...] | None,
    keys: frozenset[str],
    checkpoint: Checkpoint,
) -> None:
    if whole is None:
        gone = [*change.ended, *(held.statement.serial for held in change.written)]
        for start in range(0, len(gone), _AT_ONCE):
            connection.execute(delete(statements).where(statements.c.serial.in_(gone[start : start + _AT_ONCE])))
    else:
        connection.execute(delete(statements))
    rows = [
        {
            "serial": held.statement.serial,
            "body": held.signed.body,
            "signature": held.signed.signature,
            "accepted": held.accepted,
            "drained": held.drained,
        }
        for held in (change.written if whole is None else whole)
    ]
    if rows:
        connection.execute(insert(statements), rows)
    connection.execute(delete(standing))
    reading = checkpoint.reading
    connection.execute(
        insert(standing).values(
            number=_ONLY,
            epoch=change.high.epoch,
            serial=change.high.serial,
            doubt=change.high.doubt,
            pinned="\n".join(sorted(keys)),
            time=checkpoint.time,
            boot=reading.boot,
            since_boot=reading.since_boot,
            wall=reading.wall,
        )
    )
