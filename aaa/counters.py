"""AAA's durable counters: its epoch, and the serial of revocations."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from aaa.schema import EPOCH, EPOCH_ELAPSED, counters


def value(connection: Connection, name: str) -> int:
    """The counter's present value."""
    return int(connection.execute(select(counters.c.value).where(counters.c.name == name)).scalar_one())


def add(connection: Connection, name: str, amount: int = 1) -> int:
    """Add to a counter and return what it is then; concurrent transactions wait for one another."""
    connection.execute(update(counters).where(counters.c.name == name).values(value=counters.c.value + amount))
    return value(connection, name)


def pass_time(connection: Connection, elapsed_ms: int, epoch_ms: int) -> int:
    """Count time during which AAA served, and return the epoch; what is left over counts for the next one."""
    total = add(connection, EPOCH_ELAPSED, elapsed_ms)
    passed, _ = divmod(total, epoch_ms)
    if passed:
        add(connection, EPOCH_ELAPSED, -passed * epoch_ms)
        return add(connection, EPOCH, passed)
    return value(connection, EPOCH)
