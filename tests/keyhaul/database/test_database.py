"""A transaction means the same on both engines: all or nothing, serializable, and nothing told of what it named."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select, text, update

from keyhaul.database.database import Database
from keyhaul.database.errors import DatabaseUnavailable, DatabaseUnusable, OutcomeUnknown
from keyhaul.database.rows import replace_rows
from tests.keyhaul.database.tables import PURPOSE, things

LONGEST = 30.0


def add(name: str, number: int = 0) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        connection.execute(insert(things).values(name=name, kind="k", number=number))

    return work


def count(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(things)).scalar_one())


def test_what_was_written_is_there_after_opening_again(tmp_path: Path, database_url: str) -> None:
    for expected in (1, 2):
        database = Database.open(PURPOSE, database_url, tmp_path)
        database.transact(add(f"thing {expected}"))
        assert database.transact(count) == expected
        database.close()


async def test_a_transaction_that_fails_leaves_nothing_and_tells_no_parameters(database: Database) -> None:
    def twice(connection: Connection) -> None:
        add("private-name")(connection)
        add("private-name")(connection)

    with pytest.raises(DatabaseUnavailable) as error:
        await database.run(twice)
    assert not isinstance(error.value, OutcomeUnknown), "nothing of it was committed, and that is known"
    assert "private-name" not in str(error.value)
    assert await database.run(count) == 0


async def test_what_the_work_raises_passes_and_leaves_nothing(database: Database) -> None:
    def work(connection: Connection) -> None:
        add("a")(connection)
        raise LookupError("of the work's own")

    with pytest.raises(LookupError):
        await database.run(work)
    assert await database.run(count) == 0


async def test_the_outcome_of_a_late_transaction_is_unknown(database: Database) -> None:
    gate = threading.Event()

    def work(connection: Connection) -> None:
        gate.wait(LONGEST)
        add("late")(connection)

    with pytest.raises(OutcomeUnknown, match="did not answer"):
        await database.run(work, deadline=0.01)
    gate.set()
    assert await database.run(count) == 1, "as it happens, it was committed"


async def test_a_transaction_that_had_not_begun_when_it_was_given_up_never_runs(database: Database) -> None:
    begun, gate = threading.Event(), threading.Event()

    def work(_: Connection) -> None:
        begun.set()
        gate.wait(LONGEST)

    first = asyncio.ensure_future(database.run(work))
    await asyncio.to_thread(begun.wait)
    with pytest.raises(OutcomeUnknown):
        await database.run(add("given up"), deadline=0.01)
    gate.set()
    await first
    assert await database.run(count) == 0


def test_additions_of_two_processes_are_both_counted(tmp_path: Path, database_url: str) -> None:
    """Each reads, adds one, writes: at weaker isolation some would be lost, without retrying some would fail."""
    each = 60
    ends = [Database.open(PURPOSE, database_url, tmp_path) for _ in range(2)]
    ends[0].transact(add("counter"))

    def one(connection: Connection) -> None:
        number = connection.execute(select(things.c.number)).scalar_one()
        connection.execute(update(things).values(number=number + 1))

    with ThreadPoolExecutor(2) as threads:
        done = [threads.submit(lambda end: [end.transact(one) for _ in range(each)], end) for end in ends]
        for outcome in done:
            outcome.result()
    assert ends[0].transact(lambda connection: connection.execute(select(things.c.number)).scalar_one()) == 2 * each
    for end in ends:
        end.close()


def test_processes_that_start_together_make_the_tables_once(tmp_path: Path, database_url: str) -> None:
    begin = threading.Barrier(4)

    def start() -> int:
        begin.wait()
        database = Database.open(PURPOSE, database_url, tmp_path)
        found = database.transact(count)
        database.close()
        return found

    with ThreadPoolExecutor(4) as threads:
        assert [one.result() for one in [threads.submit(start) for _ in range(4)]] == [0] * 4


def test_a_database_of_a_newer_release_stops_the_service_and_stays_as_it_is(tmp_path: Path, database_url: str) -> None:
    database = Database.open(PURPOSE, database_url, tmp_path)
    database.transact(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))

    with pytest.raises(DatabaseUnusable, match=r"newer release \(revision 9999; this one knows up to 0001\): install"):
        Database.open(PURPOSE, database_url, tmp_path)
    found = database.transact(lambda connection: connection.execute(text("SELECT * FROM alembic_version")).all())
    assert found == [("9999",)]
    database.close()


def test_a_row_replaces_the_one_of_its_key_and_no_other(database: Database) -> None:
    rows = [{"name": f"n{number}", "kind": "k", "number": number} for number in range(500)]
    database.transact(lambda connection: replace_rows(connection, things, rows))
    changed = [{"name": "n3", "kind": "k", "number": -1}, {"name": "n3", "kind": "other", "number": -2}]
    database.transact(lambda connection: replace_rows(connection, things, changed))
    database.transact(lambda connection: replace_rows(connection, things, []))

    def found(connection: Connection) -> dict[tuple[str, str], int]:
        return {(row.name, row.kind): row.number for row in connection.execute(select(things))}

    expected = {(row["name"], row["kind"]): row["number"] for row in [*rows, *changed]}
    assert database.transact(found) == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://", r"Test needs a database that lasts: name a file \(e.g. sqlite:///test.db\)"),
        ("sqlite:///missing/test.db", "No such file"),
        ("sqlite:///.", "cannot be opened"),
        ("what", "no URL"),
        ("nonsense:///x", "no driver"),
        ("postgresql+nothing://keyhaul:secret@localhost/test", "no driver"),
        ("postgresql+psycopg://keyhaul:secret@/test?host=/nowhere", "cannot be opened: .*nowhere"),
    ],
)
def test_a_database_that_cannot_be_opened_says_why(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(DatabaseUnusable, match=says) as error:
        Database.open(PURPOSE, url, tmp_path)
    assert "secret" not in str(error.value)
