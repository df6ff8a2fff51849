"""The life of key copies in the store: transactions as functions over a connection, each all or nothing.

Sans-IO but for the connection: time and sealed bits are arguments. Every change of state goes by the table of
states (`keyhaul.keys.states`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, delete, insert, select, update

from keyhaul.identity.names import SaeId
from keyhaul.keys.material import KeyId
from keyhaul.keys.states import KeyEvent, KeyState, after
from keyhaul.transport.messages.access import Push
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.ukms.tables import batches, copies, requests

MASTER = "master"
SLAVE = "slave"

ISSUED_KEPT = 600.0
"""Seconds for which the row of an issued copy stays, without its bits."""

ENDED_KEPT = 3_600.0
"""Seconds past a key's life for which the rows of void and expired copies, and its batch, stay."""

_encode = msgspec.json.encode


class MissingCopies(Exception):
    """Keys that were thought to be at hand are gone; nothing was changed."""

    def __init__(self, missing: set[KeyId]) -> None:
        super().__init__(f"{len(missing)} keys are not at hand any more")
        self.missing = missing


class NotFound(Exception):
    """One or more keys are unknown, taken or ended; nothing was changed."""


class NotNamed(Exception):
    """The SAE was not named for one or more of the keys; nothing was changed."""


def context(key_id: KeyId, side: str, holder: str) -> bytes:
    """What a copy's sealed bits are bound to in the store."""
    return key_id.bytes + side.encode() + b":" + holder.encode()


def digest(key_ids: Sequence[KeyId]) -> bytes:
    """SHA-256 over key IDs in their order."""
    return hashlib.sha256(b"".join(key_id.bytes for key_id in key_ids)).digest()


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
    also_issued: tuple[KeyId, ...] = ()
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
    rows = []
    if for_master:
        rows += _rows(arrival, MASTER, push.master, KeyEvent.RELEASE, now)
    for slave in slaves:
        rows += _rows(arrival, SLAVE, slave, KeyEvent.HOLD, now)
    if rows:
        connection.execute(insert(copies), rows)
    if for_master and arrival.also_issued:
        return Arrived(True, issue(connection, SaeId(push.master), arrival.also_issued, now))
    return Arrived(for_master)


def issue(connection: Connection, master: SaeId, key_ids: Collection[KeyId], now: float) -> dict[KeyId, bytes]:
    """End the life of a master's copies here and return their sealed bits, all or none.

    Raises:
        MissingCopies: some are void, expired or issued.
    """
    # Found by the primary key alone: with the state in it, the statement would walk the index of all released copies.
    mine = and_(
        copies.c.key_id.in_([key_id.bytes for key_id in key_ids]), copies.c.side == MASTER, copies.c.holder == master
    )
    rows = connection.execute(select(copies.c.key_id, copies.c.bits, copies.c.state, copies.c.until).where(mine))
    found = {KeyId(bytes=row.key_id): row.bits for row in rows if row.state == KeyState.RELEASED and row.until > now}
    if len(found) != len(key_ids):
        raise MissingCopies(set(key_ids) - set(found))
    connection.execute(update(copies).where(mine).values(ended(KeyState.RELEASED, KeyEvent.ISSUE, now + ISSUED_KEPT)))
    return found


def fetch(
    connection: Connection, caller: SaeId, master: SaeId, key_ids: Collection[KeyId], now: float
) -> dict[KeyId, bytes]:
    """End the life of a slave's copies here and return their sealed bits, all or none.

    Raises:
        NotNamed: the caller was not among the slaves of one of the keys.
        NotFound: a key is unknown, of another master, taken, void or expired.
    """
    wanted = [key_id.bytes for key_id in key_ids]
    rows = connection.execute(
        select(
            copies.c.key_id,
            copies.c.side,
            copies.c.holder,
            copies.c.state,
            copies.c.bits,
            copies.c.until,
            batches.c.master,
            batches.c.slaves,
        )
        .join(batches, batches.c.batch == copies.c.batch)
        .where(copies.c.key_id.in_(wanted))
    ).all()
    slaves = {text: frozenset(msgspec.json.decode(text, type=list[str])) for text in {row.slaves for row in rows}}
    if any(caller not in slaves[row.slaves] for row in rows):
        raise NotNamed
    found = {
        KeyId(bytes=row.key_id): row.bits
        for row in rows
        if row.side == SLAVE
        and row.holder == caller
        and row.master == master
        and row.state == KeyState.HELD
        and row.until > now
    }
    if len(found) != len(wanted):
        raise NotFound
    connection.execute(
        update(copies)
        .where(copies.c.key_id.in_(wanted), copies.c.side == SLAVE, copies.c.holder == caller)
        .values(ended(KeyState.HELD, KeyEvent.ISSUE, now + ISSUED_KEPT))
    )
    return found


def ended(state: KeyState, event: KeyEvent, until: float) -> dict[str, object]:
    """The new values of a copy whose life here ends; its row may go at `until`."""
    return {"state": after(state, event), "bits": None, "until": until}


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


def _rows(arrival: Arrival, side: str, holder: str, event: KeyEvent, now: float) -> list[dict[str, object]]:
    state = after(KeyState.PREPARED, event)
    sealed = arrival.sealed[side, holder]
    head = {"side": side, "holder": holder, "batch": arrival.push.batch}
    held = {**head, "state": state, "until": arrival.until if side == MASTER else arrival.slaves_until}
    issued = {**head, **ended(state, KeyEvent.ISSUE, now + ISSUED_KEPT)}
    return [
        {**issued, "key_id": key_id.bytes}
        if side == MASTER and key_id in arrival.issued
        else {**held, "key_id": key_id.bytes, "bits": sealed[key_id]}
        for key_id in arrival.push.key_ids
    ]
