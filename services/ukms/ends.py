"""The end of copies, batches and requests: expiry, withdrawal, and deletion in small pieces.

Transactions as functions over a connection; time is an argument.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, update

from keyhaul.keys.material import KeyId
from keyhaul.keys.states import KeyEvent, KeyState, after
from services.ukms.copies import ENDED_KEPT, ISSUED_KEPT, MASTER, OF_PART, OF_RUN, SLAVE, end_runs, ended, runs_of
from services.ukms.tables import batches, copies, parts, places, requests

CHUNK = 1_024
"""Rows of one kind that one transaction touches."""

PARTS = 64
"""Parts of batches that one transaction looks at."""

REQUEST_KEPT = 172_800.0
"""Seconds for which an answer to a request is accepted."""

OVER = {
    MASTER: (KeyState.ISSUED, KeyState.VOID, KeyState.DESTROYED),
    SLAVE: (KeyState.ISSUED, KeyState.VOID, KeyState.DESTROYED, KeyState.EXPIRED),
}
"""States whose rows may go, by side: an expired master's copy stays until the AKMS knows of it."""

_THIS_PART = (
    parts.c.batch == bindparam("of_batch"),
    parts.c.side == bindparam("of_side"),
    parts.c.holder == bindparam("of_holder"),
)

_DELETE_RUN = delete(copies).where(*OF_RUN)

_DELETE_PLACE = delete(places).where(places.c.key_id == bindparam("of_key"), places.c.holder == bindparam("of_holder"))


def expire(connection: Connection, now: float) -> int:
    """End some copies whose life is over; return how many."""
    left = CHUNK
    due = select(parts).where(parts.c.until <= now).order_by(parts.c.until).limit(PARTS)
    for part in connection.execute(due).all():
        master = part.side == MASTER
        state = KeyState.RELEASED if master else KeyState.HELD
        alive = select(copies.c.position).where(*OF_PART, copies.c.state == state, copies.c.until <= now)
        positions = connection.scalars(alive.limit(left), _of(part)).all()
        if positions:
            runs = runs_of(part.side, part.holder, ((part.batch, position) for position in positions))
            end_runs(connection, runs, after(state, KeyEvent.EXPIRE), now if master else now + ENDED_KEPT)
        changes: dict[str, object] = {"until": None} if len(positions) < left else {}
        if master and positions:
            changes["unfetched"] = now
        if changes:
            connection.execute(update(parts).where(*_THIS_PART).values(changes), _of(part))
        left -= len(positions)
        if not left:
            break
    return CHUNK - left


def unfetched(connection: Connection, now: float) -> dict[str, list[KeyId]]:
    """Some master copies, by batch, that expired unissued and are not known to be withdrawn."""
    found: dict[str, list[KeyId]] = {}
    chosen = (
        select(copies.c.batch, copies.c.key_id)
        .select_from(parts)
        .join(
            copies,
            (copies.c.batch == parts.c.batch) & (copies.c.side == parts.c.side) & (copies.c.holder == parts.c.holder),
        )
        .where(parts.c.unfetched <= now, copies.c.state == KeyState.EXPIRED)
        .order_by(parts.c.unfetched, parts.c.batch)
    )
    for batch, key_id in connection.execute(chosen.limit(CHUNK)):
        found.setdefault(batch, []).append(KeyId(bytes=key_id))
    return found


def withdrawn(connection: Connection, batch: str, key_ids: Collection[KeyId], now: float) -> None:
    """The AKMS knows of these expired copies."""
    of_masters = (copies.c.batch == batch, copies.c.side == MASTER, copies.c.state == KeyState.EXPIRED)
    connection.execute(
        update(copies)
        .where(*of_masters, copies.c.key_id.in_([key_id.bytes for key_id in key_ids]))
        .values(ended(KeyState.EXPIRED, KeyEvent.DESTROY, now + ENDED_KEPT))
    )
    if connection.execute(select(copies.c.position).where(*of_masters).limit(1)).first() is None:
        connection.execute(update(parts).where(parts.c.batch == batch, parts.c.side == MASTER).values(unfetched=None))


def purge(connection: Connection, now: float) -> int:
    """Delete some rows that are needed no more; return how many (up to `CHUNK` of each kind)."""
    left = CHUNK
    due = select(parts).where(parts.c.look <= now).order_by(parts.c.look).limit(PARTS)
    for part in connection.execute(due).all():
        count = _purge_part(connection, part, left, now)
        left -= count
        if not left:
            break
    has_parts = select(parts.c.batch).where(parts.c.batch == batches.c.batch).exists()
    ended_batches = select(batches.c.batch).where(batches.c.until <= now - ENDED_KEPT, ~has_parts).limit(CHUNK)
    names = connection.scalars(ended_batches).all()
    old = connection.scalars(select(requests.c.request).where(requests.c.made <= now - REQUEST_KEPT).limit(CHUNK)).all()
    if names:
        connection.execute(delete(batches).where(batches.c.batch.in_(names)))
    if old:
        connection.execute(delete(requests).where(requests.c.request.in_(old)))
    return CHUNK - left + len(names) + len(old)


def _purge_part(connection: Connection, part: Any, most: int, now: float) -> int:
    """Delete up to `most` rows of a part; where no more are due, say when to look again, or forget the part."""
    over = (*OF_PART, copies.c.state.in_(OVER[part.side]))
    rows = connection.execute(
        select(copies.c.position, copies.c.key_id).where(*over, copies.c.until <= now).limit(most), _of(part)
    ).all()
    if rows:
        runs = runs_of(part.side, part.holder, ((part.batch, row.position) for row in rows))
        connection.execute(_DELETE_RUN, runs)
        if part.side == SLAVE:
            connection.execute(_DELETE_PLACE, [{"of_key": row.key_id, "of_holder": part.holder} for row in rows])
    if len(rows) == most:
        return most
    if connection.execute(select(copies.c.position).where(*OF_PART).limit(1), _of(part)).first() is None:
        connection.execute(delete(parts).where(*_THIS_PART), _of(part))
    else:
        soonest = connection.scalar(select(func.min(copies.c.until)).where(*over), _of(part))
        look = now + ISSUED_KEPT if soonest is None else min(soonest, now + ISSUED_KEPT)
        connection.execute(update(parts).where(*_THIS_PART).values(look=look), _of(part))
    return len(rows)


def _of(part: Any) -> dict[str, object]:
    return {"of_batch": part.batch, "of_side": part.side, "of_holder": part.holder}
