"""The embedded store: SQLAlchemy Core on SQLCipher, one process per file."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, func, inspect, select, table
from sqlalchemy.exc import DBAPIError
from sqlcipher3 import dbapi2

from keyhaul.config.services import StoreSection
from keyhaul.randomness import Source, identifier, random_bytes
from keyhaul.store import opened, versions
from keyhaul.store.interface import FieldCipher, Schema, StoreStatus, StoreUnavailable
from keyhaul.store.opening import OpenedDatabase, open_database
from keyhaul.store.sealer import sealer_of
from keyhaul.store.sqlcipher import engine_of, in_plain_words, plain_errors
from keyhaul.store.writer import GroupWriter

Result = TypeVar("Result")

READERS = 2
WAITING_READS = 1_024


class EmbeddedStore:
    """A `Store` in one encrypted file. Everything that blocks runs in threads of the store."""

    def __init__(self, database: OpenedDatabase, sealer: str, loop: asyncio.AbstractEventLoop, source: Source) -> None:
        """Use `open`."""
        self._database = database
        self._source = source
        self._store_id = database.about.store_id
        self._opened_generation = database.about.generation
        self._path = database.path
        self._sealer = sealer
        self._writing = engine_of(self._path, database.key, writer=True)
        self._reading = engine_of(self._path, database.key, writer=False)
        with plain_errors(self._path):
            self._connection = self._writing.connect()
        self._writer = GroupWriter(self._connection, self._path, loop, database.about.generation + 1)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix=f"read {self._path.name}")
        self._reader = threading.local()
        self._connections: list[Connection] = []
        self._waiting_reads = 0
        self._closed: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, section: StoreSection, directory: Path, schema: Schema, *, source: Source = random_bytes
    ) -> EmbeddedStore:
        """Open the store of a [store] section; make it, and its key, where neither has ever been.

        Args:
            section: its paths are relative to `directory`.
            directory: where the configuration file is.
            schema: what the service keeps; an older store is upgraded to it.
            source: draws the store's identity and keys.

        Raises:
            StoreUnavailable: locked by another process, wrong key, or it cannot be read or made.
            StoreCorrupt: what is there is damaged.
            StoreTooNew: a newer release wrote it.
        """
        loop = asyncio.get_running_loop()
        sealer = sealer_of(section, directory)

        def blocking() -> EmbeddedStore:
            database = open_database(directory / section.path, schema, sealer, source)
            try:
                return cls(database, sealer.name, loop, source)
            except BaseException:
                database.lock.release()
                raise

        store = await asyncio.to_thread(blocking)
        opened.add(store)
        return store

    @property
    def store_id(self) -> str:
        """32 hexadecimal digits: the identity of this store; a new store has a new one."""
        return self._store_id

    @property
    def opened_generation(self) -> int:
        """The generation in which the store was found when it was opened; 0 if it was given its identity since."""
        return self._opened_generation

    @property
    def generation(self) -> int:
        """The generation of the last durable commit: greater than `opened_generation`."""
        return self._writer.generation

    @property
    def fields(self) -> FieldCipher:
        """The cipher for single fields."""
        return self._database.fields

    async def write(self, change: Callable[[Connection], Result]) -> Result:
        """Run a change in a transaction; return its result once it is durable.

        `change` runs in the store's thread: it touches nothing but its connection and its own values, returns plain
        values (no cursors), and neither commits nor rolls back.

        Raises:
            StoreUnavailable: the outcome is unknown, the store failed, or too many changes wait.
            StoreCorrupt: the database is damaged.
        """
        return await self._writer.write(change)

    async def renew(self, change: Callable[[Connection], Result]) -> Result:
        """Run a change as `write` does, and give the store a new identity in the same transaction.

        Raises:
            StoreUnavailable: the outcome is unknown, the store failed, or too many changes wait.
            StoreCorrupt: the database is damaged.
        """
        store_id = identifier(self._source)

        def renewing(connection: Connection) -> Result:
            result = change(connection)
            versions.renew(connection, store_id)
            return result

        result = await self._writer.write(renewing)
        self._store_id = store_id
        self._opened_generation = 0
        return result

    async def read(self, query: Callable[[Connection], Result]) -> Result:
        """Run a query in a thread, on one snapshot of the last committed state.

        Raises:
            StoreUnavailable: the store failed or is closed, or too many queries wait.
            StoreCorrupt: the database is damaged.
        """
        if self._closed is not None:
            raise StoreUnavailable(f"the store {self._path} is closed")
        if self._waiting_reads >= WAITING_READS:
            raise StoreUnavailable(f"the store {self._path} is busy: {WAITING_READS} queries wait")
        self._waiting_reads += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, self._query, query)
        finally:
            self._waiting_reads -= 1

    async def status(self) -> StoreStatus:
        """What an operator may see."""
        rows = await self.read(_count_rows)
        about = self._database.about
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        size = await asyncio.to_thread(lambda: sum(file.stat().st_size for file in files if file.exists()))
        return StoreStatus(str(self._path), about.schema, about.version, self._store_id, size, rows, self._sealer)

    async def close(self) -> None:
        """Finish what was accepted, take it from the log into the database, then close."""
        if self._closed is None:
            opened.remove(self)
            self._closed = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closed)

    async def _close(self) -> None:
        await self._writer.close()
        await asyncio.to_thread(self._close_blocking)

    def _close_blocking(self) -> None:
        try:
            self._readers.shutdown()
            for connection in self._connections:
                connection.close()
            with plain_errors(self._path):
                raw: Any = self._connection.connection.dbapi_connection
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._connection.close()
        finally:
            self._writing.dispose()
            self._reading.dispose()
            self._database.lock.release()

    def _query(self, query: Callable[[Connection], Result]) -> Result:
        try:
            connection: Connection | None = getattr(self._reader, "connection", None)
            if connection is None:
                connection = self._reader.connection = self._reading.connect()
                self._connections.append(connection)
            with connection.begin():
                return query(connection)
        except (DBAPIError, dbapi2.Error) as error:
            meaning = in_plain_words(error, self._path)
            if meaning is None:
                raise
            raise meaning from error


def _count_rows(connection: Connection) -> dict[str, int]:
    return {
        name: connection.execute(select(func.count()).select_from(table(name))).scalar_one()
        for name in sorted(inspect(connection).get_table_names())
    }
