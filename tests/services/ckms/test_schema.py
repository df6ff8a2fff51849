"""A store of the first schema becomes one of this release, with all that it held."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import MetaData, insert, select

from keyhaul.config.services import StoreSection
from keyhaul.link.tables import add_link_tables
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import Schema, StoreTooNew
from services.ckms.held import HighWater, Kept
from services.ckms.schema import SCHEMA
from services.ckms.statement_store import Loaded, StatementStore

SECTION = StoreSection(path="store.db", key_file="store.key")

_METADATA = MetaData()
LINKS = add_link_tables(_METADATA)
FIRST = Schema("ckms", 1, _METADATA)


async def test_a_store_without_statements_gets_their_tables_and_keeps_its_links(tmp_path: Path) -> None:
    row = {"link": "1-2", "enabled": False, "suites": "otp"}
    old = await EmbeddedStore.open(SECTION, tmp_path, FIRST)
    await old.write(lambda connection: connection.execute(insert(LINKS.settings).values(row)) and None)
    await old.close()

    new = await EmbeddedStore.open(SECTION, tmp_path, SCHEMA)
    try:
        found = await new.read(lambda connection: connection.execute(select(LINKS.settings)).mappings().one())
        assert dict(found) == row
        loaded = await StatementStore(new).load()
        assert loaded == Loaded(Kept(HighWater(0, 0, doubt=True)), None)
        assert (await new.status()).version == 2
    finally:
        await new.close()
    with pytest.raises(StoreTooNew):
        await EmbeddedStore.open(SECTION, tmp_path, FIRST)
