"""What a CKMS was told is durable before it takes effect, and is there again after any end of its process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, update

from keyhaul.agents.statements import StatementRefusal, StatementRefused
from keyhaul.config.services import StoreSection
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import StoreUnavailable
from services.ckms.choice import PathChoice
from services.ckms.forwarding import Entry, ForwardingTable
from services.ckms.forwarding import Path as CarrierPath
from services.ckms.metrics import SteeringCollector
from services.ckms.own_time import CHECKPOINT, Reading
from services.ckms.schema import SCHEMA
from services.ckms.statement_store import StatementStore
from services.ckms.steering import Steering, machine_clocks
from services.ckms.tables import statements
from tests.services.ckms.stated import Leader, entry, make, path, withdrawal

Result = TypeVar("Result")
SECTION = StoreSection(path="store.db", key_file="store.key")
DAY = 86_400.0


class Failing:
    """A store whose next write keeps what it is given, and says that it does not know."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, change: Callable[[Connection], Result]) -> Result:
        result = await self._store.write(change)
        if self.fails:
            self.fails = False
            raise StoreUnavailable("the outcome is unknown")
        return result


class Machine:
    """One machine with a clock, a disk, and a CKMS on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.boot, self.since_boot, self.wall = 0, 100.0, 1e9
        self.alarms: list[tuple[str, dict[str, Any]]] = []
        self.lives = 0
        self.choice = PathChoice()
        self.leader = Leader()
        self.store: Failing
        self.steering: Steering
        self.table: ForwardingTable

    def alarm(self, name: str, **facts: Any) -> None:
        self.alarms.append((name, facts))

    def clocks(self) -> Reading:
        return Reading(f"boot {self.boot}", self.since_boot, self.wall)

    async def start(self) -> None:
        self.lives += 1
        self.store = Failing(await EmbeddedStore.open(SECTION, self.directory, SCHEMA))
        self.leader.incarnation = f"life {self.lives}"
        installed, self.table = make(hard_limit=7 * DAY, incarnation=self.leader.incarnation)
        store = StatementStore(self.store)
        self.steering = await Steering.open(installed, store, self.table, self.choice, self, clocks=self.clocks)

    async def restart(self, away: float = 1.0) -> None:
        await self.store.close()
        self.wait(away)
        await self.start()

    def wait(self, seconds: float) -> None:
        self.since_boot += seconds
        self.wall += seconds

    @property
    def serials(self) -> list[int]:
        stated: list[Entry | CarrierPath] = [*self.table.entries, *self.table.paths]
        return sorted(one.serial for one in stated if one.serial is not None)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path)
    await machine.start()
    yield machine
    await machine.store.close()


async def test_what_was_accepted_is_there_after_a_restart_with_its_time(machine: Machine) -> None:
    await machine.steering.accept(machine.leader.say(entry("a"), path("b"), lifetime=1000))
    await machine.restart(away=400.0)

    assert machine.serials == [1, 2]
    assert machine.steering.held[1].remaining(machine.steering.now()) == 600.0
    assert machine.steering.high.number == (1, 2)
    assert not machine.alarms


async def test_operators_see_what_was_accepted_and_what_holds(machine: Machine) -> None:
    registry = CollectorRegistry()
    registry.register(SteeringCollector(machine.steering))

    def metric(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"keyhaul_ckms_{name}", labels)

    assert machine.steering.health() == {
        "controller_heard": False,
        "epoch": 0,
        "serial": 0,
        "in_doubt": True,
        "statements": 0,
    }
    await machine.steering.accept(machine.leader.say(entry("a"), entry("b"), path("c"), lifetime=100))
    await machine.steering.accept(machine.leader.say(withdrawal(1, drain=60.0), lifetime=100))
    with pytest.raises(StatementRefused):
        await machine.steering.accept(machine.leader.say(entry("d"), node="ckms-7"))
    assert machine.steering.health() == {
        "controller_heard": True,
        "epoch": 1,
        "serial": 4,
        "in_doubt": False,
        "statements": 3,
    }
    assert (metric("statements_accepted_total"), metric("statement_serial"), metric("in_doubt")) == (4, 4, 0)
    assert metric("statements_refused_total", reason="other-node") == 1
    assert [metric("statements", state=state) for state in ("standing", "draining", "lapsed")] == [2, 1, 0]
    machine.wait(100.0)
    assert [metric("statements", state=state) for state in ("standing", "draining", "lapsed")] == [0, 1, 2]
    assert metric("controller_heard") == 0


async def test_a_refused_set_is_alarmed_and_nothing_of_it_is_kept(machine: Machine) -> None:
    first = machine.leader.say(entry("a"))
    await machine.steering.accept(first)
    with pytest.raises(StatementRefused) as refused:
        await machine.steering.accept(machine.leader.say(entry("b")) | first)
    assert refused.value.refusal == StatementRefusal.REPLAYED
    assert machine.alarms == [("statement-refused", {"why": "replayed", "serial": 1})]
    await machine.restart()

    assert machine.serials == [1]
    with pytest.raises(StatementRefused):
        await machine.steering.accept(first)


async def test_nothing_takes_effect_that_the_store_did_not_keep(machine: Machine) -> None:
    await machine.steering.accept(machine.leader.say(entry("a")))
    machine.store.fails = True
    with pytest.raises(StoreUnavailable):
        await machine.steering.accept(machine.leader.say(entry("b")))

    assert machine.serials == [1]
    assert machine.steering.high.number == (1, 1)


async def test_after_an_unknown_outcome_the_store_is_brought_to_what_is_in_force(machine: Machine) -> None:
    await machine.steering.accept(machine.leader.say(entry("a")))
    machine.store.fails = True
    with pytest.raises(StoreUnavailable):
        await machine.steering.accept(machine.leader.say(entry("b"), path("c")))
    await machine.steering.accept(machine.leader.say(entry("b")))
    await machine.restart()

    assert machine.serials == [1, 4]
    assert not machine.alarms


async def test_whoever_asked_may_go_away(machine: Machine) -> None:
    asking = asyncio.create_task(machine.steering.accept(machine.leader.say(entry("a"))))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(5):
        while not machine.serials:
            await asyncio.sleep(0.001)
    await machine.restart()

    assert machine.serials == [1]


async def test_sets_that_come_at_once_are_taken_one_after_the_other(machine: Machine) -> None:
    offers = [machine.leader.say(entry(label)) for label in "abcdef"]
    outcomes = await asyncio.gather(*map(machine.steering.accept, offers), return_exceptions=True)

    assert machine.serials == [serial for serial, outcome in enumerate(outcomes, 1) if outcome is None]
    assert machine.steering.high.serial == 6


async def test_a_changed_row_is_dropped_with_an_alarm_and_forgotten(machine: Machine) -> None:
    await machine.steering.accept(machine.leader.say(entry("a"), entry("b")))
    change = update(statements).where(statements.c.serial == 2).values(signature=b"x")
    await machine.store.write(lambda connection: connection.execute(change) and None)
    await machine.restart()

    assert machine.serials == [1]
    assert machine.alarms == [("stored-statement-dropped", {"serial": 2, "why": "forged"})]
    await machine.restart()
    assert len(machine.alarms) == 1


async def test_without_a_controller_paths_are_used_for_seven_days_whatever_the_clock_says(machine: Machine) -> None:
    await machine.steering.accept(machine.leader.say(path("b"), lifetime=3600))
    for day in range(1, 7):
        machine.wait(DAY - 600)
        await machine.steering.tick()
        machine.wall -= DAY * 300 * (-1) ** day
        await machine.restart(away=600.0)
        assert machine.serials == [1]
    machine.wait(DAY - 1)
    await machine.steering.tick()
    assert machine.serials == [1]
    machine.wait(1)
    await machine.steering.tick()

    assert machine.serials == []
    assert machine.alarms == [("statements-past-hard-limit", {"statements": 1})]
    await machine.restart()
    assert machine.serials == []


async def test_reboots_with_a_clock_that_was_set_back_do_not_make_a_path_live_longer(machine: Machine) -> None:
    await machine.steering.accept(machine.leader.say(path("b"), lifetime=3600))
    used = 0.0
    while machine.serials:
        machine.wait(20 * 3600.0)
        await machine.steering.tick()
        machine.wait(CHECKPOINT / 2 - 1)
        await machine.steering.tick()
        used += 20 * 3600.0 + CHECKPOINT / 2 - 1
        machine.boot += 1
        machine.since_boot, machine.wall = 1.0, 0.0
        await machine.restart(away=0.0)
        assert used < 7 * DAY + 20 * 3600

    assert used > 6.9 * DAY


async def test_a_withdrawn_entry_ends_when_it_is_drained(machine: Machine) -> None:
    await machine.steering.accept(machine.leader.say(entry("a")))
    await machine.steering.accept(machine.leader.say(withdrawal(1, drain=5.0)))
    machine.wait(4.9)
    await machine.steering.tick()
    assert machine.serials == [1]
    machine.wait(0.2)
    await machine.steering.tick()
    assert machine.serials == []
    await machine.restart()

    assert machine.steering.held == {}


async def test_what_failed_is_forgotten_with_the_path(machine: Machine) -> None:
    await machine.steering.accept(machine.leader.say(path("b")))
    [former] = machine.table.paths
    machine.choice.failed(former, 0.0, 1.0)
    await machine.steering.accept(machine.leader.say(path("c")))

    assert not machine.choice.on_probation(former)


async def test_a_copy_that_a_neighbour_knows_to_be_old_holds_nothing_until_fresh_word_comes(machine: Machine) -> None:
    await machine.steering.accept(machine.leader.say(entry("a")))
    await machine.restart()
    await machine.steering.found_older()
    assert machine.serials == []
    await machine.restart()
    machine.leader.incarnation = None
    with pytest.raises(StatementRefused, match="incarnation"):
        await machine.steering.accept(machine.leader.say(entry("b")))
    machine.leader.incarnation = machine.steering.incarnation
    await machine.steering.accept(machine.leader.say(entry("b")))
    await machine.restart()

    assert machine.serials == [3]


async def test_run_ends_what_is_over_and_survives_a_store_that_does_not_answer(machine: Machine) -> None:
    pauses: asyncio.Queue[None] = asyncio.Queue()

    async def pause(_: float) -> None:
        await pauses.get()

    installed, table = make(hard_limit=50.0, incarnation="two")
    store = StatementStore(machine.store)
    steering = await Steering.open(installed, store, table, machine.choice, machine, clocks=machine.clocks, pause=pause)
    machine.leader.incarnation = "two"
    await steering.accept(machine.leader.say(entry("a")))
    running = asyncio.create_task(steering.run())
    machine.wait(50.0)
    machine.store.fails = True
    pauses.put_nowait(None)
    async with asyncio.timeout(5):
        while table.entries or machine.store.fails:
            await asyncio.sleep(0.001)
    await steering.accept(machine.leader.say(entry("b")))
    assert not running.done()
    running.cancel()


def test_the_clocks_of_this_machine_go_on() -> None:
    first, second = machine_clocks(), machine_clocks()

    assert first.boot == second.boot
    assert second.since_boot >= first.since_boot > 0
