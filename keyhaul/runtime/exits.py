"""Exit codes (sysexits.h) and the one line that a known failure deserves instead of a traceback."""

from __future__ import annotations

import errno
from enum import IntEnum

from keyhaul.runtime.interface import StartError


class Exit(IntEnum):
    """How a service process ends."""

    OK = 0
    FAILURE = 1
    """A part of the service failed; the log has it."""
    UNAVAILABLE = 69
    """It cannot start as it is: an address in use, a missing certificate."""
    CANNOT_CREATE = 73
    """A file, directory or socket cannot be made."""
    DAMAGED = 74
    """A store is not what was written."""
    RETRY = 75
    """The store is locked or cannot be opened now."""
    CONFIGURATION = 78
    """The configuration has errors, or the store belongs to a newer release."""


def known_failure(error: BaseException) -> tuple[Exit, str] | None:
    """Return exit code and message of an error whose text is enough for an operator, None for any other.

    Of a group of errors the first known one is told.
    """
    if isinstance(error, BaseExceptionGroup):
        return next((known for inner in error.exceptions if (known := known_failure(inner)) is not None), None)
    store = _store_failure(error)
    if store is not None:
        return store, str(error)
    if isinstance(error, StartError):
        return Exit.UNAVAILABLE, str(error)
    if isinstance(error, OSError):
        return _system_failure(error)
    return None


def _store_failure(error: BaseException) -> Exit | None:
    """Store errors by name: this module does not load the database for a role that has none."""
    names = {kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "keyhaul.store.interface"}
    if "StoreError" not in names:
        return None
    if "StoreTooNew" in names:
        return Exit.CONFIGURATION
    return Exit.DAMAGED if "StoreCorrupt" in names else Exit.RETRY


def _system_failure(error: OSError) -> tuple[Exit, str] | None:
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    match error.errno:
        case errno.EADDRINUSE | errno.EADDRNOTAVAIL:
            return Exit.UNAVAILABLE, f"{what}; is another process serving there? Check the address in the configuration"
        case errno.EACCES | errno.EPERM | errno.ENOENT | errno.EROFS | errno.ENOSPC | errno.ENOTDIR | errno.EISDIR:
            return Exit.CANNOT_CREATE, what
    return None
