"""The database's wall clock, which all controllers of it share: for people and for the history, never for decisions."""

from __future__ import annotations

from sqlalchemy import Connection, text


def wall(connection: Connection) -> float:
    """Seconds since 1970."""
    if connection.dialect.name == "postgresql":
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    return float(connection.execute(text("SELECT (julianday('now') - 2440587.5) * 86400.0")).scalar_one())
