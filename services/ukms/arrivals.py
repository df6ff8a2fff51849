"""Pushes on their way into the store: whole batches of copies, taken in once however often they come.

Transactions as functions over a connection; time and sealed bits are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Dialect, Row, Table, delete, insert, select, update
from sqlalchemy.sql.compiler import SQLCompiler

from keyhaul.identity.names import SaeId
from keyhaul.keys.material import KeyId
from keyhaul.keys.states import KeyEvent, KeyState, after
from keyhaul.transport.messages.access import Push
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.ukms.copies import ISSUED_KEPT, MASTER, SLAVE, digest, issue
from services.ukms.leases import Stored
from services.ukms.tables import batches, copies, parts, places, requests

_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Arrival:
    """A checked push, its bits sealed copy by copy."""

    push: Push
    until: float
    """End of the life of the master's copies by this node's clock."""
    slaves_until: float
    """End of the life of the slaves' copies: no earlier."""
    sealed: dict[tuple[str, str], dict[KeyId, bytes]] = field(repr=False)
    """By side and holder."""
    issued: frozenset[KeyId] = frozenset()
    """Master copies of this push that are issued in the same transaction: they have no sealed bits."""
    also_issued: tuple[Stored, ...] = ()
    """Master copies that came before and are issued in the same transaction."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """What a push changed."""

    for_master: bool
    """Whether master copies came with it (False: they had come before, or it brought none)."""
    also_issued: dict[KeyId, bytes] = field(default_factory=dict, repr=False)
    """The sealed bits of `Arrival.also_issued`."""


def arrive(connection: Connection, arrival: Arrival, now: float) -> Arrived:
    """Take in a push. What of it came before stays as it is.

    Raises:
        ServiceError: conflict (void, or the batch came before with another content) or not-found (no request of
            this UKMS fits).
        MissingCopies: of `also_issued`.
    """
    push = arrival.push
    known = connection.execute(select(batches).where(batches.c.batch == push.batch)).one_or_none()
    if known is not None:
        _check_repeated(known, push)
    for_master = push.for_master and not (known is not None and known.for_master)
    came_for = [] if known is None else msgspec.json.decode(known.held_for, type=list[str])
    slaves = [slave for slave in push.held_for if slave not in came_for]
    if for_master:
        _use_request(connection, push)
    if known is None:
        connection.execute(
            insert(batches).values(
                batch=push.batch,
                master=push.master,
                slaves=_encode(push.slaves).decode(),
                service_class=push.service_class,
                size=push.size,
                number=len(push.key_ids),
                digest=digest(push.key_ids),
                for_master=for_master,
                held_for=_encode(slaves).decode(),
                void=False,
                settled=for_master,
                until=arrival.slaves_until,
            )
        )
    elif for_master or slaves:
        connection.execute(
            update(batches)
            .where(batches.c.batch == push.batch)
            .values(
                for_master=known.for_master or for_master,
                held_for=_encode(came_for + slaves).decode(),
                settled=known.settled or for_master,
                until=max(known.until, arrival.slaves_until),
            )
        )
    if for_master:
        _add(connection, arrival, MASTER, push.master, KeyEvent.RELEASE, now)
    for slave in slaves:
        _add(connection, arrival, SLAVE, slave, KeyEvent.HOLD, now)
    if for_master and arrival.also_issued:
        return Arrived(True, issue(connection, SaeId(push.master), arrival.also_issued, now))
    return Arrived(for_master)


def _check_repeated(known: Row[Any], push: Push) -> None:
    if known.void:
        raise ServiceError(ErrorCode.CONFLICT, "the batch is void")
    same = (
        known.master == push.master
        and frozenset(msgspec.json.decode(known.slaves, type=list[str])) == frozenset(push.slaves)
        and known.service_class == push.service_class
        and known.size == push.size
        and known.number == len(push.key_ids)
        and known.digest == digest(push.key_ids)
    )
    if not same:
        raise ServiceError(ErrorCode.CONFLICT, "the batch came before with another content")


def _use_request(connection: Connection, push: Push) -> None:
    made = connection.execute(select(requests).where(requests.c.request == push.request)).one_or_none()
    if (
        made is None
        or made.master != push.master
        or msgspec.json.decode(made.slaves, type=list[str]) != sorted(push.slaves)
        or made.size != push.size
        or made.remaining < len(push.key_ids)
    ):
        raise ServiceError(ErrorCode.NOT_FOUND, "no request of this UKMS fits the push")
    chosen = requests.c.request == push.request
    if made.remaining == len(push.key_ids):
        connection.execute(delete(requests).where(chosen))
    else:
        connection.execute(update(requests).where(chosen).values(remaining=made.remaining - len(push.key_ids)))


def _add(connection: Connection, arrival: Arrival, side: str, holder: str, event: KeyEvent, now: float) -> None:
    state = str(after(KeyState.PREPARED, event))
    push, sealed = arrival.push, arrival.sealed[side, holder]
    until = arrival.until if side == MASTER else arrival.slaves_until
    spent = str(after(after(KeyState.PREPARED, event), KeyEvent.ISSUE))
    head = (push.batch, side, holder)
    add_rows(
        connection,
        copies,
        ("batch", "side", "holder", "position", "key_id", "state", "bits", "until"),
        [
            (*head, position, key_id.bytes, spent, None, now + ISSUED_KEPT)
            if side == MASTER and key_id in arrival.issued
            else (*head, position, key_id.bytes, state, sealed[key_id], until)
            for position, key_id in enumerate(push.key_ids)
        ],
    )
    look = now + min(ISSUED_KEPT, until - now)
    part = {"batch": push.batch, "side": side, "holder": holder}
    connection.execute(insert(parts).values(**part, until=until, look=look))
    if side == SLAVE:
        add_rows(
            connection,
            places,
            ("key_id", "holder", "batch", "position"),
            [(key_id.bytes, holder, push.batch, position) for position, key_id in enumerate(push.key_ids)],
        )


def add_rows(connection: Connection, table: Table, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Insert many rows by the driver itself: what SQLAlchemy does for each of them costs more than the row.

    `columns` are in the table's order.
    """
    statement, positional = _insertion(table, columns, connection.dialect)
    connection.exec_driver_sql(
        statement, rows if positional else [dict(zip(columns, row, strict=True)) for row in rows]
    )


@lru_cache(maxsize=16)
def _insertion(table: Table, columns: tuple[str, ...], dialect: Dialect) -> tuple[str, bool]:
    """The driver's text of an insertion, and whether its parameters go by their place."""
    compiled = insert(table).compile(dialect=dialect, column_keys=list(columns))
    assert isinstance(compiled, SQLCompiler)
    assert not compiled.positional or compiled.positiontup == list(columns)
    return str(compiled), compiled.positional
