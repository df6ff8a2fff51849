"""The schema of a CKMS's store, and how older ones become it."""

from __future__ import annotations

from sqlalchemy import Connection

from keyhaul.store.interface import Schema, Upgrade
from services.ckms.tables import metadata, standing, statements


def _add_statements(connection: Connection) -> None:
    """Version 1 had the tables of the links alone."""
    metadata.create_all(connection, [statements, standing])


SCHEMA = Schema(name="ckms", version=2, metadata=metadata, upgrades=(Upgrade(2, _add_statements),))
