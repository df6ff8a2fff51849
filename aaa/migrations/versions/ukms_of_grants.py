"""The UKMS of a grant's master."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of grants that are issued already it is not known."""
    op.add_column("grants", sa.Column("ukms", sa.String(64), nullable=True))
