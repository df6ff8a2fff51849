"""The controller's database."""

from __future__ import annotations

from pathlib import Path

from keyhaul.database.database import Database, Purpose

PURPOSE = Purpose("Controller", Path(__file__).with_name("migrations"), "controller.db", exclusive=True)


def open_database(url: str, directory: Path) -> Database:
    """Open the controller's database; see `Database.open`. Where it is not `shared` there is one controller only."""
    return Database.open(PURPOSE, url, directory)
