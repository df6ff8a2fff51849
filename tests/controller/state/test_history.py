"""Measurements in the database: whole over restarts, rolled up once, kept as long as they are to."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from sqlalchemy import Connection, func, select

from controller.state import history
from controller.state.history import History, Retention, read
from controller.state.leading import Leadership
from controller.state.lease import Terms
from controller.state.rollup import DAY, HOUR, MINUTE, Sample, Summary
from controller.state.schema import measurements
from keyhaul.database.database import Database
from keyhaul.database.errors import OutcomeUnknown

START = 20_000 * DAY
"""A midnight."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The database's wall clock, in the test's hand."""
    now = [float(START)]
    monkeypatch.setattr(history, "wall", lambda _: now[0])
    return now


def sample(rate: float, link: str = "8-9", sender: str = "ckms-8") -> Sample:
    return Sample(link, sender, True, rate, 8 * rate, 0.001, 0.02)


async def begin(database: Database, monotonic: float = 0.0, retention: Retention | None = None) -> History:
    """A new leader, which the last one left the lease to."""
    leadership = Leadership(database, "", Terms(), gained=lambda _: None, lost=lambda _: None)
    while leadership.epoch is None:
        await leadership.turn()
    await leadership.close()
    leadership = Leadership(database, "", Terms(600, 60, 60), gained=lambda _: None, lost=lambda _: None)
    while leadership.epoch is None:
        await leadership.turn()
    return await History.begin(leadership, leadership.epoch, monotonic, retention)


def show(database: Database, level: int, link: str = "8-9", sender: str = "ckms-8") -> dict[int, Summary]:
    return database.transact(lambda c: read(c, level, link, sender, 0, 2**40))


async def test_a_restart_within_a_minute_leaves_neither_gap_nor_double(
    reopen: Callable[[], Database], clock: list[float]
) -> None:
    taken = await begin(reopen(), monotonic=500.0)
    for second in range(0, 25, 5):
        taken.add([sample(100)], 500.0 + second)
        await taken.flush()
    clock[0] = START + 30  # killed, and started again: another process with another clock
    database = reopen()
    # who was killed did not give the lease back; a new process of the same host need not wait here
    taken = await begin(database, monotonic=9.0) if not database.shared else await taken_over(database, 9.0)
    for second in range(30, 90, 5):
        taken.add([sample(200)], 9.0 + second - 30)
    await taken.flush()
    await taken.flush()
    shown = show(database, MINUTE)
    assert {start - START: one.samples for start, one in shown.items()} == {0: 5 + 6, 60: 6}
    assert shown[START].rate_sum == 5 * 100 + 6 * 200
    assert (shown[START].rate_least, shown[START].rate_most) == (100, 200)


async def taken_over(database: Database, monotonic: float) -> History:
    """A leader that waited until the lease of one that was killed had ended."""
    now = [0.0]
    leadership = Leadership(database, "", Terms(), gained=lambda _: None, lost=lambda _: None, clock=lambda: now[0])
    while leadership.epoch is None:
        await leadership.turn()
        now[0] += 1.0
    await leadership.close()
    return await begin(database, monotonic)


class Doubtful:
    """A leadership whose transactions are carried out, and reported as unknown now and then."""

    def __init__(self, leadership: Leadership) -> None:
        self.leadership = leadership
        self.chance = Random(7)

    async def transact(self, work: Callable[[Connection], object]) -> object:
        done = await self.leadership.transact(work)
        if self.chance.random() < 0.3:
            raise OutcomeUnknown("of the test")
        return done


async def test_hours_and_days_are_made_once_whatever_outcome_was_unknown(
    database: Database, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LINKS", 2)
    monkeypatch.setattr(history, "PORTION", 3)
    taken = await begin(database)
    taken._leadership = Doubtful(taken._leadership)  # type: ignore[assignment]

    async def until_done(work: Callable[[], object]) -> None:
        while True:
            try:
                await work()  # type: ignore[misc]
            except OutcomeUnknown:
                continue
            return

    ends = [(f"link {number}", sender) for number in range(3) for sender in ("a", "b")]
    every = 1_800
    for second in range(0, DAY + 2 * HOUR, every):
        taken.add([sample(second, *end) for end in ends], float(second))
        await until_done(taken.flush)
    await until_done(taken.roll_up)
    for end in ends:
        minutes, hours, days = (show(database, level, *end) for level in (MINUTE, HOUR, DAY))
        assert list(hours) == [START + hour * HOUR for hour in range(25)], "the last hour may still get samples"
        assert all(one.samples == HOUR // every for one in hours.values())
        assert hours[START + HOUR].rate == sum(range(HOUR, 2 * HOUR, every)) / 2
        assert list(days) == [START]
        assert days[START].samples == DAY // every
        assert days[START].rate_sum == sum(range(0, DAY, every))
        assert len(minutes) == (DAY + 2 * HOUR) // every


async def test_nothing_is_deleted_before_it_is_rolled_up_nor_kept_for_longer(
    database: Database, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PORTION", 7)
    taken = await begin(database, retention=Retention(minutes=2 * HOUR, hours=DAY, days=3 * DAY))
    for second in range(0, 2 * DAY, 600):
        taken.add([sample(1.0)], float(second))
    await taken.flush()
    clock[0] = START + 2 * DAY
    assert database.transact(lambda c: history.purge(c, Retention(0, 0, 10 * DAY))) == 0, "no hour is made yet"
    await taken.roll_up()
    assert min(show(database, MINUTE)) == START + 2 * DAY - 2 * HOUR
    assert min(show(database, HOUR)) == START + DAY
    assert list(show(database, DAY)) == [START]
    clock[0] = START + 10 * DAY
    await taken.roll_up()
    assert show(database, DAY) == {}
    assert min(show(database, HOUR)) >= START + DAY, "hours of a day that is not made are kept"


async def test_a_leader_whose_database_steps_back_goes_on_where_hours_are_made_up_to(
    reopen: Callable[[], Database], clock: list[float]
) -> None:
    database = reopen()
    taken = await begin(database)
    for second in range(0, 2 * HOUR + 60, 60):
        taken.add([sample(1.0)], float(second))
    await taken.flush()
    await taken.roll_up()
    assert len(show(database, HOUR)) == 2
    clock[0] = float(START)
    await taken._leadership.close()
    taken = await begin(database)
    taken.add([sample(1.0)], 0.0)
    await taken.flush()
    await taken.roll_up()
    assert show(database, MINUTE)[START + 2 * HOUR].samples == 2
    assert {one.samples for one in show(database, HOUR).values()} == {60}


async def test_rows_of_many_links_are_written_in_portions(database: Database, clock: list[float]) -> None:
    taken = await begin(database)
    many = [sample(1.0, f"link {number}") for number in range(2 * history.PORTION + 1)]
    taken.add(many, 0.0)
    assert await taken.flush() == len(many)
    taken.add(many[:3], 1.0)
    assert await taken.flush() == 3
    assert database.transact(lambda c: c.execute(select(func.count()).select_from(measurements)).scalar_one()) == len(
        many
    )
