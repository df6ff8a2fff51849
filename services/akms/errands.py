"""Durable errands: what a UKMS or another AKMS must still be told, written in the transaction that made it necessary.

Each target has one worker that goes through its errands in order and repeats the first until it is done; every
errand is idempotent. An errand about a batch ends with the batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select

from keyhaul.runtime.interface import Runtime
from keyhaul.store.interface import Store
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.akms.metrics import Metrics
from services.akms.pace import Pace
from services.akms.tables import ERRANDS
from services.akms.tasks import Tasks

_PIECE = 32
TRANSIENT = frozenset(
    {
        ErrorCode.UNREACHABLE,
        ErrorCode.DEADLINE,
        ErrorCode.BUSY,
        ErrorCode.EXHAUSTED,
        ErrorCode.INTERNAL,
        ErrorCode.UNKNOWN_SESSION,
        ErrorCode.AUTHENTICATION,
        ErrorCode.REPLAYED,
    }
)
"""Failures of a call that say nothing about the next attempt."""


class ErrandKind(StrEnum):
    """What is to be done."""

    VOID_COPIES = "void-copies"
    """Slaves' copies of these keys at the target UKMS are to go."""
    WITHDRAW = "withdraw"
    """The maker is to let the slaves' copies of these keys go."""
    VOID_AT_ASKER = "void-at-asker"
    """The copies at this maker's side are lost: the asker is to withdraw what its master has not issued."""
    RECALL = "recall"
    """The master's UKMS is to give up what it has not issued, and the slaves' copies with it."""
    RESOLVE = "resolve"
    """Ask the asker what became of a batch, and settle or void it."""
    REVOKE = "revoke"
    """The UKMS is to stop issuing to a master."""


class Facts(msgspec.Struct, omit_defaults=True):
    """What an errand needs besides its batch."""

    key_ids: list[str] = []
    """Empty: the whole batch."""
    master: str = ""
    slaves: list[str] = []
    counted: str = ""
    """The grant from whose count go those keys of which the target says that nobody got them."""


@dataclass(frozen=True, slots=True)
class Errand:
    """One thing to tell one target."""

    kind: ErrandKind
    target: str
    batch: str = ""
    facts: Facts = Facts()  # noqa: RUF009 - never changed
    expires: float | None = None
    """Wall clock; None: never."""


Finish = Callable[[Connection], Iterable[str]]
"""What is written in the transaction that deletes the errand; returns targets of new errands."""

Runner = Callable[[Errand], Awaitable[Finish | None]]
"""Does one errand; raises ServiceError where it must be repeated or was refused for good."""


def add(connection: Connection, errand: Errand) -> str:
    """Record an errand, unless the same one waits already; returns its target, to be woken after the commit."""
    facts = msgspec.json.encode(errand.facts)
    same = (ERRANDS.c.batch == errand.batch, ERRANDS.c.kind == errand.kind, ERRANDS.c.target == errand.target)
    if errand.batch and connection.execute(select(ERRANDS.c.id).where(*same, ERRANDS.c.facts == facts)).first():
        return errand.target
    connection.execute(
        insert(ERRANDS).values(
            kind=errand.kind,
            target=errand.target,
            batch=errand.batch,
            facts=facts,
            expires=errand.expires,
        )
    )
    return errand.target


def waiting(connection: Connection, kind: ErrandKind, target: str) -> set[str]:
    """The batches for which a target has an errand of a kind."""
    mine = select(ERRANDS.c.batch).where(ERRANDS.c.kind == kind, ERRANDS.c.target == target)
    return set(connection.execute(mine).scalars())


def _of_target(connection: Connection, target: str) -> Sequence[Row[Any]]:
    mine = select(ERRANDS).where(ERRANDS.c.target == target)
    return connection.execute(mine.order_by(ERRANDS.c.id).limit(_PIECE)).all()


class Errands:
    """The errands of one AKMS."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        tasks: Tasks,
        metrics: Metrics,
        pace: Pace,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._tasks = tasks
        self._metrics = metrics
        self._pace = pace
        self._wall = wall
        self._runners: dict[ErrandKind, Runner] = {}
        self._news: dict[str, asyncio.Event] = {}

    def serve(self, kind: ErrandKind, runner: Runner) -> None:
        """Say who does errands of a kind."""
        self._runners[kind] = runner

    async def start(self) -> None:
        """Take up what the store has."""
        targets = await self._store.read(lambda c: c.execute(select(ERRANDS.c.target).distinct()).scalars().all())
        self.wake(*targets)

    def wake(self, *targets: str) -> None:
        """There is something new for these targets, or they have come back."""
        for target in set(targets):
            if target not in self._news:
                self._news[target] = asyncio.Event()
                self._tasks.start(self._work(target), f"errands {target}")
            self._news[target].set()

    async def _work(self, target: str) -> None:
        """Do a target's errands until there are none; end then, so that nothing is kept for idle targets."""
        backoff = self._pace.backoff
        news = self._news[target]
        while True:
            news.clear()
            rows = await self._store.read(partial(_of_target, target=target))
            if not rows and not news.is_set():
                del self._news[target]
                return
            for row in rows:
                facts = msgspec.json.decode(row.facts, type=Facts)
                errand = Errand(ErrandKind(row.kind), row.target, row.batch, facts, row.expires)
                if await self._do(row.id, errand):
                    backoff = self._pace.backoff
                    continue
                try:
                    async with asyncio.timeout(backoff):
                        await news.wait()
                except TimeoutError:
                    backoff = min(2 * backoff, self._pace.backoff_limit)
                break

    async def _do(self, number: int, errand: Errand) -> bool:
        finish: Finish | None = None
        if errand.expires is None or errand.expires > self._wall():
            try:
                finish = await self._runners[errand.kind](errand)
            except ServiceError as error:
                if error.code in TRANSIENT:
                    return False
                self._metrics.errands.labels(errand.kind, "refused").inc()
                self._runtime.alarm("errand-refused", kind=errand.kind, target=errand.target, code=error.code)
            else:
                self._metrics.errands.labels(errand.kind, "done").inc()

        def change(connection: Connection) -> list[str]:
            targets = [] if finish is None else list(finish(connection))
            connection.execute(delete(ERRANDS).where(ERRANDS.c.id == number))
            return targets

        self.wake(*await self._store.write(change))
        return True
