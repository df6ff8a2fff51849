"""The end of copies, batches and requests: expiry, withdrawal, and deletion in small pieces.

Transactions as functions over a connection; time is an argument.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update

from keyhaul.keys.material import KeyId
from keyhaul.keys.states import KeyEvent, KeyState
from services.ukms.copies import ENDED_KEPT, MASTER, SLAVE, ended
from services.ukms.tables import batches, copies, requests

CHUNK = 100
"""Rows of one kind that one transaction touches."""

REQUEST_KEPT = 172_800.0
"""Seconds for which an answer to a request is accepted."""


def expire(connection: Connection, now: float) -> int:
    """End some copies whose life is over; return how many (up to `CHUNK` in each state)."""
    count = 0
    for state, kept in ((KeyState.RELEASED, now), (KeyState.HELD, now + ENDED_KEPT)):
        chosen = select(copies.c.key_id, copies.c.side, copies.c.holder).where(
            copies.c.state == state, copies.c.until <= now
        )
        for row in connection.execute(chosen.limit(CHUNK)).all():
            connection.execute(update(copies).where(_is(row)).values(ended(state, KeyEvent.EXPIRE, kept)))
            count += 1
    return count


def unfetched(connection: Connection) -> dict[str, list[KeyId]]:
    """Some master copies, by batch, that expired unissued and are not known to be withdrawn."""
    found: dict[str, list[KeyId]] = {}
    chosen = select(copies.c.batch, copies.c.key_id).where(copies.c.state == KeyState.EXPIRED, copies.c.side == MASTER)
    for batch, key_id in connection.execute(chosen.order_by(copies.c.until).limit(1024)):
        found.setdefault(batch, []).append(KeyId(bytes=key_id))
    return found


def withdrawn(connection: Connection, batch: str, key_ids: Collection[KeyId], now: float) -> None:
    """The AKMS knows of these expired copies."""
    connection.execute(
        update(copies)
        .where(
            copies.c.batch == batch,
            copies.c.side == MASTER,
            copies.c.state == KeyState.EXPIRED,
            copies.c.key_id.in_([key_id.bytes for key_id in key_ids]),
        )
        .values(ended(KeyState.EXPIRED, KeyEvent.DESTROY, now + ENDED_KEPT))
    )


def purge(connection: Connection, now: float) -> int:
    """Delete some rows that are needed no more; return how many (up to `CHUNK` of each kind)."""
    count = 0
    for state in (KeyState.ISSUED, KeyState.VOID, KeyState.DESTROYED, KeyState.EXPIRED):
        over = and_(copies.c.state == state, copies.c.until <= now)
        if state is KeyState.EXPIRED:
            over = and_(over, copies.c.side == SLAVE)
        chosen = select(copies.c.key_id, copies.c.side, copies.c.holder).where(over).limit(CHUNK)
        for row in connection.execute(chosen).all():
            connection.execute(delete(copies).where(_is(row)))
            count += 1
    left = select(copies.c.key_id).where(copies.c.batch == batches.c.batch).exists()
    ended = select(batches.c.batch).where(batches.c.until <= now - ENDED_KEPT, ~left).limit(CHUNK)
    names = connection.scalars(ended).all()
    old = connection.scalars(select(requests.c.request).where(requests.c.made <= now - REQUEST_KEPT).limit(CHUNK)).all()
    if names:
        connection.execute(delete(batches).where(batches.c.batch.in_(names)))
    if old:
        connection.execute(delete(requests).where(requests.c.request.in_(old)))
    return count + len(names) + len(old)


def _is(row: Any) -> ColumnElement[bool]:
    return and_(copies.c.key_id == row.key_id, copies.c.side == row.side, copies.c.holder == row.holder)
