"""What is done to controllers, to their database, and to what is between them and their nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from controller.state.leading import NotLeading
from keyhaul.database.errors import DatabaseUnavailable
from tests.simulator.air import Partition
from tests.simulator.loop import Died, Life

if TYPE_CHECKING:
    from tests.simulator.world import World

KEEP = 4.0
"""Seconds between copies of the database, from which it is put back."""

LONG = (1.0, 8.0, 20.0)
"""Seconds for which a controller stands still, or something is cut off."""


class Meddling:
    """Meddles until it is told to stop.

    Args:
        world: the network.
        kill: lets a process die, counted as some kind, and start again later.
        cut: cuts lines for some seconds.
    """

    def __init__(self, world: World, kill: Callable[[Any, str], None], cut: Callable[[Partition, float], None]) -> None:
        self._world = world
        self._kill = kill
        self._cut = cut
        self._chance = Random(f"{world.seed} meddling")
        self._frozen: list[Life] = []
        self._active = True
        self.kinds: dict[str, Callable[[str], None]] = {
            "controller crashed": self._crash,
            "controller frozen": self._freeze,
            "controllers' database put back": self._put_back,
            "controllers' database lost": self._lose,
            "controller cut off from its database": self._offline,
            "node cut off from the controllers": self._node,
            "half the network cut off from the controllers": self._half,
            "two links cut": self._links,
            "node in quarantine": self._quarantine,
        }

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """What is done, each kind at its rate."""
        rates = self._world.settings.meddling
        works = [self._often(rate, kind) for kind, rate in rates.items()]
        if "controllers' database put back" in rates:
            works.append(self._keep_copies())
        return works

    def stop(self) -> None:
        """Nothing is done any more; what stands still goes on, and what is in quarantine is let out."""
        self._active = False
        for node in self._world.services:
            self._world.oracle.exposures.released(node)
        self._world.database.raw.execute("DELETE FROM quarantines")
        self._world.offline.clear()
        for life in self._frozen:
            self._world.loop.thaw(life)

    async def _often(self, rate: float, kind: str) -> None:
        while self._active:
            await asyncio.sleep(self._chance.expovariate(rate))
            if self._active:
                self.kinds[kind](kind)

    async def _keep_copies(self) -> None:
        while self._active:
            self._world.database.keep_copy(self._world.loop.time())
            await asyncio.sleep(KEEP)

    def _some(self) -> str:
        """A controller: mostly the one that leads."""
        leader = self._world.leader()
        if leader is not None and self._chance.random() < 0.7:
            return leader.name.id
        return self._chance.choice(self._world.controllers)

    def _crash(self, kind: str) -> None:
        process = self._world.controller(self._some())
        if process.life is not None:
            self._kill(process, kind)

    def _freeze(self, kind: str) -> None:
        life = self._world.controller(self._some()).life
        if life is None or life.frozen:
            return
        self._world.faults.count(kind)
        life.frozen = True
        self._frozen.append(life)
        seconds = self._chance.choice(LONG)
        self._world.later(seconds, self._world.loop.thaw, life)
        if seconds > 1.0 and self._chance.random() < 0.5:
            # Otherwise what it has sent waits, and nobody learns that it stands still.
            self._world.later(1.0, self._world.air.gone, life.service)

    def _put_back(self, kind: str) -> None:
        database = self._world.database
        if database.copies:
            self._stop_controllers()
            database.put_back(self._chance, self._world.loop.time())
            self._world.faults.count(kind)

    def _lose(self, kind: str) -> None:
        self._stop_controllers()
        self._world.database.lose(self._chance.randbytes(16).hex(), self._world.loop.time())
        self._world.faults.count(kind)

    def _stop_controllers(self) -> None:
        for service in self._world.controllers:
            process = self._world.controller(service)
            if process.life is not None:
                self._kill(process, "controller crashed")

    def _offline(self, kind: str) -> None:
        service = self._some()
        self._world.faults.count(kind)
        self._world.offline.add(service)
        self._world.later(self._chance.choice(LONG), self._world.offline.discard, service)

    def _node(self, kind: str) -> None:
        self._away(kind, [self._chance.choice(self._world.carriers).name.id])

    def _half(self, kind: str) -> None:
        carriers = [process.name.id for process in self._world.carriers]
        self._away(kind, self._chance.sample(carriers, len(carriers) // 2))

    def _away(self, kind: str, nodes: Iterable[str]) -> None:
        lines = frozenset(frozenset((node, controller)) for node in nodes for controller in self._world.controllers)
        self._divide(kind, lines)

    def _links(self, kind: str) -> None:
        links = [frozenset(ends) for ends in self._world.links if all(end.startswith("ckms") for end in ends)]
        self._divide(kind, frozenset(self._chance.sample(links, 2)))

    def _divide(self, kind: str, lines: frozenset[frozenset[str]]) -> None:
        partition = Partition(lines, 0.0, partial(self._world.faults.count, kind))
        self._cut(partition, self._chance.choice((0.5, 3.0, 12.0)))

    def _quarantine(self, kind: str) -> None:
        """The operator puts a node that is no access node in quarantine, or takes one out of it."""
        leader = self._world.leader()
        if leader is None or leader.life is None:
            return
        service = leader.service
        found = service.quarantined()
        if found:
            node = next(iter(found))
            self._world.oracle.exposures.released(node)
            asked: asyncio.Future[Any] = leader.life.ask(service.release(node))
        else:
            inner = [process.name.id for process in self._world.carriers if process.name.id not in ("ckms-2", "ckms-5")]
            self._world.faults.count(kind)
            node = self._chance.choice(inner)
            asked = leader.life.ask(service.quarantine(node, "suspected"))
            asked.add_done_callback(partial(self._is_out, node))
        asked.add_done_callback(self._answered)

    def _is_out(self, node: str, done: asyncio.Future[Any]) -> None:
        """The operator was told that a node is in quarantine; if it was not let out again meanwhile."""
        if not done.cancelled() and done.exception() is None and self._active:
            self._world.oracle.exposures.quarantined(node)

    @staticmethod
    def _answered(done: asyncio.Future[Any]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None and not isinstance(error, Died | NotLeading | DatabaseUnavailable):
            raise error
