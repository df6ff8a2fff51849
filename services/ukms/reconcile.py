"""What AKMS and UKMS say to each other to come back to one view of a batch: void, query, settle, report.

Transactions as functions over a connection; each may be repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, delete, func, insert, select, update

from keyhaul.keys.material import KeyId
from keyhaul.keys.states import KeyEvent, KeyState, after
from keyhaul.transport.messages.peer import BatchState, Voided
from services.ukms.copies import ENDED_KEPT, MASTER, digest, end_runs, runs_of
from services.ukms.tables import batches, copies, parts, places, requests, terms

VOID_KEPT = 172_800.0
"""Seconds for which a batch that was voided before it came is refused."""

NOTHING = bytes(32)
"""In the place of the digest of a batch that was given up: no push has the same content."""


def void(connection: Connection, batch: str, key_ids: Collection[KeyId], now: float) -> Voided:
    """Withdraw what of a batch (no `key_ids`: all of it) has not been issued, and say which keys those are.

    A key that the master got stays with its slaves. A batch that has not come is refused from now on.
    """
    known = connection.execute(select(batches).where(batches.c.batch == batch)).one_or_none()
    if known is None:
        connection.execute(
            insert(batches).values(
                batch=batch,
                master="",
                slaves="[]",
                service_class="",
                size=0,
                number=0,
                digest=digest(()),
                for_master=False,
                held_for="[]",
                void=True,
                settled=True,
                until=now + VOID_KEPT,
            )
        )
        return Voided(voided=list(key_ids))
    if known.number == 0:
        return Voided(voided=list(key_ids))
    chosen = copies.c.batch == batch
    if key_ids:
        chosen = and_(chosen, copies.c.key_id.in_([key_id.bytes for key_id in key_ids]))
    columns = (copies.c.key_id, copies.c.side, copies.c.holder, copies.c.position, copies.c.state)
    by_key: dict[KeyId, list[Any]] = {}
    for found in connection.execute(select(*columns).where(chosen)):
        by_key.setdefault(KeyId(bytes=found.key_id), []).append(found)
    answer = Voided(issued=[key_id for key_id in key_ids if key_id not in by_key])
    ending: dict[tuple[str, str, str], list[Any]] = {}
    for key_id, rows in by_key.items():
        if any(row.side == MASTER and row.state in (KeyState.ISSUED, KeyState.COMPROMISED) for row in rows):
            answer.issued.append(key_id)
            continue
        for row in rows:
            if row.state in (KeyState.RELEASED, KeyState.HELD):
                ending.setdefault((row.side, row.holder, row.state), []).append(row)
        taken = any(row.state in (KeyState.ISSUED, KeyState.COMPROMISED) for row in rows)
        (answer.issued if taken else answer.voided).append(key_id)
    for (side, holder, state), rows in ending.items():
        runs = runs_of(side, holder, ((batch, row.position) for row in rows))
        end_runs(connection, runs, after(KeyState(state), KeyEvent.VOID), known.until + ENDED_KEPT)
    parts = len(msgspec.json.decode(known.held_for, type=list[str])) + known.for_master
    voided = connection.scalar(
        select(func.count()).select_from(copies).where(copies.c.batch == batch, copies.c.state == KeyState.VOID)
    )
    if voided == known.number * parts:
        connection.execute(update(batches).where(batches.c.batch == batch).values(void=True, settled=True))
    return answer


def give_up(connection: Connection) -> int:
    """Give up every key that the store holds, for good; return how many copies could have been issued.

    Of the batches remains that they came: no push brings one back, and their keys count as issued, since nobody can
    tell which were.
    """
    held = copies.c.state.in_((KeyState.RELEASED, KeyState.HELD))
    count = connection.scalar(select(func.count()).select_from(copies).where(held)) or 0
    for table in (copies, places, parts, requests, terms):
        connection.execute(delete(table))
    connection.execute(update(batches).values(digest=NOTHING, settled=True))
    return count


def states(connection: Connection, names: Sequence[str]) -> list[BatchState]:
    """The state of each batch, in the order asked for."""
    found = {
        row.batch: row
        for row in connection.execute(
            select(batches.c.batch, batches.c.void, batches.c.for_master).where(batches.c.batch.in_(names))
        )
    }

    def state(name: str) -> BatchState:
        row = found.get(name)
        if row is None:
            return BatchState.UNKNOWN
        if row.void:
            return BatchState.VOID
        return BatchState.RELEASED if row.for_master else BatchState.HELD

    return [state(name) for name in names]


def settle(connection: Connection, names: Collection[str]) -> None:
    """These batches need no reconciling any more."""
    connection.execute(update(batches).where(batches.c.batch.in_(names)).values(settled=True))


def unsettled(connection: Connection, beyond: str, number: int, now: float) -> list[str]:
    """Up to `number` batches held for slaves and not settled, by name, the first one after `beyond`."""
    chosen = select(batches.c.batch).where(
        batches.c.batch > beyond, batches.c.settled.is_(False), batches.c.held_for != "[]", batches.c.until > now
    )
    return list(connection.scalars(chosen.order_by(batches.c.batch).limit(number)))
