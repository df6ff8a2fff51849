"""What Alembic runs."""

from __future__ import annotations

from alembic import context

from tests.keyhaul.database.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
