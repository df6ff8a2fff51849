"""What goes wrong, at which moment: drawn by the seed, counted by kind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any

from tests.simulator.loop import Died, Life
from tests.simulator.settings import Settings

if TYPE_CHECKING:
    from tests.simulator.processes import SimulatedProcess
    from tests.simulator.world import World

REVIVED = (0.2, 4.0)
"""Seconds until a process that died is started again."""


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
        self._world: World
        self._harmable = ""

    def join(self, world: World) -> None:
        """Learn the network."""
        self._world = world
        self._harmable = self._chance.choice([service for service in world.services if not service.startswith("aaa")])
        for process in world.processes.values():
            process.disk.on_commit = lambda process=process: world.oracle.committed(process)  # type: ignore[misc]

    def fate(self, path: str) -> str:
        """See `air.Faults`."""
        if not self.active:
            return ""
        drawn = self._messages.random()
        for limit, kind in self._limits:
            if drawn < limit:
                return kind
        return ""

    def count(self, kind: str) -> None:
        """See `air.Faults`."""
        self.counts[kind] += 1

    def commit(self, process: SimulatedProcess, when: str, life: Life) -> bool:
        """A process is about to commit, or has: it may die, or its disk may fail."""
        if not life.alive:
            raise Died(process.name.id)
        if not self.active:
            return False
        if self._settings.crash_at_commit and self._chance.random() < self._settings.crash_at_commit:
            self._kill(process, f"crashed {when} commit")
            raise Died(process.name.id)
        if self._settings.disk_failure and self._chance.random() < self._settings.disk_failure:
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
            (settings.partition, self._partition),
            (settings.clock, self._clock),
            (settings.modules, self._modules),
            (settings.replay, self._replay),
            (0.4 if settings.put_back else 0.0, self._keep_copy),
        ]
        return [self._often(rate, fault) for rate, fault in rates if rate]

    def heal(self) -> None:
        """Nothing goes wrong any more; what is broken is mended."""
        self.active = False
        for line in self._world.air.lines.values():
            line.cut = False
            line.slow = 0.0
        for plan in self._world.plans.values():
            plan.modules.stopped = False
            plan.modules.disagree = plan.modules.forget = 0
        for process in self._world.processes.values():
            process.revive()

    async def _often(self, rate: float, fault: Callable[[], None]) -> None:
        while self.active:
            await asyncio.sleep(self._chance.expovariate(rate))
            if self.active:
                fault()

    def _some(self) -> SimulatedProcess:
        return self._world.processes[self._chance.choice(self._world.services)]

    def _kill(self, process: SimulatedProcess, kind: str) -> None:
        self.count(kind)
        process.crash()
        self._world.later(self._chance.uniform(*REVIVED), process.revive)

    def _crash(self) -> None:
        process = self._some()
        if process.life is not None:
            self._kill(process, "crashed")

    def _keep_copy(self) -> None:
        self._world.processes[self._harmable].disk.keep_copy()

    def _put_back(self) -> None:
        process = self._world.processes[self._harmable]
        if process.disk.copies:
            self._kill(process, "crashed")
            process.disk.put_back(self._chance, self._world.loop.time())
            self.count("store put back")

    def _lose(self) -> None:
        process = self._world.processes[self._harmable]
        self._kill(process, "crashed")
        process.disk.lose(self._chance.randbytes(16).hex(), self._world.loop.time())
        self.count("store lost")

    def _partition(self) -> None:
        lines = self._world.air.lines
        if not lines:
            return
        ends = self._chance.choice(sorted(lines, key=sorted))
        line = lines[ends]
        self.count("partition")
        if self._chance.random() < 0.3:
            line.slow = self._chance.uniform(0.05, 1.0)
        else:
            line.cut = True
        seconds = self._chance.choice((0.5, 3.0, 12.0))
        one, other = sorted(ends)

        def end() -> None:
            line.cut = False
            line.slow = 0.0
            self._world.air.reset(one, other)

        self._world.later(seconds, end)

    def _clock(self) -> None:
        process = self._some()
        if self._chance.random() < 0.5:
            step = self._chance.choice((-30.0, -2.0, 0.5, 3.0, 40.0))
            process.wall_offset += step
            process.wall_stepped += abs(step)
            self.count("clock stepped")
        else:
            before = process.wall()
            process.wall_rate = self._chance.uniform(0.999, 1.001)
            process.wall_offset += before - process.wall()
            self.count("clock drifts")

    def _modules(self) -> None:
        pair = self._chance.choice(list(self._world.plans.values())).modules
        kind = self._chance.choice(("overflow", "disagree", "forget", "stop"))
        self.count(f"modules {kind}")
        match kind:
            case "overflow":
                pair.overflow()
            case "disagree":
                pair.disagree += self._chance.randrange(1, 5)
            case "forget":
                pair.forget += self._chance.randrange(1, 5)
            case "stop":
                pair.stopped = True

                def again() -> None:
                    pair.stopped = False

                self._world.later(self._chance.uniform(0.2, 6.0), again)

    def _replay(self) -> None:
        lines = [line for _, line in sorted(self._world.air.lines.items(), key=lambda item: sorted(item[0]))]
        if lines and self._world.air.replay(self._chance.choice(lines)):
            self.count("replayed")
