"""Disks that outlive processes: SQLite in memory, which can be copied, put back, lost, and left without power."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Connection, MetaData, create_engine, event
from sqlalchemy.pool import StaticPool

from keyhaul.store.interface import FieldCipher, StoreStatus, StoreUnavailable
from tests.keyhaul.link.doubles import PlainFields

if TYPE_CHECKING:
    from random import Random

Result = TypeVar("Result")
Outcome = tuple[Any, Exception | None]

COPIES = 4
"""Older states that are kept of a disk."""

SLOWEST = 0.004
"""Seconds that a commit takes at most."""


LAZY = 4
"""Transactions after which a lazy disk writes everything down."""

_EMPTY: dict[MetaData, bytes] = {}
"""What is on a disk with these tables and nothing in them."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A disk as it once was."""

    content: bytes
    store_id: str
    generation: int
    made: float = 0.0


class Disk:
    """What a service has durably, through all its lives."""

    def __init__(self, metadata: MetaData, store_id: str, *, lazy: bool = False) -> None:
        self.store_id = store_id
        self.generation = 0
        self.commits = 0
        self.copies: deque[Copy] = deque(maxlen=COPIES)
        self.put_back_at: list[float] = []
        """When it was put back to an older state."""
        self.put_back_to: list[Copy] = []
        """Which that was, each time."""
        self.lost_at: list[float] = []
        """When everything on it was lost."""
        self.on_commit: Callable[[], None] = lambda: None
        engine = create_engine("sqlite://", poolclass=StaticPool)

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _: Any) -> None:
            connection.isolation_level = None

        # One connection for ever, whose transactions are begun and ended below: the engine's own ways would cost more
        # than the statements.
        self.connection = engine.connect()
        self.raw = cast(sqlite3.Connection, self.connection.connection.driver_connection)
        """The same, for the oracle: it looks, and changes nothing."""
        self._engine = engine
        if metadata not in _EMPTY:
            metadata.create_all(self.connection)
            _EMPTY[metadata] = self.content()
        self._empty = _EMPTY[metadata]
        self.raw.deserialize(self._empty)
        self._renewal = ""
        self._lazy = lazy
        self._safe: Copy | None = None
        self._unsafe = 0

    @property
    def harmed(self) -> list[float]:
        """When it was put back to an older state, or lost."""
        return self.put_back_at + self.lost_at

    def begin_from_here(self) -> None:
        """What is on it now is what it has when everything is lost."""
        self._empty = self.content()

    def content(self) -> bytes:
        """All of it."""
        return self.raw.serialize()

    def keep_copy(self, now: float) -> None:
        """Keep the present state, to be put back later."""
        self.copies.append(replace(self._copy(), made=now))

    def put_back(self, choice: Random, now: float) -> bool:
        """Go back to one of the older states; False where there is none."""
        if not self.copies:
            return False
        copy = choice.choice(list(self.copies))
        self._become(copy)
        self.put_back_at.append(now)
        self.put_back_to.append(copy)
        return True

    def lose(self, store_id: str, now: float) -> None:
        """Lose everything."""
        self.raw.deserialize(self._empty)
        self.store_id, self.generation = store_id, 0
        self.copies.clear()
        self.lost_at.append(now)

    def transact(self, *changes: Callable[[Connection], Any], cut: Callable[[], None] = lambda: None) -> list[Outcome]:
        """Run changes in one transaction, each in a savepoint: durable when this returns.

        `cut` runs before the commit; where it raises, the power failed: nothing of the transaction stays.
        """
        execute = self.raw.execute
        before = self.raw.total_changes
        self._renewal = ""
        if self._lazy:
            self._safe = self._safe or self._copy()
            self._unsafe = (self._unsafe + 1) % LAZY
        execute("BEGIN")
        try:
            outcomes = [self._apply(change) for change in changes]
            cut()
        except BaseException:
            execute("ROLLBACK")
            raise
        execute("COMMIT")
        if not self._unsafe:
            self._safe = None
        self.generation += self.raw.total_changes != before
        self.store_id = self._renewal or self.store_id
        self.commits += 1
        self.on_commit()
        return outcomes

    def power_cut(self) -> None:
        """The process died: a disk that called data safe too early loses them now."""
        if self._safe is not None:
            self._become(self._safe)
            self._safe = None
            self._unsafe = 0

    def renew(self, store_id: str) -> None:
        """Give the store a new identity with the transaction that is under way."""
        self._renewal = store_id

    def close(self) -> None:
        """Let go of the memory."""
        self.connection.close()
        self._engine.dispose()

    def _copy(self) -> Copy:
        return Copy(self.content(), self.store_id, self.generation)

    def _become(self, copy: Copy) -> None:
        self.raw.deserialize(copy.content)
        self.store_id, self.generation = copy.store_id, copy.generation

    def _apply(self, change: Callable[[Connection], Any]) -> Outcome:
        execute = self.raw.execute
        execute("SAVEPOINT change")
        try:
            result = change(self.connection)
        except Exception as error:
            execute("ROLLBACK TO change")
            execute("RELEASE change")
            return None, error
        execute("RELEASE change")
        return result, None


Step = Callable[[str], bool]
"""Told before, within and after each commit; True when the store fails there. The process may die in it."""


class SimulatedStore:
    """One process's way to its disk: `keyhaul.store.interface.Store`, and what AAA calls of its database."""

    def __init__(self, disk: Disk, chance: Random, step: Step) -> None:
        self._disk = disk
        self._chance = chance
        self._step = step
        self._fields: FieldCipher = PlainFields()
        self._queue: deque[tuple[Callable[[Connection], Any], asyncio.Future[Any]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self.opened_generation = disk.generation
        """See `Store`."""
        disk.generation += 1

    @property
    def store_id(self) -> str:
        """See `Store`."""
        return self._disk.store_id

    @property
    def generation(self) -> int:
        """See `Store`."""
        return self._disk.generation

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

    async def renew(self, change: Callable[[Connection], Result]) -> Result:
        """See `Store`."""
        renewed = self._chance.randbytes(16).hex()

        def both(connection: Connection) -> Result:
            result = change(connection)
            self._disk.renew(renewed)
            return result

        result = await self.write(both)
        self.opened_generation = 0
        return result

    async def read(self, query: Callable[[Connection], Result]) -> Result:
        """See `Store`."""
        await asyncio.sleep(self._chance.choice((0, 0.0002, 0.002)))
        return query(self._disk.connection)

    async def run(self, work: Callable[[Connection], Result], *, deadline: float = 10.0) -> Result:
        """See `Database`."""
        return await self.write(work)

    async def status(self) -> StoreStatus:
        """Not needed here."""
        raise NotImplementedError

    async def close(self) -> None:
        """See `Store`."""

    async def _write(self) -> None:
        """What waits becomes durable, some of it together, and is answered a while later."""
        while self._queue:
            await asyncio.sleep(self._chance.uniform(0.0001, SLOWEST))
            group = list(self._queue)
            self._queue.clear()
            answers: list[tuple[asyncio.Future[Any], Outcome]] = []
            while group:
                count = self._chance.choice((1, len(group)))
                part, group = group[:count], group[count:]
                outcomes = self._commit([change for change, _ in part])
                answers += [(done, outcome) for (_, done), outcome in zip(part, outcomes, strict=True)]
                await asyncio.sleep(0)
            await asyncio.sleep(self._chance.uniform(0.0, SLOWEST))
            for done, (result, error) in answers:
                if done.done():
                    continue
                if error is None:
                    done.set_result(result)
                else:
                    done.set_exception(error)

    def _commit(self, changes: list[Callable[[Connection], Any]]) -> list[Outcome]:
        failed: list[Outcome] = [(None, StoreUnavailable("the disk failed"))] * len(changes)
        if self._step("before"):
            return failed
        outcomes = self._disk.transact(*changes, cut=self._cut)
        return failed if self._step("after") else outcomes

    def _cut(self) -> None:
        self._step("within")
