"""What steering must keep to and others decide: the plan that is in force, and which nodes are in quarantine.

The plan comes from a file, which may be replaced at any time; the leader makes what it reads the next version in the
database. Quarantines are in the database alone, where those that stand by find them too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import structlog
from sqlalchemy import Connection

from controller.plan_file import Plan, PlanFile
from controller.planned import PlannedNetwork
from controller.state import crossings, events, plans
from controller.state.counters import value
from controller.state.leading import Leadership, NotLeading
from controller.state.schema import EXPOSED
from keyhaul.config.problems import ConfigurationError
from keyhaul.database.database import Database
from keyhaul.database.errors import DatabaseUnavailable
from keyhaul.randomness import identifier

log = structlog.get_logger(__name__)

LOOK = 2.0
"""Seconds between looks at the plan's file, and at what the leader wrote."""


class _Written(NamedTuple):
    """What the database has."""

    version: int
    """Of the plan in force."""
    quarantined: dict[str, str]
    """Nodes, and why."""
    exposed: int
    """How often keys were exposed."""


class InForce:
    """Follows the file and the database; `run` must be running.

    Args:
        plan: the file, with what was read from it.
        database: the controllers'.
        leadership: in it.
        quarantined: told who is in quarantine, whenever that changes.
        planned: told of a network that takes the place of the former.
        alarm: `Runtime.alarm`.
    """

    def __init__(
        self,
        plan: tuple[PlanFile, Plan],
        database: Database,
        leadership: Leadership,
        quarantined: Callable[[frozenset[str]], None],
        planned: Callable[[PlannedNetwork], None],
        alarm: Callable[..., None],
    ) -> None:
        self._file, self.plan = plan
        self._database = database
        self._leadership = leadership
        self._tell_quarantined = quarantined
        self._tell_planned = planned
        self._alarm = alarm
        self.version = 0
        """Of the plan, by the database; 0: none is there yet."""
        self.quarantined: Mapping[str, str] = {}
        """Nodes, and why."""
        self.exposed = 0
        """How often keys were exposed: another number means that there is something new."""

    async def run(self) -> None:
        """Look at both until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            if self._file.changed():
                await self._read()
            await self._compare()

    async def caught_up(self) -> None:
        """Return when it is known who may be in no path; nothing is to be steered before that."""
        pause = LOOK / 16
        while not await self._compare():
            await asyncio.sleep(pause)
            pause = min(LOOK, 2 * pause)

    async def keep_out(self, node: str, reason: str) -> int:
        """Put a node in quarantine; return of how many demands keys crossed it.

        Raises:
            NotLeading, DatabaseUnavailable: see `Leadership.transact`.
        """
        identity = identifier()

        def write(connection: Connection) -> tuple[int, _Written]:
            again = node in plans.quarantined(connection)
            plans.quarantine(connection, node, reason)
            exposed = crossings.suspect(connection, node, again=again)
            events.tell(connection, "node-quarantined", node, {"reason": reason, "exposed": exposed}, identity)
            return exposed, _written(connection)

        exposed, written = await self._leadership.transact(write)
        self._learn(written)
        return exposed

    async def let_in(self, node: str) -> bool:
        """End a node's quarantine; False: there was none.

        Raises:
            NotLeading, DatabaseUnavailable: see `Leadership.transact`.
        """
        identity = identifier()

        def write(connection: Connection) -> tuple[bool, _Written]:
            was = plans.release(connection, node)
            if was:
                events.tell(connection, "node-released", node, {}, identity)
            return was, _written(connection)

        was, written = await self._leadership.transact(write)
        self._learn(written)
        return was

    def _learn(self, written: _Written) -> None:
        """This is in the database."""
        self.version, self.exposed = written.version, written.exposed
        if written.quarantined != self.quarantined:
            self.quarantined = written.quarantined
            self._tell_quarantined(frozenset(written.quarantined))

    async def _read(self) -> None:
        try:
            plan = await asyncio.to_thread(self._file.read)
        except ConfigurationError as error:
            self._alarm("plan-not-read", why=str(error))
            return
        log.info("the plan changed", nodes=len(plan.network.nodes), links=len(plan.network.links))
        self.plan = plan
        self._tell_planned(plan.network)

    async def _compare(self) -> bool:
        """Learn what the database has; while this controller leads, have its plan there."""
        plan = self.plan
        try:
            self._learn(await self._database.run(_written))
            if self._leadership.epoch is not None:
                apply = partial(plans.apply, network=plan.network, digest=plan.digest)
                self.version = await self._leadership.transact(apply)
        except DatabaseUnavailable as error:
            self._alarm("database-unavailable", why=str(error))
            return False
        except NotLeading:
            return False
        return True


def _written(connection: Connection) -> _Written:
    return _Written(plans.present(connection), plans.quarantined(connection), value(connection, EXPOSED))
