"""What makes an event the same one when it is told again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of events that were told already it is not known."""
    with op.batch_alter_table("events") as events:
        events.add_column(sa.Column("identity", sa.String(32), nullable=True))
        events.create_unique_constraint("uq_events_identity", ["identity"])
