"""Old rows are deleted, in small portions; the sums of each day stay for ever.

What a record names goes with it: its key IDs at once, its grant once no record names it any more. Revocations that old
are known to every AKMS, and are deleted too.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from aaa.authorisation import DAY
from aaa.schema import grants, revocations, usage, usage_keys

PORTION = 200
"""Records, grants or revocations of one transaction at most: nobody waits long for it."""


def purge(connection: Connection, days: int, now: int) -> int:
    """Delete a portion of what is older than so many days; return how many rows of all kinds, 0: nothing is left.

    Args:
        connection: the transaction.
        days: how long to keep what was recorded, issued or ended.
        now: seconds since 1970 by AAA's clock.
    """
    oldest = now - days * DAY
    recorded = select(usage.c.batch).where(usage.c.recorded_at < oldest).order_by(usage.c.recorded_at)
    batches = list(connection.scalars(recorded.limit(PORTION)))
    if batches:
        keys = connection.execute(delete(usage_keys).where(usage_keys.c.batch.in_(batches))).rowcount
        return keys + connection.execute(delete(usage).where(usage.c.batch.in_(batches))).rowcount
    named = select(usage.c.batch).where(usage.c.grant_id == grants.c.id).exists()
    issued = select(grants.c.id).where(grants.c.issued_at < oldest, ~named).limit(PORTION)
    ids = list(connection.scalars(issued))
    deleted = connection.execute(delete(grants).where(grants.c.id.in_(ids))).rowcount if ids else 0
    ended = select(revocations.c.serial).where(revocations.c.ended_at < oldest).limit(PORTION)
    serials = list(connection.scalars(ended))
    if serials:
        deleted += connection.execute(delete(revocations).where(revocations.c.serial.in_(serials))).rowcount
    return deleted
