"""The SQL database behind AAA: opened, brought to this release's tables, and used from a thread of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

Result = TypeVar("Result")

MIGRATIONS = Path(__file__).with_name("migrations")

WAITING = 1_024
"""Transactions that may wait for the thread at a time."""


class DatabaseUnusable(Exception):
    """The database cannot be opened or is not one of this release; the message says what to do."""


class DatabaseUnavailable(Exception):
    """A transaction failed, or its outcome is unknown."""


class DatabaseBusy(DatabaseUnavailable):
    """Too many transactions wait."""


class Database:
    """Transactions on one database, one after the other. Made by `open`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aaa-database")
        self._waiting = 0

    @classmethod
    def open(cls, url: str, directory: Path) -> Database:
        """Open a database and bring it to this release's tables. Blocks.

        Args:
            url: SQLAlchemy's; the path of an SQLite file is relative to `directory`.
            directory: where the configuration file is.

        Raises:
            DatabaseUnusable: it cannot be opened, or was written by a newer release.
        """
        place = _url(url, directory)
        shown = place.render_as_string(hide_password=True)
        try:
            engine = _engine(place)
            with engine.begin() as connection:
                _upgrade(connection, shown)
        except OSError as error:
            raise DatabaseUnusable(f"{shown} cannot be opened: {error.strerror or error}") from None
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise DatabaseUnusable(f"{shown}: this installation has no driver for it ({error})") from None
        except SQLAlchemyError as error:
            raise DatabaseUnusable(f"{shown} cannot be opened: {_reason(error)}") from None
        return cls(engine)

    def transact(self, work: Callable[[Connection], Result]) -> Result:
        """Run work in a transaction, in this thread; what it did is durable when this returns. Blocks.

        Raises:
            DatabaseUnavailable: it failed, or its outcome is unknown. What the work itself raises passes through,
                and nothing of it stays.
        """
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(_reason(error)) from None

    async def run(self, work: Callable[[Connection], Result], *, deadline: float = 10.0) -> Result:
        """As `transact`, in the database's thread.

        Args:
            work: the transaction.
            deadline: seconds, waiting included.

        Raises:
            DatabaseBusy: too many transactions wait.
            DatabaseUnavailable: as `transact`, or late.
        """
        if self._waiting >= WAITING:
            raise DatabaseBusy("too many transactions wait for the database")
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self.transact, work)
        except TimeoutError:
            raise DatabaseUnavailable(f"the database did not answer within {deadline:g} s") from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Finish what was begun, then close. Blocks."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()


def _url(text: str, directory: Path) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        raise DatabaseUnusable("database is no URL (e.g. sqlite:///aaa.db)") from None
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise DatabaseUnusable("AAA needs a database that lasts: name a file (e.g. sqlite:///aaa.db)")
        url = url.set(database=str(directory / url.database))
    return url


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url)
    assert url.database is not None
    os.close(os.open(url.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    engine = create_engine(url, connect_args={"timeout": 5.0})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy begins and commits, see below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _upgrade(connection: Connection, shown: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    present = MigrationContext.configure(connection).get_current_heads()
    known = {script.revision for script in scripts.walk_revisions()}
    if unknown := [revision for revision in present if revision not in known]:
        raise DatabaseUnusable(
            f"{shown} was written by a newer release (revision {', '.join(unknown)}; this one knows up to"
            f" {', '.join(scripts.get_heads())}): install that release, or restore a backup of this one's database"
        )
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise DatabaseUnusable(f"{shown} cannot be brought to this release's tables: {error}") from None


def _reason(error: SQLAlchemyError) -> str:
    """What went wrong, without the statement and its parameters, which name users."""
    return str(getattr(error, "orig", None) or type(error).__name__)
