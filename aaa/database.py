"""AAA's database."""

from __future__ import annotations

from pathlib import Path

from keyhaul.database.database import Database, Purpose

PURPOSE = Purpose("AAA", Path(__file__).with_name("migrations"), "aaa.db")


def open_database(url: str, directory: Path) -> Database:
    """Open AAA's database; see `Database.open`."""
    return Database.open(PURPOSE, url, directory)
