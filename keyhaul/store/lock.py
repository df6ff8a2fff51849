"""One process per store: a lock file beside it, held as long as the store is open."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from keyhaul.store.interface import StoreUnavailable


class StoreLock:
    """An exclusive lock that the kernel releases when its holder dies.

    It is on a file of its own: SQLite's locks on the database would be dropped when another descriptor of that
    file is closed.
    """

    def __init__(self, store: Path) -> None:
        """Take the lock.

        Raises:
            StoreUnavailable: another process holds it, or the lock file cannot be made.
        """
        path = store.with_name(store.name + ".lock")
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"cannot make {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise StoreUnavailable(
                f"the store {store} is open in another process{f' (pid {holder})' if holder else ''}: stop that one "
                "first; one process serves a store"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let the next process open the store."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
