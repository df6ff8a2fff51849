"""The durable state of one link in a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, MetaData, delete, insert, select

from keyhaul.keys.material import KeyMaterial
from keyhaul.link.channel import LANE
from keyhaul.link.pads import Block
from keyhaul.link.record import DirectionState, Record, Side
from keyhaul.link.tables import add_link_tables
from keyhaul.store.interface import Store, StoreCorrupt
from keyhaul.transport.messages.link import Stream

_TABLES = add_link_tables(MetaData())
_DIRECTIONS = _TABLES.directions
_BLOCKS = _TABLES.blocks

_Row = tuple[int, str, int, bytes, bytes]
"""number, stream, start, digest, sealed bits"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a store held of one direction."""

    state: DirectionState
    blocks: list[Block]
    corrupt: int
    """Blocks whose bits could not be opened; they are burned."""


class LinkState:
    """Reads and writes one link's rows."""

    def __init__(self, store: Store, link: str) -> None:
        self._store = store
        self._link = link

    async def load(self, side: Side) -> Loaded:
        """Read one direction.

        Raises:
            StoreUnavailable: the store failed.
        """
        state, rows = await self._store.read(lambda connection: self._read(connection, side))
        blocks: list[Block] = []
        corrupt = 0
        for number, stream, start, digest, bits in rows:
            try:
                plain = self._store.fields.open(bits, self._context(side, number, stream, start))
                blocks.append(Block(number, Stream(stream), start, digest, KeyMaterial(plain)))
            except StoreCorrupt:
                corrupt += 1
        return Loaded(state, blocks, corrupt)

    async def write(self, *records: Record) -> None:
        """Make records durable, all or none.

        Raises:
            StoreUnavailable: the outcome is unknown.
        """
        sealed = [
            [
                {
                    **self._key(record.side),
                    "number": block.number,
                    "stream": block.stream.value,
                    "start": block.start,
                    "digest": block.digest,
                    "bits": self._store.fields.seal(
                        block.material.reveal(),
                        self._context(record.side, block.number, block.stream.value, block.start),
                    ),
                }
                for block in record.add
            ]
            for record in records
        ]

        def change(connection: Connection) -> None:
            for record, rows in zip(records, sealed, strict=True):
                self._write(connection, record, rows)

        await self._store.write(change)

    def _read(
        self, connection: Connection, side: Side
    ) -> tuple[DirectionState, Sequence[tuple[int, str, int, bytes, bytes]]]:
        figures = connection.execute(
            select(
                _DIRECTIONS.c.control_bound,
                _DIRECTIONS.c.payload_bound,
                _DIRECTIONS.c.control_end,
                _DIRECTIONS.c.payload_end,
                _DIRECTIONS.c.last_block,
            ).filter_by(**self._key(side))
        ).one_or_none()
        if figures is None:
            return DirectionState.empty(), []
        rows = connection.execute(
            select(_BLOCKS.c.number, _BLOCKS.c.stream, _BLOCKS.c.start, _BLOCKS.c.digest, _BLOCKS.c.bits)
            .filter_by(**self._key(side))
            .order_by(_BLOCKS.c.number)
        ).all()
        state = DirectionState(
            {Stream.CONTROL: figures[0], Stream.PAYLOAD: figures[1]},
            {Stream.CONTROL: figures[2], Stream.PAYLOAD: figures[3]},
            figures[4],
        )
        return state, [(row[0], row[1], row[2], row[3], row[4]) for row in rows]

    def _write(self, connection: Connection, record: Record, rows: list[dict[str, object]]) -> None:
        key = self._key(record.side)
        state = record.state
        connection.execute(delete(_DIRECTIONS).filter_by(**key))
        connection.execute(
            insert(_DIRECTIONS).values(
                **key,
                control_bound=state.bounds[Stream.CONTROL],
                payload_bound=state.bounds[Stream.PAYLOAD],
                control_end=state.ends[Stream.CONTROL],
                payload_end=state.ends[Stream.PAYLOAD],
                last_block=state.last_block,
            )
        )
        gone = delete(_BLOCKS).filter_by(**key)
        if record.keep_only is not None:
            connection.execute(gone.where(_BLOCKS.c.number.not_in(record.keep_only)))
        if drop := [*record.drop, *(block.number for block in record.add)]:
            connection.execute(gone.where(_BLOCKS.c.number.in_(drop)))
        if rows:
            connection.execute(insert(_BLOCKS), rows)

    def _key(self, side: Side) -> dict[str, object]:
        return {"link": self._link, "direction": side.value, "lane": LANE}

    def _context(self, side: Side, number: int, stream: str, start: int) -> bytes:
        return f"{self._link}|{side.value}|{LANE}|{number}|{stream}|{start}".encode()
