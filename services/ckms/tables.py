"""The tables of a CKMS's store beside those of its links: the controller's statements, and how far they had grown."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, LargeBinary, MetaData, String, Table, Text

from keyhaul.link.tables import add_link_tables

metadata = MetaData()
add_link_tables(metadata)

statements = Table(
    "forwarding_statement",
    metadata,
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    # Own time, seconds: of its acceptance, and at which a withdrawn entry is drained.
    Column("accepted", Float, nullable=False),
    Column("drained", Float),
)

standing = Table(
    "forwarding_standing",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("doubt", Boolean, nullable=False),
    # Fingerprints of the pinned statement keys, one a line.
    Column("pinned", Text, nullable=False),
    # The own time, and the machine's clocks at that moment.
    Column("time", Float, nullable=False),
    Column("boot", String(64), nullable=False),
    Column("since_boot", Float, nullable=False),
    Column("wall", Float, nullable=False),
)
