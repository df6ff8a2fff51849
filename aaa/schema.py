"""The tables of AAA: the directory, what was promised, what was used, what ended.

Portable types only; the migrations in `aaa/migrations` make the same tables, and a test compares the two. Times are
whole seconds since 1970 by AAA's own clock, sizes are bits.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
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

customers = Table(
    "customers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(256), nullable=False),
)

contracts = Table(
    "contracts",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("customer", ForeignKey("customers.id"), nullable=False, index=True),
    Column("service_class", String(16), nullable=False),
    Column("loopback", Boolean, nullable=False),
    Column("sizes", JSON, nullable=False),
    Column("default_size", Integer, nullable=False),
    Column("minimum_size", Integer, nullable=False),
    Column("maximum_size", Integer, nullable=False),
    Column("maximum_keys_per_request", Integer, nullable=False),
    Column("quota", BigInteger, nullable=False),  # keys a day (UTC); 0: no limit
    Column("rate", Float, nullable=False, server_default="0"),  # keys a second at each access node; 0: no limit
    Column("burst", Integer, nullable=False, server_default="0"),  # keys at once
    Column("weight", Integer, nullable=False, server_default="1"),  # share beside other contracts
)

sites = Table(
    "sites",
    metadata,
    Column("ukms", String(64), primary_key=True),
    Column("akms", String(64), nullable=False, index=True),
    Column("kme", String(64), nullable=False, unique=True),
    Column("customer", ForeignKey("customers.id"), nullable=True),  # none: the operator's
)

saes = Table(
    "saes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("contract", ForeignKey("contracts.id"), nullable=False, index=True),
    Column("site", ForeignKey("sites.ukms"), nullable=False, index=True),
)

pairs = Table(
    "pairs",
    metadata,
    Column("master", ForeignKey("saes.id"), primary_key=True),
    Column("slave", ForeignKey("saes.id"), primary_key=True, index=True),
)

communities = Table(
    "communities",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("customer", ForeignKey("customers.id"), nullable=False),
)

members = Table(
    "members",
    metadata,
    Column("community", ForeignKey("communities.id"), primary_key=True),
    Column("sae", ForeignKey("saes.id"), primary_key=True, index=True),
)

denials = Table(
    # Rights that an operator took away by hand; imports leave them alone. Slave "": all of the master's rights.
    "denials",
    metadata,
    Column("master", String(64), primary_key=True),
    Column("slave", String(64), primary_key=True),
)

grants = Table(
    "grants",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("master", String(64), nullable=False, index=True),
    Column("slaves", JSON, nullable=False),
    Column("akms", String(64), nullable=False),
    Column("contract", String(128), nullable=False, index=True),
    Column("allowance", BigInteger, nullable=False),
    Column("delivered", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("issued_at", BigInteger, nullable=False, index=True),
    Column("revoked", Boolean, nullable=False),
    Column("request", String(32), nullable=True, index=True),  # the AKMS's name for its request, where it gave one
    Column("ukms", String(64), nullable=True),  # the master's; none where the release before issued it
)

usage = Table(
    "usage",
    metadata,
    Column("batch", String(32), primary_key=True),
    Column("grant_id", ForeignKey("grants.id"), nullable=False, index=True),
    Column("akms", String(64), nullable=False),
    Column("size", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("released_at", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False, index=True),
)

usage_keys = Table(
    "usage_keys",
    metadata,
    Column("key_id", Uuid, primary_key=True),
    Column("batch", ForeignKey("usage.batch"), nullable=False, index=True),
    Column("state", String(16), nullable=False),  # delivered, expired (delivered but never fetched), void
)

usage_days = Table(
    "usage_days",
    metadata,
    Column("contract", String(128), primary_key=True),
    Column("day", Integer, primary_key=True),  # days since 1970-01-01 UTC
    Column("customer", String(64), nullable=False),
    Column("delivered", BigInteger, nullable=False),
    Column("expired", BigInteger, nullable=False),
)

revocations = Table(
    "revocations",
    metadata,
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("master", String(64), nullable=False),
    Column("slaves", JSON, nullable=False),
    Column("grants", JSON, nullable=False),
    Column("akmss", JSON, nullable=False),  # whom it concerns
    Column("ended_at", BigInteger, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

EPOCH = "epoch"
EPOCH_ELAPSED = "epoch-elapsed-ms"
REVOCATION = "revocation"
COUNTERS = {EPOCH: 1, EPOCH_ELAPSED: 0, REVOCATION: 0}
"""The counters and what they start from."""
