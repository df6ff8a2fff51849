"""The root key in a plain file, for laboratories and tests: 64 hexadecimal digits, mode 0600."""

from __future__ import annotations

import re
from pathlib import Path

from keyhaul.keys.material import KeyMaterial
from keyhaul.randomness import Source, random_bytes
from keyhaul.store.files import read_private, write_new
from keyhaul.store.interface import StoreUnavailable

_KEY = re.compile(rb"[0-9a-fA-F]{64}")


class KeyFileSealer:
    """Keeps the root key as it is in one file."""

    name = "key-file"

    def __init__(self, path: Path, source: Source = random_bytes) -> None:
        self.place = path
        self._source = source

    def sealed(self) -> bool:
        """Whether the key file exists."""
        return self.place.exists()

    def create(self) -> KeyMaterial:
        """Write a fresh key to the file.

        Raises:
            StoreUnavailable: the file exists or cannot be written.
        """
        root = KeyMaterial(self._source(32))
        try:
            self.place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"cannot make {self.place.parent}: {error.strerror}") from error
        write_new(self.place, root.reveal().hex().encode() + b"\n")
        return root

    def unseal(self) -> KeyMaterial:
        """Read the key.

        Raises:
            StoreUnavailable: the file is missing, open to others, or holds no key.
        """
        if not self.place.exists():
            raise StoreUnavailable(
                f"the store's key file {self.place} is missing: restore it from its backup; without it the store "
                "cannot be opened"
            )
        text = read_private(self.place).strip()
        if not _KEY.fullmatch(text):
            raise StoreUnavailable(f"{self.place} does not hold a store key of 64 hexadecimal digits: restore it")
        return KeyMaterial(bytes.fromhex(text.decode()))
