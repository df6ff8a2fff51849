"""How a CKMS is steered: the driver of `installed` over the store and the machine's clocks.

One change is under way at a time. A statement is durable before it takes effect; what ends, ends before that is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from keyhaul.agents.signing import SignedStatement
from keyhaul.agents.statements import StatementRefusal, StatementRefused
from keyhaul.store.interface import StoreUnavailable
from services.ckms.choice import PathChoice
from services.ckms.forwarding import ForwardingTable
from services.ckms.held import Change, Held, HighWater
from services.ckms.installed import Installed
from services.ckms.own_time import CHECKPOINT, OwnTime, Reading
from services.ckms.statement_store import StatementStore

TICK = 1.0
"""Seconds between looks for what has ended."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Alarms(Protocol):
    """Where alarms go (`keyhaul.runtime.interface.Runtime`)."""

    def alarm(self, name: str, **facts: Any) -> None:
        """Count and log an alarm."""
        ...


def machine_clocks() -> Reading:
    """Read the clocks of this machine."""
    return Reading(_BOOT.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


class Steering:
    """Accepts the controller's statements and ends them.

    `open` puts in force what was kept; `run` must be running from then on.
    """

    def __init__(
        self,
        installed: Installed,
        own_time: OwnTime,
        store: StatementStore,
        table: ForwardingTable,
        choice: PathChoice,
        alarms: Alarms,
        clocks: Callable[[], Reading],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        """Use `open`."""
        self._installed = installed
        self._time = own_time
        self._store = store
        self._table = table
        self._choice = choice
        self._alarms = alarms
        self._clocks = clocks
        self._pause = pause
        self._changing = asyncio.Lock()
        self._kept_at = 0.0
        self._settling: set[asyncio.Task[None]] = set()
        self.accepted = 0
        """Statements, since the process started."""
        self.refusals: Counter[StatementRefusal] = Counter()
        """Sets of statements that were refused, likewise."""

    @classmethod
    async def open(
        cls,
        installed: Installed,
        store: StatementStore,
        table: ForwardingTable,
        choice: PathChoice,
        alarms: Alarms,
        *,
        clocks: Callable[[], Reading] = machine_clocks,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Steering:
        """Verify what was kept, put it in force, and keep what follows from that.

        Raises:
            StoreUnavailable: the store failed.
        """
        loaded = await store.load()
        own_time = OwnTime(loaded.checkpoint, clocks())
        steering = cls(installed, own_time, store, table, choice, alarms, clocks, pause)
        change, dropped = installed.restore(loaded.kept, steering.now())
        for one in dropped:
            alarms.alarm("stored-statement-dropped", serial=one.serial, why=one.why.value)
        await steering._keep(change)
        return steering

    @property
    def incarnation(self) -> str:
        """Of this process: what a statement may name."""
        return self._installed.incarnation

    @property
    def high(self) -> HighWater:
        """How far (epoch, serial) has grown."""
        return self._installed.high

    @property
    def hard_limit(self) -> float:
        """Seconds from acceptance after which no statement is used."""
        return self._installed.hard_limit

    @property
    def held(self) -> Mapping[int, Held]:
        """The statements in force, and entries that drain, by serial."""
        return self._installed.held

    @property
    def in_contact(self) -> bool:
        """Whether a controller that leads was heard of late."""
        return self._installed.in_contact(self.now())

    @property
    def changing(self) -> asyncio.Lock:
        """Held while anything of the table changes."""
        return self._changing

    def health(self) -> dict[str, Any]:
        """For the health page: who was accepted last, and what holds."""
        high = self.high
        return {
            "controller_heard": self.in_contact,
            "epoch": high.epoch,
            "serial": high.serial,
            "in_doubt": high.doubt,
            "statements": len(self.held),
        }

    def now(self) -> float:
        """The own time, by which `Held.remaining` counts."""
        return self._time.at(self._clocks().since_boot)

    def heard(self) -> None:
        """A controller that leads was heard; a set of statements that was accepted counts by itself."""
        self._installed.heard(self.now())

    async def accept(self, offered: Mapping[int, SignedStatement]) -> None:
        """Take statements that came together, by serial: all are in force and durable when it returns, or none is.

        Raises:
            StatementRefused: one of them cannot be accepted.
            StoreUnavailable: the store failed.
        """
        # Whoever asked may go away; what is durable must be in force all the same.
        task = asyncio.create_task(self._accept(offered), name="steering-accept")
        self._settling.add(task)
        task.add_done_callback(self._settled)
        await asyncio.shield(task)

    async def found_older(self) -> None:
        """A link's other end knows more than this store does: it is a copy from before.

        Raises:
            StoreUnavailable: the store failed.
        """
        async with self._changing:
            change = self._installed.doubt()
            self._take(change)
            await self._keep(change)

    async def run(self) -> None:
        """End what is over, and keep the time, until cancelled."""
        while True:
            await self._pause(TICK)
            # What could not be kept is kept with the next change; what has ended has ended.
            with suppress(StoreUnavailable):
                await self.tick()

    async def tick(self) -> None:
        """End what is over by now, and keep the time where that is due.

        Raises:
            StoreUnavailable: the store failed.
        """
        async with self._changing:
            now = self.now()
            change = self._installed.elapse(now)
            if change is not None:
                self._tell_of_limit(change, now)
                self._take(change)
            if change is not None or now - self._kept_at >= CHECKPOINT / 2:
                await self._keep(change or Change(self._installed.high))

    async def _accept(self, offered: Mapping[int, SignedStatement]) -> None:
        async with self._changing:
            try:
                verified = await asyncio.to_thread(self._installed.verified, offered)
                change = self._installed.consider(verified, self.now())
            except StatementRefused as refused:
                self.refusals[refused.refusal] += 1
                self._alarms.alarm("statement-refused", why=refused.refusal.value, serial=refused.serial)
                raise
            await self._keep(change)
            self._take(change)
            self.accepted += len(verified)
            self.heard()

    def _take(self, change: Change) -> None:
        self._installed.take(change)
        self._choice.forget(self._table.paths)

    async def _keep(self, change: Change) -> None:
        checkpoint = self._time.checkpoint(self._clocks())
        held = self._installed.after(change)
        await self._store.write(change, held, self._installed.fingerprints, checkpoint)
        self._kept_at = checkpoint.time

    def _tell_of_limit(self, change: Change, now: float) -> None:
        limited = [serial for serial in change.ended if now - self._installed.held[serial].accepted >= self.hard_limit]
        if limited:
            self._alarms.alarm("statements-past-hard-limit", statements=len(limited))

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._settling.discard(task)
        if not task.cancelled():
            task.exception()
