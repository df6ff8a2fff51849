"""The tables of link state in a service's store."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, MetaData, String, Table


@dataclass(frozen=True, slots=True)
class LinkTables:
    """Durable figures of each direction, the pad blocks of each, and what the operator has set for each link."""

    directions: Table
    blocks: Table
    settings: Table


def add_link_tables(metadata: MetaData) -> LinkTables:
    """Add the tables to a service's schema.

    The bits of a block are sealed with the store's field cipher; its context names link, direction, lane, number,
    stream and start, so that a row cannot take another's place.
    """
    directions = Table(
        "link_direction",
        metadata,
        Column("link", String(64), primary_key=True),
        Column("direction", String(8), primary_key=True),
        Column("lane", Integer, primary_key=True, autoincrement=False),
        Column("control_bound", BigInteger, nullable=False),
        Column("payload_bound", BigInteger, nullable=False),
        Column("control_end", BigInteger, nullable=False),
        Column("payload_end", BigInteger, nullable=False),
        Column("last_block", BigInteger, nullable=False),
    )
    blocks = Table(
        "link_block",
        metadata,
        Column("link", String(64), primary_key=True),
        Column("direction", String(8), primary_key=True),
        Column("lane", Integer, primary_key=True, autoincrement=False),
        Column("number", BigInteger, primary_key=True, autoincrement=False),
        Column("stream", String(8), nullable=False),
        Column("start", BigInteger, nullable=False),
        Column("digest", LargeBinary(32), nullable=False),
        Column("bits", LargeBinary, nullable=False),
    )
    settings = Table(
        "link_setting",
        metadata,
        Column("link", String(64), primary_key=True),
        Column("enabled", Boolean, nullable=False),
        Column("suites", String(255), nullable=False),
    )
    return LinkTables(directions, blocks, settings)
