"""Transactions on one database, from a thread of their own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from keyhaul.database.engines import UNKNOWN_OUTCOME, WARNINGS, engine_for, locate
from keyhaul.database.errors import DatabaseBusy, DatabaseUnavailable, DatabaseUnusable, OutcomeUnknown
from keyhaul.database.migrating import upgrade
from keyhaul.store.interface import StoreUnavailable
from keyhaul.store.lock import StoreLock

Result = TypeVar("Result")

WAITING = 1_024
"""Transactions that may wait for the thread at a time."""

ATTEMPTS = 8
"""So often a transaction is tried that collides with those of other processes."""

_COLLISIONS = frozenset({"40001", "40P01"})
"""SQLSTATEs of transactions that PostgreSQL undid whole, for another's sake: serialization failure, deadlock."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """Whose database it is."""

    owner: str
    """For people, e.g. ``AAA``."""
    migrations: Path
    """Alembic's folder."""
    file: str
    """What an SQLite file is usually called, e.g. ``aaa.db``."""
    exclusive: bool = False
    """Whether a second process is kept from an SQLite file; processes share a PostgreSQL database in any case."""


class Database:
    """Transactions on one database, one after the other. Made by `open`."""

    def __init__(self, engine: Engine, owner: str, lock: StoreLock | None = None) -> None:
        self._engine = engine
        self._lock = lock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{owner.lower()}-database")
        self._waiting = 0

    @classmethod
    def open(cls, purpose: Purpose, url: str, directory: Path) -> Database:
        """Open a database and bring it to this release's tables. Blocks.

        Args:
            purpose: whose it is.
            url: SQLAlchemy's; the path of an SQLite file is relative to `directory`.
            directory: where the configuration file is.

        Raises:
            DatabaseUnusable: it cannot be opened, is another process's alone, or was written by a newer release.
        """
        place = locate(url, directory, purpose.owner, f"sqlite:///{purpose.file}")
        shown = place.render_as_string(hide_password=True)
        with ExitStack() as undo, _told(shown):
            lock = None
            if purpose.exclusive and place.get_backend_name() == "sqlite":
                lock = StoreLock(Path(place.database or ""))
                undo.callback(lock.release)
            engine = engine_for(place)
            undo.callback(engine.dispose)
            upgrade(engine, purpose.migrations, shown)
            undo.pop_all()
            return cls(engine, purpose.owner, lock)

    @property
    def shared(self) -> bool:
        """Whether other processes may use it at the same time."""
        return self._engine.dialect.name != "sqlite"

    def transact(self, work: Callable[[Connection], Result]) -> Result:
        """Run work in a transaction, in this thread; what it did is durable when this returns. Blocks.

        Transactions are serializable. One that collides with another process's is undone and run again, so work
        keeps what it learns to its result.

        Raises:
            OutcomeUnknown: it may have been committed, or may not outlive the database's machine.
            DatabaseUnavailable: it failed. What the work itself raises passes through, and nothing of it stays.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._attempt(work)
            except _Collision as error:
                if attempt == ATTEMPTS:
                    raise DatabaseUnavailable(f"collided {ATTEMPTS} times: {error}") from None
                time.sleep(random.uniform(0, 0.002 * 2**attempt))  # noqa: S311 - to fall out of step, no secret
        raise AssertionError

    def _attempt(self, work: Callable[[Connection], Result]) -> Result:
        done = False
        try:
            with self._engine.begin() as connection:
                warnings: list[tuple[str | None, str | None]] = connection.info.get(WARNINGS, [])
                warnings.clear()
                result = work(connection)
                done = True
        except SQLAlchemyError as error:
            if getattr(getattr(error, "orig", None), "sqlstate", None) in _COLLISIONS:
                raise _Collision(_reason(error)) from None
            raise (OutcomeUnknown if done else DatabaseUnavailable)(_reason(error)) from None
        for state, message in warnings:
            if state == UNKNOWN_OUTCOME:
                raise OutcomeUnknown(f"committed, but perhaps not durably: {message}")
        return result

    async def run(self, work: Callable[[Connection], Result], *, deadline: float = 10.0) -> Result:
        """As `transact`, in the database's thread.

        Args:
            work: the transaction.
            deadline: seconds, waiting included.

        Raises:
            DatabaseBusy: too many transactions wait.
            OutcomeUnknown: as `transact`, or late.
            DatabaseUnavailable: as `transact`.
        """
        if self._waiting >= WAITING:
            raise DatabaseBusy("too many transactions wait for the database")
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self.transact, work)
        except TimeoutError:
            raise OutcomeUnknown(f"the database did not answer within {deadline:g} s") from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Finish what was begun, then close. Blocks."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()


class _Collision(Exception):
    """A transaction was undone for another's sake."""


@contextmanager
def _told(shown: str) -> Iterator[None]:
    """Turn what can go wrong at opening into `DatabaseUnusable`."""
    try:
        yield
    except StoreUnavailable as error:
        raise DatabaseUnusable(str(error)) from None
    except OSError as error:
        raise DatabaseUnusable(f"{shown} cannot be opened: {error.strerror or error}") from None
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise DatabaseUnusable(f"{shown}: this installation has no driver for it ({error})") from None
    except SQLAlchemyError as error:
        raise DatabaseUnusable(f"{shown} cannot be opened: {_reason(error)}") from None


def _reason(error: SQLAlchemyError) -> str:
    """What went wrong, without the statement and its parameters, which name users."""
    original = getattr(error, "orig", None)
    if primary := getattr(getattr(original, "diag", None), "message_primary", None):
        return str(primary)  # without the detail, which quotes rows
    return str(original or type(error).__name__)
