from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import MetaData, update

from keyhaul.config.services import StoreSection
from keyhaul.keys.material import KeyMaterial
from keyhaul.link.pads import Block
from keyhaul.link.record import DirectionState, Record, Side
from keyhaul.link.state import LinkState
from keyhaul.link.tables import LinkTables, add_link_tables
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import Schema
from keyhaul.transport.messages.link import Stream

METADATA = MetaData()
TABLES: LinkTables = add_link_tables(METADATA)
SECTION = StoreSection(path="store.db", key_file="store.key")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    opened = await EmbeddedStore.open(SECTION, tmp_path, Schema("links", 1, METADATA))
    yield opened
    await opened.close()


def figures(number: int) -> DirectionState:
    return DirectionState(
        {Stream.CONTROL: number, Stream.PAYLOAD: 2 * number}, {Stream.CONTROL: 99, Stream.PAYLOAD: 2**40}, number
    )


def block(number: int) -> Block:
    return Block(number, Stream.PAYLOAD, 100 * number, b"d" * 32, KeyMaterial(bytes([number]) * 50))


async def numbers(state: LinkState, side: Side = Side.OUTGOING) -> list[int]:
    return [each.number for each in (await state.load(side)).blocks]


async def test_an_unknown_link_is_empty(store: EmbeddedStore) -> None:
    loaded = await LinkState(store, "1-2").load(Side.OUTGOING)
    assert (loaded.state, loaded.blocks, loaded.corrupt) == (DirectionState.empty(), [], 0)


async def test_what_was_recorded_is_loaded(store: EmbeddedStore) -> None:
    state = LinkState(store, "1-2")
    await state.write(
        Record(Side.OUTGOING, figures(7), (block(1), block(2))), Record(Side.INCOMING, figures(8), (block(3),))
    )
    loaded = await state.load(Side.OUTGOING)
    assert loaded.state == figures(7)
    assert [each.report() for each in loaded.blocks] == [block(1).report(), block(2).report()]
    assert [each.material for each in loaded.blocks] == [block(1).material, block(2).material]
    assert await numbers(state, Side.INCOMING) == [3]
    assert await numbers(LinkState(store, "1-3")) == []


async def test_dropped_blocks_go_and_a_repeated_one_is_replaced(store: EmbeddedStore) -> None:
    state = LinkState(store, "1-2")
    await state.write(Record(Side.OUTGOING, figures(1), (block(1), block(2), block(3))))
    await state.write(Record(Side.OUTGOING, figures(2), (block(3),), drop=(1,)))
    assert await numbers(state) == [2, 3]
    await state.write(Record(Side.OUTGOING, figures(3), keep_only=frozenset({3})))
    assert await numbers(state) == [3]
    await state.write(Record(Side.OUTGOING, figures(3), keep_only=frozenset()))
    assert await numbers(state) == []


async def test_a_row_in_anothers_place_is_not_used(store: EmbeddedStore) -> None:
    state = LinkState(store, "1-2")
    await state.write(Record(Side.OUTGOING, figures(1), (block(1), block(2))))
    blocks = TABLES.blocks
    await store.write(lambda connection: connection.execute(update(blocks).where(blocks.c.number == 2).values(start=0)))
    loaded = await state.load(Side.OUTGOING)
    assert [each.number for each in loaded.blocks] == [1]
    assert loaded.corrupt == 1
