"""A database of one table, on each engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyhaul.database.database import Database
from tests.keyhaul.database.tables import PURPOSE


@pytest.fixture
def database(tmp_path: Path, database_url: str) -> Iterator[Database]:
    opened = Database.open(PURPOSE, database_url, tmp_path)
    yield opened
    opened.close()
