"""Rates, bursts and weights of contracts; the request that a grant answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns whose defaults are what held before: no limit, equal shares."""
    op.add_column("contracts", sa.Column("rate", sa.Float(), nullable=False, server_default="0"))
    op.add_column("contracts", sa.Column("burst", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("contracts", sa.Column("weight", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("grants", sa.Column("request", sa.String(32), nullable=True))
    op.create_index("ix_grants_request", "grants", ["request"])
