"""The lease in a real database: one holder, writes of the last one refused, serials never given out twice."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from controller.remembering import Batch
from controller.state import events
from controller.state.database import open_database
from controller.state.history import History
from controller.state.leading import Leadership, NotLeading, boot_time
from controller.state.lease import Terms
from controller.state.rollup import Sample
from controller.state.serials import Serials
from controller.steering.effects import Note
from keyhaul.database.database import Database
from keyhaul.database.errors import DatabaseUnavailable, DatabaseUnusable, OutcomeUnknown
from keyhaul.randomness import identifier
from tests.postgresql import PostgreSQL, running

LONGEST = 30.0


class Process:
    """A controller's part, with its clock in the test's hand."""

    def __init__(self, database: Database, address: str = "") -> None:
        self.now = 1_000.0
        self.database = database
        self.told: list[tuple[str, int]] = []
        self.leadership = Leadership(
            database,
            address,
            Terms(),
            gained=lambda epoch: self.told.append(("gained", epoch)),
            lost=lambda epoch: self.told.append(("lost", epoch)),
            clock=lambda: self.now,
        )

    async def pass_time(self, seconds: float) -> None:
        """Let the process do all that is due within some time."""
        end = self.now + seconds
        while True:
            await self.leadership.turn()
            pause = self.leadership.lease.pause(self.now)
            if self.now + pause > end:
                break
            self.now += max(pause, 1e-3)
        self.now = end

    async def lead(self) -> int:
        """Let it take a lease that is free."""
        await self.pass_time(0.01)
        assert self.leadership.epoch is not None
        return self.leadership.epoch


def tell(connection: Connection) -> int:
    return events.tell(connection, "test", "", {}, identifier())


def every(connection: Connection) -> list[events.Event]:
    return events.after(connection, 0, 100_000)


async def watched(database: Database, name: str) -> int:
    """Wait until a process acts; return the epoch in which it did."""
    async with asyncio.timeout(LONGEST):
        while True:
            epochs = [act.facts["epoch"] for act in database.transact(every) if act.subject == name]
            if epochs:
                return int(epochs[-1])
            await asyncio.sleep(0.01)


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    return postgresql.database()


@pytest.fixture
def pair(url: str, tmp_path: Path) -> Iterator[tuple[Process, Process]]:
    """Two controllers on one PostgreSQL."""
    databases = [open_database(url, tmp_path) for _ in range(2)]
    yield Process(databases[0], "first"), Process(databases[1], "second")
    for database in databases:
        database.close()


async def test_a_controller_alone_leads_at_once_also_after_it_was_killed(reopen: Callable[[], Database]) -> None:
    one = Process(reopen())
    assert await one.lead() == 1
    await one.pass_time(60)
    assert one.told == [("gained", 1)]
    await one.leadership.close()
    assert one.told == [("gained", 1), ("lost", 1)]
    two = Process(reopen())
    assert await two.lead() == 2
    three = Process(reopen())
    if three.leadership.alone:  # two was killed, or its file could not be opened
        assert await three.lead() == 3
    else:
        await three.pass_time(5.9)
        assert three.leadership.epoch is None
        await three.pass_time(0.2)
        assert three.leadership.epoch == 3


def test_a_second_controller_on_the_same_file_is_refused(tmp_path: Path) -> None:
    first = open_database("sqlite:///controller.db", tmp_path)
    with pytest.raises(DatabaseUnusable, match="stop that one first"):
        open_database("sqlite:///controller.db", tmp_path)
    assert not first.shared
    first.close()


async def test_the_other_waits_while_the_leader_renews_and_takes_over_when_it_stops(
    pair: tuple[Process, Process],
) -> None:
    first, second = pair
    assert await first.lead() == 1
    for _ in range(20):
        await first.pass_time(1.0)
        await second.pass_time(1.0)
    assert (first.leadership.epoch, second.leadership.epoch) == (1, None)
    assert second.leadership.leader.address == "first"
    await second.pass_time(6.0)
    first.now += 6.0  # frozen meanwhile
    assert first.leadership.epoch is None, "it knows before it asks anybody"
    assert second.leadership.epoch == 2
    await first.pass_time(1.0)
    assert first.told == [("gained", 1), ("lost", 1)]
    assert first.leadership.leader.address == "second"


async def test_a_lease_that_was_given_back_is_taken_without_waiting(pair: tuple[Process, Process]) -> None:
    first, second = pair
    await first.lead()
    await first.leadership.close()
    assert await second.lead() == 2


async def test_what_the_last_leader_sends_late_changes_nothing(pair: tuple[Process, Process]) -> None:
    """Its own clock says that it leads: the transaction is refused all the same."""
    first, second = pair
    await first.lead()
    await second.pass_time(7)
    assert (first.leadership.epoch, second.leadership.epoch) == (1, 2)
    with pytest.raises(NotLeading, match="epoch 2 has begun, this was 1"):
        await first.leadership.transact(tell)
    assert first.told[-1] == ("lost", 1)
    assert await second.leadership.transact(tell) == 1


async def test_a_database_that_hangs_ends_the_lease_in_time(pair: tuple[Process, Process]) -> None:
    first, second = pair
    await first.lead()
    begun, gate = threading.Event(), threading.Event()

    def work(_: Connection) -> None:
        begun.set()
        gate.wait(LONGEST)

    hanging = asyncio.ensure_future(first.database.run(work))
    await asyncio.to_thread(begun.wait)
    first.now += 4.98
    await first.leadership.turn()  # for as long as there is lease left: 20 ms
    first.now += 0.03
    assert first.leadership.epoch is None
    await second.pass_time(7)
    assert second.leadership.epoch == 2
    gate.set()
    await hanging


async def test_who_leads_rests_while_the_database_is_away_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as server:
        url = server.database()
        process, other = (Process(open_database(url, tmp_path), name) for name in ("one", "two"))
        assert await process.lead() == 1
        recorder = await History.begin(process.leadership, 1, process.now)
        recorder.add([Sample("8-9", "ckms-8", True, 100.0, 800.0, 0.001, None)], process.now)
        batch = Batch((Note("link-down", "8-9"),))
        committed = Database.transact

        def breaks_off(database: Database, work: Any) -> Any:
            committed(database, work)
            raise OutcomeUnknown("the connection broke off")

        with monkeypatch.context() as patched:
            patched.setattr(Database, "transact", breaks_off)
            with pytest.raises(OutcomeUnknown):
                await process.leadership.transact(batch.write)
        server.stop(signal.SIGQUIT)
        for _ in range(30):
            for one in (process, other):
                one.now += 1.0
                await one.leadership.turn()
            with pytest.raises((DatabaseUnavailable, NotLeading)):
                await process.leadership.transact(batch.write)
        assert (process.leadership.epoch, other.leadership.epoch) == (None, None)
        server.start()
        await process.pass_time(8)
        assert process.leadership.epoch == 2
        assert process.told == [("gained", 1), ("lost", 1), ("gained", 2)]
        await process.leadership.transact(batch.write)
        assert [one.kind for one in await process.database.run(lambda c: events.after(c, 0))] == ["link-down"]
        assert await recorder.flush() == 1
        for one in (process, other):
            one.database.close()


async def test_serials_grow_over_processes_and_epochs_and_never_come_twice(reopen: Callable[[], Database]) -> None:
    seen: list[int] = []
    for epoch in (1, 2, 3):
        one = Process(reopen())
        assert await one.lead() == epoch
        serials = Serials(one.leadership, block=5)
        for number in (1, 3, 2, 11, 4):
            given_epoch, given = await serials.take(number)
            assert (given_epoch, len(given)) == (epoch, number)
            seen += given
        await one.leadership.close()
        with pytest.raises(NotLeading):
            await serials.take(1)
    assert seen == sorted(set(seen))


async def test_serials_asked_for_at_once_are_different(database: Database) -> None:
    one = Process(database)
    await one.lead()
    serials = Serials(one.leadership, block=7)
    taken = await asyncio.gather(*(serials.take(3) for _ in range(20)))
    assert len({number for _, given in taken for number in given}) == 60


CONTROLLER = """
import asyncio, sys
from pathlib import Path
from controller.state.database import open_database
from controller.state.leading import Leadership, NotLeading
from controller.state.lease import Terms
from controller.state import events
from keyhaul.database.errors import DatabaseUnavailable
from keyhaul.randomness import identifier

async def main():
    leadership = Leadership(open_database(sys.argv[1], Path(".")), sys.argv[2], Terms(2.4, 0.5, 0.8),
        gained=lambda epoch: print("gained", epoch, flush=True), lost=lambda epoch: print("lost", epoch, flush=True))
    await leadership.turn()
    print("ready 0", flush=True)
    keeping = asyncio.ensure_future(leadership.run())
    while True:
        epoch = leadership.epoch
        try:
            await leadership.transact(lambda c: events.tell(c, "acted", sys.argv[2], {"epoch": epoch}, identifier()))
        except (NotLeading, DatabaseUnavailable):
            pass
        await asyncio.sleep(0.02)

asyncio.run(main())
"""


async def test_of_processes_that_are_frozen_and_killed_each_acts_in_its_own_epoch_only(
    url: str, tmp_path: Path
) -> None:
    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", CONTROLLER, url, name], stdout=subprocess.PIPE, text=True, bufsize=1
        )

    async def says(process: subprocess.Popen[str], word: str) -> int:
        """Wait until it says so; return the epoch. (On a busy machine a leader may lose the lease meanwhile.)"""
        assert process.stdout is not None
        async with asyncio.timeout(LONGEST):
            while True:
                said = (await asyncio.to_thread(process.stdout.readline)).split()
                if said[0] == word:
                    return int(said[-1])

    watching = open_database(url, tmp_path)

    one = start("one")
    await says(one, "gained")
    two = start("two")
    try:
        await says(two, "ready")
        first = await watched(watching, "one")
        one.send_signal(signal.SIGSTOP)
        before = boot_time()
        second = await says(two, "gained")
        print(f"frozen leader replaced after {boot_time() - before:.2f} s (lease 2.4 s)")
        one.send_signal(signal.SIGCONT)
        await says(one, "lost")
        assert await watched(watching, "two") >= second > first
        two.kill()
        assert await says(one, "gained") > second
    finally:
        for process in (one, two):
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    acts = watching.transact(every)
    epochs = [act.facts["epoch"] for act in acts]
    assert epochs == sorted(epochs), "nothing of an older epoch after the newer one began"
    assert len({(act.facts["epoch"], act.subject) for act in acts}) == len(set(epochs)), "an epoch is of one process"
    watching.close()


async def test_an_epoch_that_others_have_heard_of_is_surpassed_and_serials_are_skipped(database: Database) -> None:
    process = Process(database)
    epoch = await process.lead()
    _, former = await Serials(process.leadership).take(3)

    await process.leadership.surpass(epoch + 6, 2**33)

    assert process.leadership.epoch == epoch + 7
    assert process.told == [("gained", epoch), ("lost", epoch), ("gained", epoch + 7)]
    later, serials = await Serials(process.leadership).take(1)
    assert later == epoch + 7
    assert serials.start > 2**33 + 2**32 > former.stop
    await process.pass_time(60.0)
    assert process.leadership.epoch == epoch + 7, "it goes on renewing"


async def test_who_does_not_lead_surpasses_nothing(database: Database) -> None:
    first, second = Process(database), Process(database)
    epoch = await first.lead()
    await second.pass_time(0.01)
    await first.leadership.close()
    taken = await second.lead()
    first.leadership.lease.taken(epoch, first.now)  # as if it had not noticed

    with pytest.raises(NotLeading):
        await first.leadership.surpass(epoch + 5, 1)

    assert second.leadership.epoch == taken
    await second.pass_time(5.0)
    assert second.leadership.epoch == taken
