"""The steps by which a database becomes that of this release (Alembic); run when the controller starts."""
