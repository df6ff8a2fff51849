"""Which nodes keys crossed, and what is exposed because one of them is in quarantine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; what crossed a node before that nobody knows."""
    op.create_table(
        "crossings",
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("target", sa.String(64), nullable=False),
        sa.Column("service_class", sa.String(16), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("source", "target", "service_class", "rank", "node", name="pk_crossings"),
    )
    op.create_index("ix_crossings_node", "crossings", ["node"])
    op.create_index("ix_crossings_until", "crossings", ["until"])
    op.create_table(
        "exposures",
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("target", sa.String(64), nullable=False),
        sa.Column("service_class", sa.String(16), nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "target", "service_class", name="pk_exposures"),
    )
    op.create_index("ix_exposures_target", "exposures", ["target"])
    counters = sa.table("counters", sa.column("name", sa.String), sa.column("value", sa.BigInteger))
    op.bulk_insert(counters, [{"name": "exposed", "value": 0}])
