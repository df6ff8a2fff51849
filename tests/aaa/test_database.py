"""AAA's tables are made by its migrations, on both engines; its errors name nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, insert

from aaa.database import open_database
from aaa.schema import customers, metadata
from keyhaul.database.errors import DatabaseUnavailable, DatabaseUnusable


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path, database_url: str) -> None:
    database = open_database(database_url, tmp_path)

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert database.transact(differences) == []
    database.close()


def test_a_database_that_dies_with_the_process_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match=r"AAA needs a database that lasts: name a file \(e.g. sqlite:///aaa.db"):
        open_database("sqlite://", tmp_path)


def test_an_error_names_no_customer(tmp_path: Path, database_url: str) -> None:
    database = open_database(database_url, tmp_path)

    def twice(connection: Connection) -> None:
        connection.execute(insert(customers).values(id="private-name", name=""))
        connection.execute(insert(customers).values(id="private-name", name=""))

    with pytest.raises(DatabaseUnavailable) as error:
        database.transact(twice)
    assert "private-name" not in str(error.value)
    database.close()
