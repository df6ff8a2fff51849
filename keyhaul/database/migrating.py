"""A database is brought to this release's tables, or left alone with a message that says what to do."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, text

from keyhaul.database.errors import DatabaseUnusable

_LOCK = 0x6B657968_61756C00
"""PostgreSQL's advisory lock that processes hold while they upgrade, so that only one does."""


def upgrade(engine: Engine, migrations: Path, shown: str) -> None:
    """Run the steps that the database lacks, in one transaction.

    Args:
        engine: of the database.
        migrations: Alembic's folder.
        shown: the database's URL without its password.

    Raises:
        DatabaseUnusable: a newer release wrote it, or a step fails.
    """
    if engine.dialect.name == "postgresql":
        # READ COMMITTED: who waited for the lock must see what its holder did.
        engine = engine.execution_options(isolation_level="READ COMMITTED")
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _run(connection, migrations, shown)


def _run(connection: Connection, migrations: Path, shown: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    present = MigrationContext.configure(connection).get_current_heads()
    known = {script.revision for script in scripts.walk_revisions()}
    if unknown := [revision for revision in present if revision not in known]:
        raise DatabaseUnusable(
            f"{shown} was written by a newer release (revision {', '.join(unknown)}; this one knows up to"
            f" {', '.join(scripts.get_heads())}): install that release, or restore a backup of this one's database"
        )
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise DatabaseUnusable(f"{shown} cannot be brought to this release's tables: {error}") from None
