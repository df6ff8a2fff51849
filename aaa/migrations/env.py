"""What Alembic runs: the steps on the connection that `keyhaul.database` gives, in its transaction."""

from __future__ import annotations

from alembic import context

from aaa.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
