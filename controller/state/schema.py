"""The tables of the controller.

Portable types only; the migrations beside this file make the same tables, and a test compares the two. Rates are bits
per second, wall-clock times whole seconds since 1970 of the database's clock, for people and for the history only.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

lease = Table(
    "lease",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(64), nullable=False),  # random, of a process; empty: given back
    Column("address", String(256), nullable=False),  # where the holder serves, for the others' answers
    Column("epoch", BigInteger, nullable=False),  # grows with each change of holder
    Column("beat", BigInteger, nullable=False),  # grows with each renewal
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

descriptions = Table(
    "descriptions",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("applied_at", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of the description that was applied, hexadecimal
)

planned_nodes = Table(
    "planned_nodes",
    metadata,
    Column("version", ForeignKey("descriptions.version"), primary_key=True),
    Column("position", Integer, primary_key=True),  # in the description
    Column("id", String(64), nullable=False),
    Column("access", Boolean, nullable=False),
    Column("jurisdiction", String(64), nullable=False),
    Column("place", String(128), nullable=False),
    Column("target", String(256), nullable=False),
)

planned_links = Table(
    "planned_links",
    metadata,
    Column("version", ForeignKey("descriptions.version"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("id", String(128), nullable=False),
    Column("a", String(64), nullable=False),
    Column("b", String(64), nullable=False),
    Column("quantum", Boolean, nullable=False),
    Column("rate", BigInteger, nullable=False),
    Column("capacity", BigInteger, nullable=False),
    Column("km", Float, nullable=False),
    Column("suites", JSON, nullable=False),
    Column("risk_groups", JSON, nullable=False),
)

quarantines = Table(
    "quarantines",
    metadata,
    Column("node", String(64), primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("reason", String(256), nullable=False),
)

demands = Table(
    "demands",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("source", String(64), nullable=False, index=True),  # the CKMS that hands keys in
    Column("target", String(64), nullable=False, index=True),
    Column("service_class", String(16), nullable=False),
    Column("rate", BigInteger, nullable=False),
    Column("terms", JSON, nullable=False),  # what else was asked for: shares, constraints
    Column("lifetime", Float, nullable=False),  # seconds without renewal after which it ends, by the leader's clock
    Column("admitted_at", BigInteger, nullable=False),
)

reservations = Table(
    # The hops of each path of a demand, and what is promised on each.
    "reservations",
    metadata,
    Column("demand", ForeignKey("demands.id"), primary_key=True),
    Column("rank", Integer, primary_key=True),  # of the path: 0 the first, then its backups or further shares
    Column("position", Integer, primary_key=True),  # of the hop on the path
    Column("link", String(128), nullable=False, index=True),
    Column("sender", String(64), nullable=False),  # the hop's first node
    Column("rate", BigInteger, nullable=False),  # of link key
)

crossings = Table(
    # The nodes that keys of a demand may have crossed, ends included; kept for as long as keys live.
    "crossings",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("target", String(64), primary_key=True),
    Column("service_class", String(16), primary_key=True),
    Column("rank", Integer, primary_key=True),  # of the path; of class split, the number of the share
    Column("node", String(64), primary_key=True, index=True),
    Column("until", BigInteger, index=True),  # none: it is on a path that is in force, or may be
)

exposures = Table(
    # Keys that a node in quarantine may know: all of a source, a target and a class, up to when their ends hear of it.
    "exposures",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("target", String(64), primary_key=True, index=True),
    Column("service_class", String(16), primary_key=True),
    Column("id", String(32), nullable=False),  # random: a database that was put back gives none out twice
    Column("at", BigInteger, nullable=False),
)

statements = Table(
    # What was told to CKMSs and is to hold there; written before it is sent.
    "statements",
    metadata,
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("node", String(64), nullable=False, index=True),
    Column("demand", String(32), nullable=False, index=True),
    Column("rank", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("installed", Boolean, nullable=False),  # whether the CKMS confirmed it
)

events = Table(
    "events",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("facts", JSON, nullable=False),
    Column("identity", String(32), unique=True),  # drawn by who tells it; none of those told by the first release
)

measurements = Table(
    # One row of a level (minute, hour or day), a link, a start and its sending end. A minute has one of each writer.
    # The key's order is that in which hours are made: of one link after the other, its rows within the hour.
    "measurements",
    metadata,
    Column("level", Integer, primary_key=True),  # seconds: 60, 3600 or 86400
    Column("link", String(128), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("sender", String(64), primary_key=True),
    Column("writer", BigInteger, primary_key=True),  # epoch of the leader that measured; 0 in hours and days
    Column("samples", BigInteger, nullable=False),
    Column("up", BigInteger, nullable=False),  # samples in which the link was up
    Column("rate_sum", Float, nullable=False),
    Column("rate_least", Float, nullable=False),
    Column("rate_most", Float, nullable=False),
    Column("pool_sum", Float, nullable=False),
    Column("pool_least", Float, nullable=False),
    Column("pool_most", Float, nullable=False),
    Column("latency_most", Float, nullable=False),
    Column("qber_samples", BigInteger, nullable=False),
    Column("qber_sum", Float, nullable=False),
    Column("qber_most", Float, nullable=False),
    Index("ix_measurements_level_start", "level", "start"),
)

EVENT = "event"
SERIAL = "serial"
HOUR = "rolled-hour"
DAY = "rolled-day"
EXPOSED = "exposed"
COUNTERS = {EVENT: 0, SERIAL: 0, HOUR: 0, DAY: 0, EXPOSED: 0}
"""The counters and what they start from."""

LEASE = "leader"
"""The only lease."""
