"""Disks that outlive processes: SQLite in memory, which can be copied, put back, and lost."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Connection, MetaData, create_engine, event
from sqlalchemy.pool import StaticPool

from keyhaul.store.interface import FieldCipher, StoreStatus, StoreUnavailable
from tests.keyhaul.link.doubles import PlainFields

if TYPE_CHECKING:
    from random import Random

Result = TypeVar("Result")

COPIES = 4
"""Older states that are kept of a disk."""

SLOWEST = 0.004
"""Seconds that a commit takes at most."""


class Disk:
    """What a service has durably, through all its lives."""

    def __init__(self, metadata: MetaData, store_id: str) -> None:
        self.store_id = store_id
        self.commits = 0
        self.copies: deque[tuple[bytes, str]] = deque(maxlen=COPIES)
        self.harmed: list[float] = []
        """When it was put back to an older state, or lost."""
        self.on_commit: Callable[[], None] = lambda: None
        self._metadata = metadata
        self.engine = create_engine("sqlite://", poolclass=StaticPool)

        @event.listens_for(self.engine, "connect")
        def prepare(connection: Any, _: Any) -> None:
            connection.isolation_level = None

        @event.listens_for(self.engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

        metadata.create_all(self.engine)
        self._empty = self.content()

    @property
    def raw(self) -> sqlite3.Connection:
        """The connection, for the oracle: it looks, and changes nothing."""
        with self.engine.connect() as connection:
            return cast(sqlite3.Connection, connection.connection.driver_connection)

    def content(self) -> bytes:
        """All of it."""
        return self.raw.serialize()

    def keep_copy(self) -> None:
        """Keep the present state, to be put back later."""
        self.copies.append((self.content(), self.store_id))

    def put_back(self, choice: Random, now: float) -> bool:
        """Go back to one of the older states; False where there is none."""
        if not self.copies:
            return False
        content, self.store_id = choice.choice(list(self.copies))
        self.raw.deserialize(content)
        self.harmed.append(now)
        return True

    def lose(self, store_id: str, now: float) -> None:
        """Lose everything."""
        self.raw.deserialize(self._empty)
        self.store_id = store_id
        self.copies.clear()
        self.harmed.append(now)

    def transact(self, change: Callable[[Connection], Result]) -> Result:
        """Run a change in a transaction: durable when this returns, or it raised and nothing of it stays."""
        with self.engine.begin() as connection:
            result = change(connection)
        self.commits += 1
        self.on_commit()
        return result

    def close(self) -> None:
        """Let go of the memory."""
        self.engine.dispose()


Step = Callable[[str], bool]
"""Told before and after each commit; True when the store fails there. The process may die in it."""


class SimulatedStore:
    """One process's way to its disk: `keyhaul.store.interface.Store`, and the calls of `aaa.database.Database`."""

    def __init__(self, disk: Disk, chance: Random, step: Step) -> None:
        self._disk = disk
        self._chance = chance
        self._step = step
        self._fields: FieldCipher = PlainFields()
        self._queue: deque[tuple[Callable[[Connection], Any], asyncio.Future[Any]]] = deque()
        self._writing = False
        self._writer: asyncio.Task[None] | None = None

    @property
    def store_id(self) -> str:
        """See `Store`."""
        return self._disk.store_id

    @property
    def fields(self) -> FieldCipher:
        """See `Store`."""
        return self._fields

    async def write(self, change: Callable[[Connection], Result]) -> Result:
        """See `Store`: once begun it is carried out, even if whoever asked gives up."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append((change, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())
        return await done

    async def read(self, query: Callable[[Connection], Result]) -> Result:
        """See `Store`."""
        await asyncio.sleep(self._chance.choice((0, 0.0002, 0.002)))
        with self._disk.engine.begin() as connection:
            return query(connection)

    async def run(self, work: Callable[[Connection], Result], *, deadline: float = 10.0) -> Result:
        """See `Database`."""
        return await self.write(work)

    async def status(self) -> StoreStatus:
        """Not needed here."""
        raise NotImplementedError

    async def close(self) -> None:
        """See `Store`."""

    async def _write(self) -> None:
        while self._queue:
            await asyncio.sleep(self._chance.uniform(0.0001, SLOWEST))
            group = list(self._queue)
            self._queue.clear()
            answers = []
            for change, done in group:
                answers.append((done, *self._one(change)))
                await asyncio.sleep(0)
            await asyncio.sleep(self._chance.uniform(0.0, SLOWEST))
            for done, result, error in answers:
                if done.done():
                    continue
                if error is None:
                    done.set_result(result)
                else:
                    done.set_exception(error)

    def _one(self, change: Callable[[Connection], Any]) -> tuple[Any, Exception | None]:
        if self._step("before"):
            return None, StoreUnavailable("the disk failed")
        try:
            result = self._disk.transact(change)
        except Exception as error:
            return None, error
        if self._step("after"):
            return None, StoreUnavailable("the disk failed")
        return result, None
