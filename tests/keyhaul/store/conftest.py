"""A small schema, and stores of it in a temporary directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table

from keyhaul.config.services import StoreSection
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import Schema

METADATA = MetaData()
KEYS = Table(
    "keys",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("bits", LargeBinary),
)
SCHEMA = Schema("test", 1, METADATA)
SECTION = StoreSection(path="state/store.db", key_file="secrets/store.key")

Opener = Callable[..., Awaitable[EmbeddedStore]]


@pytest.fixture
def schema() -> Schema:
    return SCHEMA


@pytest.fixture
def keys() -> Table:
    return KEYS


@pytest.fixture
def section() -> StoreSection:
    return SECTION


@pytest.fixture
async def opener(tmp_path: Path) -> AsyncIterator[Opener]:
    opened: list[EmbeddedStore] = []

    async def open_store(schema: Schema = SCHEMA, section: StoreSection = SECTION) -> EmbeddedStore:
        store = await EmbeddedStore.open(section, tmp_path, schema)
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        await store.close()
