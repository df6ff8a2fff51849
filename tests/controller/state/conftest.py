"""The controller's database, on each engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.state.database import open_database
from keyhaul.database.database import Database


@pytest.fixture
def reopen(tmp_path: Path, database_url: str) -> Iterator[Callable[[], Database]]:
    """Opens the database as one more process would; an SQLite file after the one before was closed."""
    opened: list[Database] = []

    def once_more() -> Database:
        if opened and not opened[-1].shared:
            opened[-1].close()
        opened.append(open_database(database_url, tmp_path))
        return opened[-1]

    yield once_more
    for database in opened:
        database.close()


@pytest.fixture
def database(reopen: Callable[[], Database]) -> Database:
    return reopen()
