"""Files of configuration as bytes, none greater than it may be."""

from __future__ import annotations

from pathlib import Path

from keyhaul.config.problems import ConfigurationError, Problem


def read_bounded(path: Path, most: int) -> bytes:
    """Return the content of a file of at most so many bytes.

    Raises:
        ConfigurationError: it cannot be read, or is greater.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ConfigurationError(path, [Problem("", "", f"cannot be read: {error.strerror or error}")]) from None
    if len(content) > most:
        raise ConfigurationError(path, [Problem("", "", f"is greater than {most} bytes")])
    return content
