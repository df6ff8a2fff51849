"""What steering must keep to and others decide: the plan that is in force, and which nodes are in quarantine.

The plan comes from a file, which may be replaced at any time; the leader makes what it reads the next version in the
database. Quarantines are in the database alone, where those that stand by find them too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import structlog
from sqlalchemy import Connection

from controller.plan_file import Plan, PlanFile
from controller.planned import PlannedNetwork
from controller.state import events, plans
from controller.state.leading import Leadership, NotLeading
from keyhaul.config.problems import ConfigurationError
from keyhaul.database.database import Database
from keyhaul.database.errors import DatabaseUnavailable
from keyhaul.randomness import identifier

log = structlog.get_logger(__name__)

LOOK = 2.0
"""Seconds between looks at the plan's file, and at what the leader wrote."""


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

    async def keep_out(self, node: str, reason: str) -> None:
        """Put a node in quarantine.

        Raises:
            NotLeading, DatabaseUnavailable: see `Leadership.transact`.
        """
        identity = identifier()

        def write(connection: Connection) -> dict[str, str]:
            plans.quarantine(connection, node, reason)
            events.tell(connection, "node-quarantined", node, {"reason": reason}, identity)
            return plans.quarantined(connection)

        self._quarantine(await self._leadership.transact(write))

    async def let_in(self, node: str) -> bool:
        """End a node's quarantine; False: there was none.

        Raises:
            NotLeading, DatabaseUnavailable: see `Leadership.transact`.
        """
        identity = identifier()

        def write(connection: Connection) -> tuple[bool, dict[str, str]]:
            was = plans.release(connection, node)
            if was:
                events.tell(connection, "node-released", node, {}, identity)
            return was, plans.quarantined(connection)

        was, quarantined = await self._leadership.transact(write)
        self._quarantine(quarantined)
        return was

    def _quarantine(self, nodes: Mapping[str, str]) -> None:
        """These are in quarantine, and no others."""
        if nodes != self.quarantined:
            self.quarantined = dict(nodes)
            self._tell_quarantined(frozenset(nodes))

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
            self.version, quarantined = await self._database.run(_written)
            self._quarantine(quarantined)
            if self._leadership.epoch is not None:
                apply = partial(plans.apply, network=plan.network, digest=plan.digest)
                self.version = await self._leadership.transact(apply)
        except DatabaseUnavailable as error:
            self._alarm("database-unavailable", why=str(error))
            return False
        except NotLeading:
            return False
        return True


def _written(connection: Connection) -> tuple[int, dict[str, str]]:
    """The number of the plan in force, and who is in quarantine."""
    return plans.present(connection), plans.quarantined(connection)
