"""Usage records: each delivered key in exactly one, whatever is sent twice."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection, RowMapping, insert, select, update

from aaa.authorisation import DAY
from aaa.schema import contracts, grants, usage, usage_days, usage_keys
from keyhaul.transport.messages.aaa import Usage, UsageChange, UsageRecord
from keyhaul.transport.messages.base import ErrorCode, ServiceError

MAXIMUM_KEYS = 65_536
"""Key IDs in one message."""

MAXIMUM_SIZE = 65_536
"""Bits of a key."""

DELIVERED = "delivered"
EXPIRED = "expired"
VOID = "void"

CHANGES = frozenset({EXPIRED, VOID})

_BATCH = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class Accounted:
    """What became of one message."""

    recorded: int = 0
    """Keys in new records."""
    voided: int = 0
    expired: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    """Batches that were refused, and why; nothing of them was recorded."""
    above_allowance: list[str] = field(default_factory=list)
    """Grants under which more keys were delivered than they allow."""


def account(connection: Connection, akms: str, message: Usage, now: int) -> Accounted:
    """Record what an AKMS delivered, and later words on it.

    What is right in the message is recorded even if other parts of it are refused, so that one bad record does not
    keep others from being counted.

    Args:
        connection: the transaction.
        akms: service id of the caller, verified.
        message: records and changes, new or repeated.
        now: seconds since 1970 by AAA's clock.

    Raises:
        ServiceError: malformed; nothing was recorded.
    """
    _check(message)
    done = Accounted()
    for record in message.records:
        fault = _record(connection, akms, record, now, done)
        if fault:
            done.refused[record.batch] = fault
    for change in message.changes:
        fault = _change(connection, akms, change, done)
        if fault:
            done.refused[change.batch] = fault
    return done


def _check(message: Usage) -> None:
    parts: list[UsageRecord | UsageChange] = [*message.records, *message.changes]
    if sum(len(part.key_ids) for part in parts) > MAXIMUM_KEYS:
        raise ServiceError(ErrorCode.MALFORMED, f"more than {MAXIMUM_KEYS} key IDs in one message")
    for part in parts:
        if not _BATCH.fullmatch(part.batch):
            raise ServiceError(ErrorCode.MALFORMED, "a batch's name is 32 hexadecimal digits")
        if len(set(part.key_ids)) != len(part.key_ids):
            raise ServiceError(ErrorCode.MALFORMED, "a key ID stands twice in one batch")
    for record in message.records:
        if not record.key_ids or not 0 < record.size <= MAXIMUM_SIZE or record.age_ms < 0:
            raise ServiceError(ErrorCode.MALFORMED, "a record has keys, a size and an age")
    for change in message.changes:
        if change.change not in CHANGES:
            raise ServiceError(ErrorCode.MALFORMED, "a change is void or expired")


def _record(connection: Connection, akms: str, record: UsageRecord, now: int, done: Accounted) -> str | None:
    grant = connection.execute(select(grants).where(grants.c.id == record.grant)).mappings().first()
    if grant is None:
        return "its grant was never issued"
    if grant["akms"] != akms:
        return "its grant was issued to another AKMS"
    present = connection.execute(select(usage).where(usage.c.batch == record.batch)).mappings().first()
    if present is not None:
        return None if _same(connection, present, record) else "another record has its name"
    if _known_keys(connection, record.key_ids):
        return "keys of it are in another record"
    released_at = max(0, now - record.age_ms // 1000)
    connection.execute(
        insert(usage).values(
            batch=record.batch,
            grant_id=record.grant,
            akms=akms,
            size=record.size,
            number=len(record.key_ids),
            released_at=released_at,
            recorded_at=now,
        )
    )
    rows = [{"key_id": key_id, "batch": record.batch, "state": DELIVERED} for key_id in record.key_ids]
    connection.execute(insert(usage_keys), rows)
    _count(connection, grant, released_at, keys=len(rows))
    if grant["delivered"] + len(rows) > grant["allowance"]:
        done.above_allowance.append(record.grant)
    done.recorded += len(rows)
    return None


def _change(connection: Connection, akms: str, change: UsageChange, done: Accounted) -> str | None:
    present = connection.execute(select(usage).where(usage.c.batch == change.batch)).mappings().first()
    if present is None or present["akms"] != akms:
        return "there is no such record of this AKMS"
    grant = connection.execute(select(grants).where(grants.c.id == present["grant_id"])).mappings().one()
    if change.ukms and grant["ukms"] not in (None, change.ukms):
        return "its keys are of another UKMS"
    states = _states(connection, change.batch)
    if any(key_id not in states for key_id in change.key_ids):
        return "keys of the change are not in the record"
    before = {DELIVERED, EXPIRED} if change.change == VOID else {DELIVERED}
    changed = [key_id for key_id in change.key_ids if states[key_id] in before]
    if not changed:
        return None
    unfetched = sum(states[key_id] == EXPIRED for key_id in changed)
    for start in range(0, len(changed), 500):
        some = changed[start : start + 500]
        connection.execute(update(usage_keys).where(usage_keys.c.key_id.in_(some)).values(state=change.change))
    if change.change == VOID:
        _count(connection, grant, present["released_at"], keys=-len(changed), expired=-unfetched)
        done.voided += len(changed)
    else:
        _count(connection, grant, present["released_at"], expired=len(changed))
        done.expired += len(changed)
    return None


def _states(connection: Connection, batch: str) -> dict[UUID, str]:
    rows = connection.execute(select(usage_keys.c.key_id, usage_keys.c.state).where(usage_keys.c.batch == batch))
    return {row.key_id: row.state for row in rows}


def _same(connection: Connection, present: RowMapping, record: UsageRecord) -> bool:
    same_head = (present["grant_id"], present["size"]) == (record.grant, record.size)
    return same_head and set(_states(connection, record.batch)) == set(record.key_ids)


def _known_keys(connection: Connection, key_ids: list[UUID]) -> bool:
    for start in range(0, len(key_ids), 500):
        known = select(usage_keys.c.key_id).where(usage_keys.c.key_id.in_(key_ids[start : start + 500])).limit(1)
        if connection.execute(known).first() is not None:
            return True
    return False


def _count(connection: Connection, grant: RowMapping, released_at: int, *, keys: int = 0, expired: int = 0) -> None:
    """Add to what is delivered under the grant, and to its contract's day."""
    if keys:
        more = grants.c.delivered + keys
        connection.execute(update(grants).where(grants.c.id == grant["id"]).values(delivered=more))
    day = released_at // DAY
    here = (usage_days.c.contract == grant["contract"], usage_days.c.day == day)
    counted = update(usage_days).where(*here)
    counted = counted.values(delivered=usage_days.c.delivered + keys, expired=usage_days.c.expired + expired)
    if connection.execute(counted).rowcount == 0:
        customer = connection.scalar(select(contracts.c.customer).where(contracts.c.id == grant["contract"])) or ""
        connection.execute(
            insert(usage_days).values(
                contract=grant["contract"], day=day, customer=customer, delivered=keys, expired=expired
            )
        )
