"""What can be wrong with a database."""

from __future__ import annotations


class DatabaseUnusable(Exception):
    """The database cannot be opened or is not one of this release; the message says what to do."""


class DatabaseUnavailable(Exception):
    """A transaction failed, or its outcome is unknown."""


class OutcomeUnknown(DatabaseUnavailable):
    """A transaction may or may not have been committed, or may not outlive the database's machine."""


class DatabaseBusy(DatabaseUnavailable):
    """Too many transactions wait."""
