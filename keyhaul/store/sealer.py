"""Where a store's root key comes from. A sealer keeps it outside the store, or wrapped.

A sealer blocks (key derivation, a prompt): call it in a thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from keyhaul.config.services import StoreSection
from keyhaul.keys.material import KeyMaterial
from keyhaul.store.interface import StoreUnavailable
from keyhaul.store.key_file import KeyFileSealer
from keyhaul.store.passphrase import PassphraseSealer, passphrase_source

ROOT_KEY_BYTES = 32


class Sealer(Protocol):
    """Keeps the root key of one store."""

    @property
    def name(self) -> str:
        """As operators know it, e.g. ``key-file``."""
        ...

    @property
    def place(self) -> Path:
        """The file without which the root key is lost."""
        ...

    def sealed(self) -> bool:
        """Whether there is a root key already."""
        ...

    def create(self) -> KeyMaterial:
        """Draw a root key, keep it durably, return it.

        Raises:
            StoreUnavailable: there is one already, or it cannot be kept.
        """
        ...

    def unseal(self) -> KeyMaterial:
        """Return the root key (32 bytes).

        Raises:
            StoreUnavailable: it is missing or cannot be opened; the message says what to do.
        """
        ...


def sealer_of(section: StoreSection, directory: Path) -> Sealer:
    """The sealer that a [store] section asks for; its paths are relative to `directory`.

    Raises:
        StoreUnavailable: the section lacks what its sealer needs.
    """
    if section.sealer == "passphrase":
        return passphrase_sealer(section, directory)
    if section.key_file is None:
        raise StoreUnavailable("[store] key_file is missing: sealer key-file needs the path of the key")
    return KeyFileSealer(directory / section.key_file)


def passphrase_sealer(section: StoreSection, directory: Path) -> PassphraseSealer:
    """The passphrase sealer of a [store] section, whose header lies beside the store.

    Raises:
        StoreUnavailable: the section does not say where the passphrase comes from.
    """
    path = directory / section.path
    source = passphrase_source(
        section.passphrase_source,
        file=None if section.passphrase_file is None else directory / section.passphrase_file,
        credential=section.passphrase_credential,
        what=str(path),
    )
    return PassphraseSealer(path.with_name(path.name + ".seal"), source)
