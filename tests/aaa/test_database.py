"""The database is brought to this release's tables, or left alone with a message that says what to do."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text

from aaa.database import Database, DatabaseUnavailable, DatabaseUnusable
from aaa.schema import customers, metadata

URL = "sqlite:///aaa.db"


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    database = Database.open(URL, tmp_path)

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert database.transact(differences) == []
    database.close()


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    Database.open(URL, tmp_path).close()

    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_database_of_a_newer_release_stops_the_service_and_stays_as_it_is(tmp_path: Path) -> None:
    database = Database.open(URL, tmp_path)
    database.transact(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    database.close()
    before = (tmp_path / "aaa.db").read_bytes()

    with pytest.raises(DatabaseUnusable, match=r"newer release \(revision 9999; this one knows up to 0002\): install"):
        Database.open(URL, tmp_path)
    assert (tmp_path / "aaa.db").read_bytes() == before


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://", "lasts"),
        ("sqlite:///missing/aaa.db", "No such file"),
        ("sqlite:///.", "cannot be opened"),
        ("what", "no URL"),
        ("nonsense:///x", "no driver"),
        ("postgresql+nothing://keyhaul:secret@localhost/aaa", "no driver"),
    ],
)
def test_a_database_that_cannot_be_opened_says_why(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(DatabaseUnusable, match=says) as error:
        Database.open(url, tmp_path)
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "aaa.db").write_bytes(b"something else entirely" * 100)

    with pytest.raises(DatabaseUnusable, match="not a database"):
        Database.open(URL, tmp_path)


async def test_a_transaction_that_fails_leaves_nothing_and_tells_no_parameters(tmp_path: Path) -> None:
    database = Database.open(URL, tmp_path)

    def twice(connection: Connection) -> None:
        connection.execute(insert(customers).values(id="private-name", name=""))
        connection.execute(insert(customers).values(id="private-name", name=""))

    with pytest.raises(DatabaseUnavailable) as error:
        await database.run(twice)
    assert "private-name" not in str(error.value)
    assert await database.run(lambda connection: connection.execute(select(customers)).all()) == []
    await asyncio.to_thread(database.close)


async def test_a_late_transaction_is_told_as_such(tmp_path: Path) -> None:
    import threading

    database = Database.open(URL, tmp_path)
    gate = threading.Event()
    with pytest.raises(DatabaseUnavailable, match="did not answer"):
        await database.run(lambda _: gate.wait(), deadline=0.01)
    gate.set()
    await asyncio.to_thread(database.close)
