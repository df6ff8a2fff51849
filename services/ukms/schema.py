"""The schema of a UKMS's store: its own tables and the link's."""

from __future__ import annotations

from keyhaul.link.tables import add_link_tables
from keyhaul.store.interface import Schema
from services.ukms.tables import metadata

add_link_tables(metadata)

SCHEMA = Schema(name="ukms", version=1, metadata=metadata)
