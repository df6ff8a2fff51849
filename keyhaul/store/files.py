"""Secret files beside a store: written whole or not at all, readable by their owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from keyhaul.store.interface import StoreUnavailable

LARGEST_SECRET_FILE = 65_536
"""Bytes; a longer file is not a key, a passphrase or a header."""


def write_new(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 durably under a name that must be free.

    Raises:
        StoreUnavailable: the file exists or cannot be written.
    """
    _write(path, content, replace=False)


def replace(path: Path, content: bytes) -> None:
    """Put a file of mode 0600 durably in the place of the one of that name, in one step.

    Raises:
        StoreUnavailable: it cannot be written; the old file stays.
    """
    _write(path, content, replace=True)


def read_private(path: Path) -> bytes:
    """Read a file that nobody but its owner may read.

    Raises:
        StoreUnavailable: it is missing, too long, or open to others; the message says what to do.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & 0o077:
                mode = stat.S_IMODE(status.st_mode)
                raise StoreUnavailable(f"{path} has mode {mode:04o}: others may read it; chmod 600 {path}")
            if status.st_uid not in (0, os.geteuid()):
                raise StoreUnavailable(f"{path} belongs to user {status.st_uid}: chown it to the user of this service")
            content = file.read(LARGEST_SECRET_FILE + 1)
    except OSError as error:
        raise StoreUnavailable(f"cannot read {path}: {error.strerror}") from error
    if len(content) > LARGEST_SECRET_FILE:
        raise StoreUnavailable(f"{path} is longer than {LARGEST_SECRET_FILE} bytes: not a secret file of a store")
    return content


def synchronise_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes, *, replace: bool) -> None:
    draft = path.with_name(path.name + ".new")
    try:
        if not replace and path.exists():
            raise StoreUnavailable(f"{path} exists already and is not overwritten")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            os.link(draft, path)
            draft.unlink()
        synchronise_directory(path.parent)
    except OSError as error:
        raise StoreUnavailable(f"cannot write {path}: {error.strerror}") from error
