"""The lease in the database: taken, renewed, given back; and what only its holder may write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, select, update

from controller.state.counters import move, value
from controller.state.lease import Lease, Look, Renew, Row, Step, Take, Terms
from controller.state.schema import LEASE, SERIAL, lease
from keyhaul.database.database import Database
from keyhaul.database.errors import DatabaseUnavailable
from keyhaul.randomness import random_bytes

Result = TypeVar("Result")

SKIPPED = 1 << 32
"""Serials that are left out when the database is found older than the network: more than it can have forgotten."""

_MINE = lease.c.name == LEASE


class NotLeading(Exception):
    """This process does not lead, or not any more."""


def boot_time() -> float:
    """Seconds since the machine started, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def look(connection: Connection) -> Row:
    """The lease as it is."""
    row = connection.execute(select(lease).where(_MINE)).one()
    return Row(row.holder, row.epoch, row.beat, row.address)


def take(connection: Connection, seen: Row, own: str, address: str) -> int | None:
    """Become the holder; return the new epoch, None where the lease is not as it was seen any more."""
    as_seen = _MINE & (lease.c.holder == seen.holder) & (lease.c.epoch == seen.epoch) & (lease.c.beat == seen.beat)
    epoch = seen.epoch + 1
    changed = connection.execute(
        update(lease).where(as_seen).values(holder=own, address=address, epoch=epoch, beat=0)
    ).rowcount
    return epoch if changed else None


def renew(connection: Connection, epoch: int, own: str) -> bool:
    """Raise the beat; False: another process has the lease."""
    held = _MINE & (lease.c.holder == own) & (lease.c.epoch == epoch)
    return connection.execute(update(lease).where(held).values(beat=lease.c.beat + 1)).rowcount == 1


def give_back(connection: Connection, epoch: int, own: str) -> None:
    """End the lease, so that another process need not wait for that."""
    held = _MINE & (lease.c.holder == own) & (lease.c.epoch == epoch)
    connection.execute(update(lease).where(held).values(holder="", address="", beat=lease.c.beat + 1))


def hold(connection: Connection, epoch: int) -> None:
    """Make sure, until the transaction ends, that nobody took the lease since this epoch began.

    Raises:
        NotLeading: somebody did.
    """
    found = connection.execute(select(lease.c.epoch).where(_MINE).with_for_update(read=True)).scalar_one()
    if found != epoch:
        raise NotLeading(f"epoch {found} has begun, this was {epoch}")


def surpass(connection: Connection, own: str, epoch: int, serial: int) -> int:
    """Let the holder lead in a later epoch than this one, with serials far after that one; return the epoch."""
    held = _MINE & (lease.c.holder == own)
    connection.execute(update(lease).where(held).values(epoch=epoch + 1, beat=0))
    move(connection, SERIAL, max(value(connection, SERIAL), serial) + SKIPPED)
    return epoch + 1


class Leadership:
    """Keeps this process in the lease or waiting for it. `run` does the work; `epoch` is asked before each act."""

    def __init__(
        self,
        database: Database,
        address: str,
        terms: Terms,
        *,
        gained: Callable[[int], None],
        lost: Callable[[int], None],
        clock: Callable[[], float] = boot_time,
    ) -> None:
        """Hold nothing yet.

        Args:
            database: the controllers'.
            address: where this one serves.
            terms: of the lease.
            gained: told the epoch in which this process leads from now.
            lost: told the epoch that ended for it.
            clock: seconds; must not stand still while the machine is suspended.
        """
        self._database = database
        self._address = address
        self._gained = gained
        self._lost = lost
        self._clock = clock
        self._told: int | None = None
        self.alone = not database.shared
        """There can be no other controller: the database is a file of this one's."""
        self.lease = Lease(random_bytes(16).hex(), terms, alone=self.alone)
        self.leader = Row()
        """The holder, as last seen."""

    @property
    def epoch(self) -> int | None:
        """The epoch in which this process leads, None while it may not act."""
        return self.lease.epoch(self._clock())

    @property
    def remaining(self) -> float:
        """Seconds for which this process may act if no renewal succeeds."""
        return self.lease.remaining(self._clock())

    async def run(self) -> None:
        """Take and keep the lease until cancelled; `close` then gives it back."""
        while True:
            await self.turn()
            await asyncio.sleep(self.lease.pause(self._clock()))

    async def turn(self) -> None:
        """Do what is due now, once."""
        sent = self._clock()
        step = self.lease.step(sent)
        self._tell()
        # A holder learns in time that it could not renew.
        deadline = self.lease.remaining(sent) or self.lease.terms.lease
        try:
            await self._do(step, sent, deadline)
        except DatabaseUnavailable:
            self.lease.failed(self._clock())
        self._tell()

    async def _do(self, step: Step, sent: float, deadline: float) -> None:
        own = self.lease.own
        match step:
            case Look():
                self.leader = await self._database.run(look, deadline=deadline)
                self.lease.looked(self.leader, self._clock())
            case Take(seen):
                epoch = await self._database.run(lambda c: take(c, seen, own, self._address), deadline=deadline)
                if epoch is None:
                    self.lease.failed(self._clock())
                    return
                self.lease.taken(epoch, sent)
                self.leader = Row(own, epoch, 0, self._address)
            case Renew(epoch):
                if await self._database.run(lambda c: renew(c, epoch, own), deadline=deadline):
                    self.lease.renewed(sent)
                else:
                    self.lease.lost()

    async def transact(self, work: Callable[[Connection], Result]) -> Result:
        """Run what only the leader may write.

        Raises:
            NotLeading: this process does not lead; nothing was written.
            DatabaseUnavailable: see `Database.run`.
        """
        epoch = self.epoch
        if epoch is None:
            raise NotLeading("this controller does not lead")

        def held(connection: Connection) -> Result:
            hold(connection, epoch)
            return work(connection)

        try:
            return await self._database.run(held, deadline=self.remaining)
        except NotLeading:
            if self.epoch == epoch:
                self.lease.lost()
                self._tell()
            raise

    async def surpass(self, epoch: int, serial: int) -> None:
        """Begin a later epoch than one that nodes have heard of though this database has not; see `outdated`.

        The epoch in which this process leads ends for it, and the later one begins.

        Raises:
            NotLeading: this process does not lead; nothing was written.
            DatabaseUnavailable: see `Database.run`.
        """
        later = await self.transact(lambda connection: surpass(connection, self.lease.own, epoch, serial))
        self.lease.surpassed(later)
        self.leader = Row(self.lease.own, later, 0, self._address)
        self._tell()

    async def close(self) -> None:
        """Stop leading; give the lease back where the database can be reached."""
        epoch, deadline = self.epoch, self.remaining
        self.lease.lost()
        self._tell()
        if epoch is not None:
            try:
                await self._database.run(lambda c: give_back(c, epoch, self.lease.own), deadline=deadline)
            except DatabaseUnavailable:
                return  # it ends by itself

    def _tell(self) -> None:
        epoch = self.epoch
        if epoch == self._told:
            return
        if self._told is not None:
            ended, self._told = self._told, None
            self._lost(ended)
        if epoch is not None:
            self._told = epoch
            self._gained(epoch)
