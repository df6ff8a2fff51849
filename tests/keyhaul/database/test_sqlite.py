"""An SQLite database is a file for its owner alone, of one process where its purpose says so."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from keyhaul.database.database import Database
from keyhaul.database.errors import DatabaseUnusable
from tests.keyhaul.database.tables import ALONE, PURPOSE

URL = "sqlite:///test.db"


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    Database.open(ALONE, URL, tmp_path).close()

    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test.db").write_bytes(b"something else entirely" * 100)

    with pytest.raises(DatabaseUnusable, match="not a database"):
        Database.open(ALONE, URL, tmp_path)
    assert (tmp_path / "test.db").read_bytes() == b"something else entirely" * 100
    (tmp_path / "test.db").unlink()
    Database.open(ALONE, URL, tmp_path).close()


OTHER = """
import sys
from pathlib import Path
from keyhaul.database.database import Database
from tests.keyhaul.database.tables import ALONE
database = Database.open(ALONE, "sqlite:///test.db", Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        with pytest.raises(DatabaseUnusable, match=rf"pid {first.pid}\): stop that one first"):
            Database.open(ALONE, URL, tmp_path)
        first.kill()
        first.wait()
    Database.open(ALONE, URL, tmp_path).close()


def test_a_purpose_that_is_not_exclusive_lets_a_command_in(tmp_path: Path) -> None:
    with_service = Database.open(PURPOSE, URL, tmp_path)
    Database.open(PURPOSE, URL, tmp_path).close()
    assert not with_service.shared
    with_service.close()
