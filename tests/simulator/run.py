"""One run: a network with faults for a while, then healed, settled, and judged."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import structlog

from keyhaul.store.interface import StoreError
from keyhaul.transport import calls
from services.ukms.etsi014 import Refusal
from tests.simulator.adversaries import Adversaries
from tests.simulator.faults import Injector
from tests.simulator.instruments import steered, watched
from tests.simulator.loop import Died, SimulatedLoop, Stalled
from tests.simulator.oracle import Finding
from tests.simulator.settings import Settings, drawn
from tests.simulator.shortcuts import shortcuts
from tests.simulator.statement_thief import StatementThief
from tests.simulator.users import NotServing, Users
from tests.simulator.wishes import wish
from tests.simulator.world import World

PERSISTS = 10.0
"""Simulated seconds that a disagreement outlasts which is one: keys go on being asked for, and expiring."""

HEALED = 90.0
"""Simulated seconds within which keys flow again between all, once nothing goes wrong any more."""


@dataclass
class Report:
    """What a run did and found."""

    seed: int
    steps: int
    messages: int
    commits: int
    lives: int
    steered: int
    """Statements of controllers that nodes accepted."""
    delivered: int
    fetched: int
    simulated: float
    seconds: float
    """Of CPU."""
    faults: Counter[str]
    alarms: Counter[str]
    findings: list[Finding]


def simulate(
    seed: int, settings: Settings | None = None, *, static: bool = False, stop_at: frozenset[str] = frozenset()
) -> Report:
    """Run a seed from beginning to end, or until one of the rules `stop_at` was broken.

    Args:
        seed: of all that is random.
        settings: what the run is like, where the seed is not to draw it.
        static: draw no controllers.
        stop_at: names of rules.
    """
    settings = settings or drawn(seed, controllers=not static)
    began = time.process_time()
    faults = Injector(seed, settings)
    loop = SimulatedLoop(Random(f"{seed} order"))
    with _quiet(), _numbered_anew():
        world = World(seed, loop, settings, faults)
        start = loop.time()
        watching = [watched(world.oracle)]
        if settings.controllers:
            watching.append(steered(world.oracle.steering))
        if settings.cheap:
            watching.append(shortcuts())
        with ExitStack() as entered:
            for each in watching:
                entered.enter_context(each)
            try:
                loop.run_until_complete(_until_found(world, faults, stop_at))
            except Stalled as error:
                world.oracle.finding("stalled", str(error))
            simulated = loop.time() - start
            world.oracle.attending = False
            _clean_up(loop)
        report = Report(
            seed=seed,
            steps=loop.steps,
            messages=world.air.messages,
            commits=sum(process.disk.commits for process in world.processes.values()),
            lives=sum(process.lives for process in world.processes.values()),
            steered=world.oracle.steering.accepted,
            delivered=world.oracle.delivered,
            fetched=world.oracle.fetched,
            simulated=simulated,
            seconds=time.process_time() - began,
            faults=faults.counts,
            alarms=world.alarms,
            findings=world.oracle.findings,
        )
        world.close()
    return report


async def _until_found(world: World, faults: Injector, rules: frozenset[str]) -> None:
    running = asyncio.get_running_loop().create_task(_run(world, faults))
    while rules and not running.done() and not any(found.rule in rules for found in world.oracle.findings):
        await asyncio.wait([running], timeout=0.5)
    if rules and not running.done():
        running.cancel()
        await asyncio.wait([running])
        return
    await running


async def _run(world: World, faults: Injector) -> None:
    loop = asyncio.get_running_loop()
    users = Users(world)
    adversaries = Adversaries(world)
    works: list[Coroutine[Any, Any, None]] = [users.run(), *faults.works(), *adversaries.works()]
    if world.controllers:
        works += _about_controllers(world)
    world.start()
    tasks = [loop.create_task(work) for work in works]
    await asyncio.sleep(world.settings.seconds)
    faults.heal()
    adversaries.stop()
    world.lies.active = False
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error
        task.cancel()
    await _keys_flow(world, users)
    users.stop()
    await users.take_the_rest()
    if not await world.until(lambda: not world.oracle.disagreements(), world.settings.settle):
        before = world.oracle.disagreements()
        await asyncio.sleep(PERSISTS)
        for rule, text in world.oracle.disagreements():
            if (rule, text) in before:
                world.oracle.finding(rule, text)
    await users.take_the_rest()


def _about_controllers(world: World) -> list[Coroutine[Any, Any, None]]:
    works = []
    if world.settings.wishes:
        works.append(wish(world))
    if world.settings.statement_thief:
        works.append(StatementThief(world).run())
    return works


async def _keys_flow(world: World, users: Users) -> None:
    """Every pair gets a key again."""

    async def flows(master: str, slave: str) -> None:
        last: object = None
        try:
            async with asyncio.timeout(HEALED):
                while True:
                    try:
                        (key_id,) = await users.ask(master, [slave], 1)
                        await users.fetch(slave, master, [key_id])
                    except (Refusal, NotServing, Died, StoreError) as error:
                        last = error
                        await asyncio.sleep(0.5)
                    else:
                        return
        except TimeoutError:
            world.oracle.finding("whole", f"no keys flow from {master} to {slave}: {last!r}")

    await asyncio.gather(*(flows(master, slave) for master, slave in users.pairs_of_sites()))


def _clean_up(loop: SimulatedLoop) -> None:
    """End what still runs, also what belongs to processes that died long ago."""
    loop.revive()

    async def end() -> None:
        own = asyncio.current_task()
        for _ in range(20):
            left = [task for task in asyncio.all_tasks() if task is not own]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=30.0)

    try:
        loop.run_until_complete(end())
    finally:
        loop.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """No log of the services."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def _numbered_anew() -> Iterator[None]:
    """Messages carry numbers: each run counts from one, so that a seed gives the same lengths."""
    module: Any = calls
    before = module._PREFIX, module._numbers
    module._PREFIX, module._numbers = "simulated", itertools.count(1)
    try:
        yield
    finally:
        module._PREFIX, module._numbers = before
