"""Durable counters."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from controller.state.schema import counters


def add(connection: Connection, name: str, amount: int = 1) -> int:
    """Add to a counter and return what it is then; concurrent transactions wait for one another."""
    connection.execute(update(counters).where(counters.c.name == name).values(value=counters.c.value + amount))
    return value(connection, name)


def value(connection: Connection, name: str) -> int:
    """A counter's present value."""
    return int(connection.execute(select(counters.c.value).where(counters.c.name == name)).scalar_one())


def move(connection: Connection, name: str, to: int) -> None:
    """Set a counter that marks how far something has come."""
    connection.execute(update(counters).where(counters.c.name == name).values(value=to))
