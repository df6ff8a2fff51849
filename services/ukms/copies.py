"""The life of key copies in the store: transactions as functions over a connection, each all or nothing.

Sans-IO but for the connection: time and sealed bits are arguments. Every change of state goes by the table of
states (`keyhaul.keys.states`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, select, update

from keyhaul.identity.names import SaeId
from keyhaul.keys.material import KeyId
from keyhaul.keys.states import KeyEvent, KeyState, after
from services.ukms.leases import Leased, Stored
from services.ukms.tables import batches, copies, parts, places

MASTER = "master"
SLAVE = "slave"

ISSUED_KEPT = 600.0
"""Seconds for which the row of an issued copy stays, without its bits."""

ENDED_KEPT = 3_600.0
"""Seconds past a key's life for which the rows of void and expired copies, and its batch, stay."""

OF_PART = (
    copies.c.batch == bindparam("of_batch"),
    copies.c.side == bindparam("of_side"),
    copies.c.holder == bindparam("of_holder"),
)
"""The copies of one holder in one batch."""

OF_RUN = (*OF_PART, copies.c.position.between(bindparam("first"), bindparam("last")))
"""Adjoining ones of them (see `runs_of`)."""

_READ_RUN = select(copies.c.key_id, copies.c.bits, copies.c.state, copies.c.until).where(*OF_RUN)

_END_RUN = update(copies).where(*OF_RUN).values(state=bindparam("to"), bits=None, until=bindparam("stays_until"))

_TAKE_BACK = (
    update(copies)
    .where(
        *OF_PART,
        copies.c.position == bindparam("at"),
        copies.c.key_id == bindparam("of_key"),
        copies.c.state == KeyState.ISSUED,
    )
    .values(state=after(KeyState.ISSUED, KeyEvent.TAKE_BACK), bits=bindparam("sealed"), until=bindparam("stays_until"))
)

_EXPIRE_AGAIN = (
    update(parts)
    .where(
        parts.c.batch == bindparam("of_batch"),
        parts.c.side == bindparam("of_side"),
        parts.c.holder == bindparam("of_holder"),
    )
    .values(until=bindparam("stays_until"))
)

_FIND = (
    select(
        places.c.key_id,
        places.c.holder,
        batches.c.master,
        batches.c.slaves,
        places.c.batch,
        places.c.position,
        copies.c.state,
        copies.c.bits,
        copies.c.until,
    )
    .join(batches, batches.c.batch == places.c.batch)
    .join(
        copies,
        (copies.c.batch == places.c.batch)
        & (copies.c.side == SLAVE)
        & (copies.c.holder == places.c.holder)
        & (copies.c.position == places.c.position),
    )
    .where(places.c.key_id.in_(bindparam("wanted", expanding=True)))
)


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


def issue(connection: Connection, master: SaeId, chosen: Sequence[Stored], now: float) -> dict[KeyId, bytes]:
    """End the life of a master's copies here and return their sealed bits, all or none.

    Raises:
        MissingCopies: some are void, expired or issued.
    """
    runs = runs_of(MASTER, master, ((stored.batch, stored.position) for stored in chosen))
    names = {stored.key_id.bytes: stored.key_id for stored in chosen}
    found = {}
    for run in runs:
        for key_id, bits, state, until in connection.execute(_READ_RUN, run).all():
            if state == KeyState.RELEASED and until > now and key_id in names:
                found[names[key_id]] = bits
    missing = {stored.key_id for stored in chosen} - found.keys()
    if missing:
        raise MissingCopies(missing)
    if runs:
        end_runs(connection, runs, after(KeyState.RELEASED, KeyEvent.ISSUE), now + ISSUED_KEPT)
    return found


def take_back(connection: Connection, master: SaeId, leased: Iterable[Leased]) -> None:
    """Undo the issue of copies that were set aside and have certainly not been handed out.

    What has become of them meanwhile (void, deleted, compromised) stays so.
    """
    head = {"of_side": MASTER, "of_holder": master}
    rows = [
        {
            **head,
            "of_batch": one.stored.batch,
            "at": one.stored.position,
            "of_key": one.stored.key_id.bytes,
            "sealed": one.sealed,
            "stays_until": one.stored.expires,
        }
        for one in leased
    ]
    if rows:
        connection.execute(_TAKE_BACK, rows)
        ends = {row["of_batch"]: row["stays_until"] for row in rows}
        connection.execute(
            _EXPIRE_AGAIN, [{**head, "of_batch": batch, "stays_until": until} for batch, until in ends.items()]
        )


def fetch(
    connection: Connection, caller: SaeId, master: SaeId, key_ids: Collection[KeyId], now: float
) -> dict[KeyId, bytes]:
    """End the life of a slave's copies here and return their sealed bits, all or none.

    Raises:
        NotNamed: the caller was not among the slaves of one of the keys.
        NotFound: a key is unknown, of another master, taken, void or expired.
    """
    names = {key_id.bytes: key_id for key_id in key_ids}
    rows = connection.execute(_FIND, {"wanted": list(names)}).all()
    if any(caller not in _names(slaves) for slaves in {row[3] for row in rows}):
        raise NotNamed
    found = {}
    places_found = []
    for key_id, holder, its_master, _, batch, position, state, bits, until in rows:
        if holder == caller and its_master == master and state == KeyState.HELD and until > now:
            found[names[key_id]] = bits
            places_found.append((batch, position))
    if len(found) != len(key_ids):
        raise NotFound
    runs = runs_of(SLAVE, caller, places_found)
    end_runs(connection, runs, after(KeyState.HELD, KeyEvent.ISSUE), now + ISSUED_KEPT)
    return found


def ended(state: KeyState, event: KeyEvent, until: float) -> dict[str, object]:
    """The new values of a copy whose life here ends; its row may go at `until`."""
    return {"state": after(state, event), "bits": None, "until": until}


def runs_of(side: str, holder: str, found: Iterable[tuple[str, int]]) -> list[dict[str, object]]:
    """Copies of one holder, by batch and position, as runs of adjoining ones: parameters of `OF_RUN`."""
    runs: list[dict[str, Any]] = []
    for batch, position in sorted(found):
        if runs and runs[-1]["of_batch"] == batch and runs[-1]["last"] == position - 1:
            runs[-1]["last"] = position
        else:
            head = {"of_side": side, "of_holder": holder, "of_batch": batch}
            runs.append({**head, "first": position, "last": position})
    return runs


def end_runs(connection: Connection, runs: list[dict[str, object]], state: KeyState, until: float) -> None:
    """End the life of all copies in some runs; their rows may go at `until`."""
    connection.execute(_END_RUN, [{**run, "to": state, "stays_until": until} for run in runs])


@lru_cache(maxsize=1_024)
def _names(text: str) -> frozenset[str]:
    return frozenset(msgspec.json.decode(text, type=list[str]))
