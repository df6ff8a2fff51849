"""The tables of an AKMS's store. Wall-clock columns are this node's own clock and are compared with nothing else."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    select,
    text,
    update,
)

from keyhaul.link.tables import add_link_tables
from keyhaul.store.interface import Schema, Upgrade

METADATA = MetaData()

COMPROMISED = text("compromised > 0")
"""Of few batches, which an index names: it serves a condition that is written like this."""

BATCHES = Table(
    "batches",
    METADATA,
    Column("batch", String(32), primary_key=True),
    Column("part", String(8), nullable=False),
    Column("peer", String(64), nullable=False),
    Column("request", String(64), nullable=False),
    Column("grant", String(32), nullable=False),
    Column("master", String(64), nullable=False),
    Column("master_ukms", String(64), nullable=False),
    Column("slaves", LargeBinary, nullable=False),
    Column("sites", LargeBinary, nullable=False),
    Column("service_class", String(16), nullable=False),
    Column("size", Integer, nullable=False),
    Column("key_ids", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("expires", Float, nullable=False),
    Column("bits", LargeBinary),
    Column("exposed", Boolean, nullable=False, server_default="0", doc="made under CN bits that are exposed"),
    Column("compromised", Integer, nullable=False, server_default="0", doc="its keys that were issued all the same"),
    Index("batches_by_state", "state", "part"),
    Index("batches_by_expiry", "expires"),
    Index("batches_by_master", "master"),
    Index("batches_by_peer", "peer", "part", "service_class"),
    Index("batches_compromised", "compromised", sqlite_where=COMPROMISED, postgresql_where=COMPROMISED),
)
"""One row a KSA batch; `bits` is sealed, and set only at the asker (or for local keys) from release to hand-over."""

USAGE = Table(
    "usage",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(8), nullable=False),
    Column("batch", String(32), nullable=False),
    Column("grant", String(32), nullable=False),
    Column("size", Integer, nullable=False),
    Column("key_ids", LargeBinary, nullable=False),
    Column("at", Float, nullable=False),
    Column("refused", Boolean, nullable=False),
    Column("ukms", String(64), nullable=False, server_default="", doc="the master's, or who says so"),
    sqlite_autoincrement=True,
)
"""What AAA has not acknowledged yet, in the order in which it happened; what it refused stays for an operator."""

GRANTS = Table(
    "grants",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("ukms", String(64), nullable=False),
    Column("master", String(64), nullable=False),
    Column("slaves", LargeBinary, nullable=False),
    Column("signed", LargeBinary, nullable=False),
    Column("left", Integer, nullable=False),
    Column("received", Float, nullable=False),
    Column("dropped", Boolean, nullable=False),
)
"""Grants that this AKMS asked for, and what is left of their allowance."""

GRANT_COUNTS = Table(
    "grant_counts",
    METADATA,
    Column("grant", String(32), primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("used", Integer, nullable=False),
    Column("revoked", Boolean, nullable=False),
)
"""What this AKMS, as maker, has made under other AKMSs' grants."""

UKMS_STORES = Table(
    "ukms_stores",
    METADATA,
    Column("ukms", String(64), primary_key=True),
    Column("store", String(32), nullable=False, doc="what other stores held is withdrawn"),
    Column("told", String(32), nullable=False, server_default="", doc="the identity that the UKMS told last"),
    Column("generation", BigInteger, nullable=False, server_default="0", doc="the greatest it told of that store"),
)

EXPOSURES = Table(
    "exposures",
    METADATA,
    Column("exposure", String(32), primary_key=True),
    Column("over", Boolean, nullable=False, doc="whether its paths had left the node"),
    Column("at", Float, nullable=False),
)
"""The exposures of CN bits that were acted upon."""

PROGRESS = Table(
    "progress",
    METADATA,
    Column("name", String(16), primary_key=True),
    Column("value", Integer, nullable=False),
)
"""AAA's serial of changes and epoch, as last seen."""

ERRANDS = Table(
    "errands",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("target", String(64), nullable=False),
    Column("batch", String(32), nullable=False),
    Column("facts", LargeBinary, nullable=False),
    Column("expires", Float),
    Index("errands_by_target", "target", "id"),
    Index("errands_by_batch", "batch"),
    sqlite_autoincrement=True,
)
"""What must still be told to a UKMS or another AKMS."""

add_link_tables(METADATA)


def _tell_generations(connection: Connection) -> None:
    for column in ("told VARCHAR(32) NOT NULL DEFAULT ''", "generation BIGINT NOT NULL DEFAULT 0"):
        connection.execute(text(f"ALTER TABLE ukms_stores ADD COLUMN {column}"))
    connection.execute(update(UKMS_STORES).values(told=UKMS_STORES.c.store))


def _name_ukms(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE usage ADD COLUMN ukms VARCHAR(64) NOT NULL DEFAULT ''"))


def _expose(connection: Connection) -> None:
    for column in ("exposed BOOLEAN NOT NULL DEFAULT 0", "compromised INTEGER NOT NULL DEFAULT 0"):
        connection.execute(text(f"ALTER TABLE batches ADD COLUMN {column}"))
    METADATA.create_all(connection, [EXPOSURES])
    for index in BATCHES.indexes:
        index.create(connection, checkfirst=True)


SCHEMA = Schema(
    name="akms",
    version=4,
    metadata=METADATA,
    upgrades=(Upgrade(2, _tell_generations), Upgrade(3, _name_ukms), Upgrade(4, _expose)),
)


def store_of(connection: Connection, ukms: str) -> str | None:
    """The identity of a UKMS's store as it last reported it."""
    return connection.execute(select(UKMS_STORES.c.store).where(UKMS_STORES.c.ukms == ukms)).scalar_one_or_none()
