"""The tables of the database that these tests open."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import BigInteger, Column, Float, MetaData, String, Table

from keyhaul.database.database import Purpose

metadata = MetaData()

things = Table(
    "things",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("kind", String(64), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("size", Float, nullable=True),
)

PURPOSE = Purpose("Test", Path(__file__).with_name("migrations"), "test.db")
ALONE = Purpose("Test", Path(__file__).with_name("migrations"), "test.db", exclusive=True)
