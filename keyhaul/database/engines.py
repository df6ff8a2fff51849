"""The two engines, set up so that a transaction means the same on both: serializable, and durable once committed."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from keyhaul.database.errors import DatabaseUnusable

if TYPE_CHECKING:
    from psycopg.errors import Diagnostic

WARNINGS = "warnings"
"""Where a connection's `info` lists what the server warned of since the list was last emptied."""

UNKNOWN_OUTCOME = "01000"
"""SQLSTATE of the warning that a commit stopped waiting for the synchronous standby: committed here, perhaps nowhere
else."""

_POSTGRESQL: dict[str, Any] = {
    # A database host that froze is told from a slow one by the client's kernel.
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_SERVER_SETTINGS = {
    # A client that froze within a transaction must not keep others from the rows that it locked.
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "3s",
}

_PATIENCE = 5.0
"""Seconds to wait for others that use an SQLite file."""


def locate(text: str, directory: Path, owner: str, example: str) -> URL:
    """Read SQLAlchemy's URL; an SQLite file's path becomes absolute.

    Raises:
        DatabaseUnusable: it is no URL, or names a database that dies with the process.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise DatabaseUnusable(f"database is no URL (e.g. {example})") from None
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise DatabaseUnusable(f"{owner} needs a database that lasts: name a file (e.g. {example})")
        url = url.set(database=str(directory / url.database))
    return url


def engine_for(url: URL) -> Engine:
    """Make the engine; nothing is connected yet, but an SQLite file is made, for its owner alone."""
    match url.get_backend_name():
        case "sqlite":
            return _sqlite(url)
        case "postgresql":
            return _postgresql(url)
        case _:
            return create_engine(url)


def _sqlite(url: URL) -> Engine:
    assert url.database is not None
    os.close(os.open(url.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    engine = create_engine(url, connect_args={"timeout": _PATIENCE})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy begins and commits, see below
        _write_ahead(connection)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _write_ahead(connection: Any) -> None:
    """Have an SQLite file written ahead. SQLite does not wait for others that do the same at this moment."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.01)
        else:
            return


def _postgresql(url: URL) -> Engine:
    given = {name: value for name, value in _POSTGRESQL.items() if name not in url.query}
    if "options" not in url.query:
        given["options"] = " ".join(f"-c {name}={value}" for name, value in _SERVER_SETTINGS.items())
    engine = create_engine(
        url, connect_args=given, isolation_level="SERIALIZABLE", pool_size=1, max_overflow=2, pool_pre_ping=True
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        warnings = record.info[WARNINGS] = []

        def note(notice: Diagnostic) -> None:
            if notice.severity_nonlocalized == "WARNING":
                warnings.append((notice.sqlstate, notice.message_primary))

        if hasattr(connection, "add_notice_handler"):  # psycopg's
            connection.add_notice_handler(note)

    return engine
