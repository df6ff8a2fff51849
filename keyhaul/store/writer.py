"""One thread that writes: every change that waits goes into one transaction, and callers hear after COMMIT.

An fsync takes far longer than a change, so the group grows with the load.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Connection

from keyhaul.store import versions
from keyhaul.store.interface import StoreUnavailable
from keyhaul.store.sqlcipher import in_plain_words, is_io_error

Result = TypeVar("Result")

WAITING = 4_096
"""Changes that may wait; the next is refused as busy."""

GROUP = 512
"""Changes in one transaction at most."""


@dataclass(slots=True)
class _Waiting:
    change: Callable[[Connection], Any]
    future: asyncio.Future[Any]


_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


class GroupWriter:
    """Applies changes in the order in which they came."""

    def __init__(self, connection: Connection, path: Path, loop: asyncio.AbstractEventLoop, generation: int) -> None:
        """Take over a connection, which only the writer's thread uses from now on.

        Args:
            connection: to the database, as a writer.
            path: of the database, for messages.
            loop: of those who call.
            generation: of the store as it is now.
        """
        self.generation = generation
        """Of the last durable commit."""
        self._attempted = generation
        self._connection = connection
        self._raw: Any = connection.connection.dbapi_connection
        self._path = path
        self._loop = loop
        self._waiting: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._failed: str | None = None
        self._ended = loop.create_future()
        self._thread = threading.Thread(target=self._run, name=f"store {path.name}", daemon=True)
        self._thread.start()

    async def write(self, change: Callable[[Connection], Result]) -> Result:
        """Queue a change and wait until it is durable.

        Raises:
            StoreUnavailable: too many wait, the store is closing or has failed, or the commit did.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._wake:
            if self._closing:
                raise StoreUnavailable(f"the store {self._path} is closed")
            if self._failed is not None:
                raise StoreUnavailable(self._failed)
            if len(self._waiting) >= WAITING:
                raise StoreUnavailable(f"the store {self._path} is busy: {WAITING} changes wait")
            self._waiting.append(_Waiting(change, future))
            self._wake.notify()
        return cast(Result, await future)

    async def close(self) -> None:
        """Finish what was accepted, then stop the thread; the connection is the caller's again."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.shield(self._ended)
        self._thread.join()

    def _run(self) -> None:
        while group := self._take():
            self._post(self._settle, self._transact(group))
        self._post(self._ended.set_result, None)

    def _take(self) -> list[_Waiting]:
        with self._wake:
            while not self._waiting and not self._closing:
                self._wake.wait()
            return [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]

    def _transact(self, group: list[_Waiting]) -> list[_Outcome]:
        if self._failed is not None:
            return [(waiting.future, None, StoreUnavailable(self._failed)) for waiting in group]
        outcomes: list[_Outcome] = []
        committing = False
        changes = self._raw.total_changes
        try:
            with self._connection.begin() as transaction:
                for waiting in group:
                    outcomes.append(self._apply(waiting) if len(group) > 1 else self._apply_alone(waiting))
                    if len(group) == 1 and outcomes[0][2] is not None:
                        transaction.rollback()
                        return outcomes
                    if not (transaction.is_active and self._raw.in_transaction):
                        raise StoreUnavailable("a change of the group ended the transaction of all")
                if self._raw.total_changes != changes:
                    self._attempted += 1
                    self._raw.execute(versions.RAISE, (str(self._attempted),))
                committing = True
        except Exception as error:  # the thread outlives it; every caller of the group hears of it
            failure = f"the outcome is unknown: {in_plain_words(error, self._path) or error}"
            if committing and is_io_error(error):
                # After a failed fsync nobody knows what is on the disk: no later commit could be trusted.
                self._failed = f"{failure}; restart the service once the disk is in order"
            return [(waiting.future, None, StoreUnavailable(failure)) for waiting in group]
        self.generation = self._attempted
        return outcomes

    def _apply(self, waiting: _Waiting) -> _Outcome:
        """Run one change in a savepoint of its own."""
        self._raw.execute("SAVEPOINT keyhaul_change")
        try:
            result = waiting.change(self._connection)
        except Exception as error:  # the caller's own: it is handed back to the caller
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK TO keyhaul_change")
                self._raw.execute("RELEASE keyhaul_change")
            return waiting.future, None, in_plain_words(error, self._path) or error
        if self._raw.in_transaction:
            self._raw.execute("RELEASE keyhaul_change")
        return waiting.future, result, None

    def _apply_alone(self, waiting: _Waiting) -> _Outcome:
        """Run the only change of a transaction: where it raises, the transaction goes with it."""
        try:
            return waiting.future, waiting.change(self._connection), None
        except Exception as error:  # the caller's own: it is handed back to the caller
            return waiting.future, None, in_plain_words(error, self._path) or error

    def _post(self, function: Callable[..., Any], argument: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, argument)
        except RuntimeError:  # the loop has ended, and with it whoever waited
            self._closing = True

    @staticmethod
    def _settle(outcomes: list[_Outcome]) -> None:
        for future, result, error in outcomes:
            if future.cancelled():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
