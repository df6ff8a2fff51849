"""Connections to an SQLCipher database, and what its errors mean for an operator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from sqlcipher3 import dbapi2

from keyhaul.keys.material import KeyMaterial
from keyhaul.store.interface import StoreCorrupt, StoreError, StoreUnavailable


class _Code:
    """Primary result codes of SQLite (https://sqlite.org/rescode.html)."""

    BUSY = 5
    LOCKED = 6
    READ_ONLY = 8
    IO_ERROR = 10
    CORRUPT = 11
    FULL = 13
    CANNOT_OPEN = 14
    NOT_A_DATABASE = 26


_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA journal_size_limit=16777216",
)


def engine_of(path: Path, key: KeyMaterial, *, writer: bool) -> Engine:
    """An engine whose connections open the existing database at `path` with a raw 256-bit key.

    A writer's transactions begin IMMEDIATE and are durable when COMMIT returns (WAL, synchronous=FULL); the
    connections of others can only read.
    """

    def connect() -> Any:
        return open_raw(path, key, (*_PRAGMAS, *(() if writer else ("PRAGMA query_only=ON",))))

    engine = create_engine("sqlite://", module=dbapi2, creator=connect, poolclass=NullPool, hide_parameters=True)
    begin_statement = "BEGIN IMMEDIATE" if writer else "BEGIN"

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin_statement)

    return engine


def open_raw(path: Path, key: KeyMaterial, pragmas: tuple[str, ...] = ()) -> Any:
    """A DB-API connection in autocommit mode to the existing file at `path`."""
    raw = dbapi2.connect(
        f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=5.0
    )
    try:
        raw.execute("PRAGMA cipher_log_level=NONE")
        raw.execute(f"PRAGMA key=\"x'{key.reveal().hex()}'\"")
        for pragma in pragmas:
            raw.execute(pragma)
    except BaseException:
        raw.close()
        raise
    return raw


def in_plain_words(error: Exception, path: Path) -> StoreError | None:
    """The store error that a database error means, None where it is about the statement and not the store."""
    cause = _cause(error)
    match _code(error):
        case _Code.BUSY | _Code.LOCKED:
            return StoreUnavailable(f"the store {path} is locked by another program: find it and stop it")
        case _Code.READ_ONLY:
            return StoreUnavailable(f"the store {path} cannot be written: check its permissions and file system")
        case _Code.IO_ERROR:
            return StoreUnavailable(f"reading or writing the store {path} failed ({cause}): check the disk")
        case _Code.FULL:
            return StoreUnavailable(f"the disk of the store {path} is full: make room")
        case _Code.CANNOT_OPEN:
            return StoreUnavailable(f"the store {path} cannot be opened: check that it exists and its permissions")
        case _Code.CORRUPT | _Code.NOT_A_DATABASE:
            return StoreCorrupt(
                f"the store {path} is damaged: stop the service, keep a copy, run `keyhaul store verify`, restore or "
                "remove it (what it held counts as burned)"
            )
    return None


@contextlib.contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn database errors about the store itself into store errors."""
    try:
        yield
    except (DBAPIError, dbapi2.Error) as error:
        meaning = in_plain_words(error, path)
        if meaning is None:
            raise
        raise meaning from error


def is_wrong_key(error: Exception) -> bool:
    """Whether the first read found no database: the key is wrong, or the file is something else."""
    return _code(error) == _Code.NOT_A_DATABASE


def is_io_error(error: Exception) -> bool:
    """Whether the operating system failed to read, write or synchronise."""
    return _code(error) == _Code.IO_ERROR


def _cause(error: Exception) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _code(error: Exception) -> int | None:
    code = getattr(_cause(error), "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None
