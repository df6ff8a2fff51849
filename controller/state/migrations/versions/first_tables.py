"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make all tables, the counters' first values and the lease that nobody holds."""
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
    )
    op.create_table(
        "demands",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("target", sa.String(64), nullable=False),
        sa.Column("service_class", sa.String(16), nullable=False),
        sa.Column("rate", sa.BigInteger(), nullable=False),
        sa.Column("terms", sa.JSON(), nullable=False),
        sa.Column("lifetime", sa.Float(), nullable=False),
        sa.Column("admitted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_demands"),
    )
    op.create_index("ix_demands_target", "demands", ["target"])
    op.create_index("ix_demands_source", "demands", ["source"])
    op.create_table(
        "descriptions",
        sa.Column("version", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("applied_at", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_descriptions"),
    )
    op.create_table(
        "events",
        sa.Column("number", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_events"),
    )
    lease = op.create_table(
        "lease",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("address", sa.String(256), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_lease"),
    )
    op.create_table(
        "measurements",
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("link", sa.String(128), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("sender", sa.String(64), nullable=False),
        sa.Column("writer", sa.BigInteger(), nullable=False),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.Column("up", sa.BigInteger(), nullable=False),
        sa.Column("rate_sum", sa.Float(), nullable=False),
        sa.Column("rate_least", sa.Float(), nullable=False),
        sa.Column("rate_most", sa.Float(), nullable=False),
        sa.Column("pool_sum", sa.Float(), nullable=False),
        sa.Column("pool_least", sa.Float(), nullable=False),
        sa.Column("pool_most", sa.Float(), nullable=False),
        sa.Column("latency_most", sa.Float(), nullable=False),
        sa.Column("qber_samples", sa.BigInteger(), nullable=False),
        sa.Column("qber_sum", sa.Float(), nullable=False),
        sa.Column("qber_most", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("level", "link", "start", "sender", "writer", name="pk_measurements"),
    )
    op.create_index("ix_measurements_level_start", "measurements", ["level", "start"])
    op.create_table(
        "quarantines",
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(256), nullable=False),
        sa.PrimaryKeyConstraint("node", name="pk_quarantines"),
    )
    op.create_table(
        "statements",
        sa.Column("serial", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("demand", sa.String(32), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("installed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name="pk_statements"),
    )
    op.create_index("ix_statements_demand", "statements", ["demand"])
    op.create_index("ix_statements_node", "statements", ["node"])
    op.create_table(
        "planned_links",
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("a", sa.String(64), nullable=False),
        sa.Column("b", sa.String(64), nullable=False),
        sa.Column("quantum", sa.Boolean(), nullable=False),
        sa.Column("rate", sa.BigInteger(), nullable=False),
        sa.Column("capacity", sa.BigInteger(), nullable=False),
        sa.Column("km", sa.Float(), nullable=False),
        sa.Column("suites", sa.JSON(), nullable=False),
        sa.Column("risk_groups", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("version", "position", name="pk_planned_links"),
        sa.ForeignKeyConstraint(["version"], ["descriptions.version"], name="fk_planned_links_version_descriptions"),
    )
    op.create_table(
        "planned_nodes",
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("access", sa.Boolean(), nullable=False),
        sa.Column("jurisdiction", sa.String(64), nullable=False),
        sa.Column("place", sa.String(128), nullable=False),
        sa.Column("target", sa.String(256), nullable=False),
        sa.PrimaryKeyConstraint("version", "position", name="pk_planned_nodes"),
        sa.ForeignKeyConstraint(["version"], ["descriptions.version"], name="fk_planned_nodes_version_descriptions"),
    )
    op.create_table(
        "reservations",
        sa.Column("demand", sa.String(32), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("link", sa.String(128), nullable=False),
        sa.Column("sender", sa.String(64), nullable=False),
        sa.Column("rate", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("demand", "rank", "position", name="pk_reservations"),
        sa.ForeignKeyConstraint(["demand"], ["demands.id"], name="fk_reservations_demand_demands"),
    )
    op.create_index("ix_reservations_link", "reservations", ["link"])
    op.bulk_insert(counters, [{"name": name, "value": 0} for name in ("event", "serial", "rolled-hour", "rolled-day")])
    op.bulk_insert(lease, [{"name": "leader", "holder": "", "address": "", "epoch": 0, "beat": 0}])
