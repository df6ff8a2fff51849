"""What goes wrong, at which moment: drawn by the seed, counted by kind.

Counted is what hit something: a message that was under way, a process that ran, a key that differed.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import combinations
from random import Random
from typing import TYPE_CHECKING, Any

from keyhaul.transport.operations import DELIVERY_SETTLE
from tests.simulator.air import Partition
from tests.simulator.loop import Died, Life
from tests.simulator.meddling import Meddling
from tests.simulator.settings import Settings

if TYPE_CHECKING:
    from tests.simulator.processes import SimulatedProcess
    from tests.simulator.world import World

REVIVED = (0.2, 4.0)
"""Seconds until a process that died is started again."""

GIVEN_UP = 1.0
"""Seconds after which connections to a process that stands still are given up."""

NAMES = {"before": "crashed before commit", "within": "power cut within commit", "after": "crashed after commit"}


class Injector:
    """Draws faults until it is told to stop."""

    def __init__(self, seed: int, settings: Settings) -> None:
        self.counts: Counter[str] = Counter()
        self.active = True
        self._chance = Random(f"{seed} faults")
        self._messages = Random(f"{seed} messages")
        self._settings = settings
        self._limits: list[tuple[float, str]] = []
        total = 0.0
        for kind, probability in settings.messages.items():
            total += probability
            self._limits.append((total, kind))
        self._partitions: list[Partition] = []
        self._frozen: list[Life] = []
        self._world: World
        self._meddling: Meddling
        self._harmable = ""

    def join(self, world: World) -> None:
        """Learn the network."""
        self._world = world
        harmable = [service for service in world.services if not service.startswith(("aaa", "controller"))]
        drawn = self._chance.choice(harmable)
        self._meddling = Meddling(world, self._kill, self._cut)
        self._harmable = self._settings.harmed or drawn
        for process in world.processes.values():
            process.disk.on_commit = partial(world.oracle.committed, process)
        self._next_strike()

    def fate(self, path: str) -> str:
        """See `air.Faults`."""
        if not self.active:
            return ""
        if path == DELIVERY_SETTLE.path and self._settings.lost_alone:
            return "lost"
        drawn = self._messages.random()
        for limit, kind in self._limits:
            if drawn < limit:
                return kind
        return ""

    def gnmi(self, rpc: str) -> str:
        """What becomes of a gNMI call or message: "" or one of `settings.GNMI_FAULTS`."""
        if not self.active:
            return ""
        for kind, probability in self._settings.gnmi.items():
            if kind.startswith(rpc.lower()) and self._messages.random() < probability:
                self.count(kind)
                return kind
        return ""

    def count(self, kind: str) -> None:
        """See `air.Faults`."""
        self.counts[kind] += 1

    def commit(self, process: SimulatedProcess, when: str, life: Life) -> bool:
        """A process is about to commit, in the midst of it, or has: it may die, or its disk may fail."""
        if not life.alive:
            raise Died(process.name.id)
        if not self.active:
            return False
        if self._settings.crash_at_commit and self._chance.random() < self._settings.crash_at_commit:
            self._kill(process, NAMES[when])
            raise Died(process.name.id)
        failure = self._settings.disk_failure
        if when != "within" and failure and self._chance.random() < failure:
            self.count(f"disk failed {when} commit")
            return True
        return False

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """What injects the faults that have a rate."""
        settings = self._settings
        rates: list[tuple[float, Callable[[], None]]] = [
            (settings.crash, self._crash),
            (settings.put_back, self._put_back),
            (settings.lose, self._lose),
            (settings.freeze, self._freeze),
            (settings.partition, self._partition),
            (settings.clock, self._clock),
            (settings.modules, self._modules),
            (settings.replay, self._replay),
            (0.4 if settings.put_back else 0.0, self._keep_copy),
        ]
        works = [self._often(rate, fault) for rate, fault in rates if rate]
        works += self._meddling.works()
        return [*works, self._lose_alone()] if settings.lost_alone else works

    def heal(self) -> None:
        """Nothing goes wrong any more; what is broken is mended."""
        self.active = False
        self._world.loop.strike_at = None
        self._meddling.stop()
        for partition in list(self._partitions):
            self._join_again(partition)
        for life in self._frozen:
            self._world.loop.thaw(life)
        for plan in self._world.plans.values():
            plan.modules.heal()
        for process in self._world.processes.values():
            process.revive()

    async def _often(self, rate: float, fault: Callable[[], None]) -> None:
        while self.active:
            await asyncio.sleep(self._chance.expovariate(rate))
            if self.active:
                fault()

    def _some(self) -> SimulatedProcess:
        return self._world.processes[self._chance.choice(self._world.services)]

    # Processes

    def _kill(self, process: SimulatedProcess, kind: str) -> None:
        if process.life is not None:
            self.count(kind)
            process.crash()
        self._world.later(self._chance.uniform(*REVIVED), process.revive)

    def _crash(self) -> None:
        process = self._some()
        if process.life is not None:
            self._kill(process, "crashed")

    def _next_strike(self) -> None:
        """The step at which the next process dies, whichever is about to take it."""
        if self._settings.crash_at_step:
            steps = self._chance.expovariate(self._settings.crash_at_step)
            self._world.loop.strike_at = self._world.loop.steps + math.ceil(steps)
            self._world.loop.strike = self._strike

    def _strike(self, life: Life) -> None:
        process = self._world.processes.get(life.service)
        if process is not None and process.life is life:
            self._kill(process, "crashed at a step")
            self._next_strike()

    def _freeze(self) -> None:
        life = self._some().life
        if life is None or life.frozen:
            return
        self.count("process frozen")
        life.frozen = True
        self._frozen.append(life)
        seconds = self._chance.choice((0.1, 1.0, 4.0, 15.0))
        self._world.later(seconds, self._world.loop.thaw, life)
        if seconds > GIVEN_UP:
            self._world.later(GIVEN_UP, self._world.air.gone, life.service)

    def _clock(self) -> None:
        process = self._some()
        if process.life is None:
            return
        match self._chance.choice(("step", "step", "drift", "monotonic")):
            case "step":
                process.step_wall(self._chance.choice((-30.0, -2.0, 0.5, 3.0, 40.0)))
                self.count("clock stepped")
            case "drift":
                process.drift_wall(self._chance.uniform(0.999, 1.001))
                self.count("clock drifts")
            case _:
                process.drift(self._chance.uniform(0.999, 1.001))
                self.count("monotonic clock drifts")

    # Disks

    def _keep_copy(self) -> None:
        self._world.processes[self._harmable].disk.keep_copy(self._world.loop.time())

    def _put_back(self) -> None:
        process = self._world.processes[self._harmable]
        if process.disk.copies:
            self._kill(process, "crashed")
            process.disk.put_back(self._chance, self._world.loop.time())
            self._world.oracle.put_back(process)
            self.count("store put back")

    def _lose(self) -> None:
        process = self._world.processes[self._harmable]
        self._kill(process, "crashed")
        process.disk.lose(self._chance.randbytes(16).hex(), self._world.loop.time())
        self.count("store lost")

    async def _lose_alone(self) -> None:
        await asyncio.sleep(self._settings.lost_alone)
        own = self._settings.harmed
        others = [service for service in self._world.services if service.startswith("akms") and service != own]
        alone = Partition(frozenset(frozenset((own, other)) for other in others), 0.0, partial(self.count, "partition"))
        self._world.air.divide(alone)
        self._partitions.append(alone)
        self._lose()

    # Between processes

    def _partition(self) -> None:
        """One line, one service, or the network in two parts; cut, or slow."""
        chance, services = self._chance, list(self._world.services)
        match chance.choice(("line", "line", "service", "parts")):
            case "line":
                cut = [chance.choice(sorted(self._world.air.lines, key=sorted) or [frozenset(services[:2])])]
            case "service":
                alone = chance.choice(services)
                cut = [frozenset((alone, other)) for other in services if other != alone]
            case _:
                part = set(chance.sample(services, len(services) // 2))
                cut = [frozenset(pair) for pair in combinations(services, 2) if len(part & set(pair)) == 1]
        slow = chance.uniform(0.05, 1.0) if chance.random() < 0.3 else 0.0
        partition = Partition(frozenset(cut), slow, partial(self.count, "line slowed" if slow else "partition"))
        self._cut(partition, chance.choice((0.5, 3.0, 12.0)))

    def _cut(self, partition: Partition, seconds: float) -> None:
        self._world.air.divide(partition)
        self._partitions.append(partition)
        self._world.later(seconds, self._join_again, partition)

    def _join_again(self, partition: Partition) -> None:
        if partition in self._partitions:
            self._partitions.remove(partition)
            self._world.air.unite(partition)

    def _modules(self) -> None:
        pair = self._chance.choice(list(self._world.plans.values())).modules
        match self._chance.choice(("overflow", "disagree", "forget", "silence", "stop")):
            case "overflow":
                pair.overflow()
            case "disagree":
                pair.disagree += self._chance.randrange(1, 5)
            case "forget":
                pair.forget += self._chance.randrange(1, 5)
            case "silence":
                pair.silent += 1
            case _:
                pair.stop()
                self._world.later(self._chance.uniform(0.2, 6.0), pair.go_on)

    def _replay(self) -> None:
        lines = [line for _, line in sorted(self._world.air.lines.items(), key=lambda item: sorted(item[0]))]
        how = self._chance.choice(("replayed", "replayed", "replayed altered", "reflected", "redirected"))
        if lines and self._world.air.replay(self._chance.choice(lines), how, list(self._world.services)):
            self.count(how)
