"""The secret that both ends of a link are given once, by hand or by `keyhaul network`: mixed into its first pads."""

from __future__ import annotations

from pathlib import Path

from keyhaul.config.services import LinkSection
from keyhaul.runtime.interface import StartError

MINIMUM_BOOTSTRAP = 32
"""Bytes of a bootstrap secret."""


def bootstrap_secret(section: LinkSection, directory: Path) -> bytes:
    """Return a link's bootstrap secret; empty where its section names none.

    Raises:
        StartError: the file cannot be read, or is none.
    """
    if section.bootstrap is None:
        return b""
    path = directory / section.bootstrap
    try:
        secret = bytes.fromhex(path.read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not hexadecimal"
        raise StartError(f"link {section.id}: bootstrap secret {path}: {reason}") from None
    if len(secret) < MINIMUM_BOOTSTRAP:
        raise StartError(f"link {section.id}: bootstrap secret {path}: fewer than {MINIMUM_BOOTSTRAP} bytes")
    return secret
