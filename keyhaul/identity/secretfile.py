"""Files of private keys and other secrets: readable by their owner alone from the first byte, replaced in one step."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from keyhaul.identity.errors import IdentityError, UnsafePermissions
from keyhaul.randomness import label


def write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write or replace a file of mode 0600: a reader sees the old content or the new, never a part.

    Args:
        path: the file; its directory must exist.
        content: all of it.
        durable: whether it has to survive a power cut once this returns.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{label()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    if durable:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def read(path: Path) -> bytes:
    """Return the content of a private file.

    Raises:
        UnsafePermissions: its group or others have any right to it.
        IdentityError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise UnsafePermissions(
                    f"{path} has mode {mode:04o}: others than its owner can get at it. Run: chmod 600 {path}"
                )
            return file.read()
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror or error}") from None
