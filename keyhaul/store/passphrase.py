"""The root key wrapped under a passphrase, for production: scrypt (RFC 7914) and AES-256-GCM.

The header file beside the store holds the parameters, the salt and the wrapped root key, so that changing the
passphrase writes this file anew and leaves the store as it is.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from keyhaul.keys.material import KeyMaterial
from keyhaul.randomness import Source, random_bytes
from keyhaul.store.files import read_private, replace, write_new
from keyhaul.store.interface import StoreUnavailable

SHORTEST_PASSPHRASE = 12
"""Characters of a new passphrase."""

SCRYPT_COST = 2**17
"""N: with r = 8, 128 MiB and about half a second for each try."""

_LARGEST_COST = 2**20
_WRAPPED_ROOT = b"keyhaul store root key v1"

PassphraseSource = Callable[[bool], str]
"""Returns the passphrase; its argument says whether it is a new one (a prompt then asks twice)."""


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """The file beside the store; byte strings are base64."""

    format: int
    n: int
    r: int
    p: int
    salt: bytes
    nonce: bytes
    wrapped: bytes


class PassphraseSealer:
    """Keeps the root key in a header file, wrapped under a key derived from a passphrase."""

    name = "passphrase"

    def __init__(
        self, header: Path, passphrase: PassphraseSource, *, cost: int = SCRYPT_COST, source: Source = random_bytes
    ) -> None:
        self.place = header
        self._passphrase = passphrase
        self._cost = cost
        self._source = source

    def sealed(self) -> bool:
        """Whether the header file exists."""
        return self.place.exists()

    def create(self) -> KeyMaterial:
        """Draw a root key and write the header.

        Raises:
            StoreUnavailable: the header exists or cannot be written, or the passphrase is too short.
        """
        root = KeyMaterial(self._source(32))
        write_new(self.place, self._wrap(root, self._passphrase(True)))
        return root

    def unseal(self) -> KeyMaterial:
        """Unwrap the root key.

        Raises:
            StoreUnavailable: the header is missing or damaged, or the passphrase is wrong.
        """
        if not self.place.exists():
            raise StoreUnavailable(
                f"{self.place} is missing: it holds the store's wrapped key; restore it from its backup, without it "
                "the store cannot be opened"
            )
        try:
            header = msgspec.json.decode(read_private(self.place), type=_Header)
        except msgspec.DecodeError as error:
            raise StoreUnavailable(f"{self.place} is damaged ({error}): restore it from its backup") from error
        if header.format != 1:
            raise StoreUnavailable(f"{self.place} has format {header.format}: install the release that wrote it")
        if not 2 <= header.n <= _LARGEST_COST or header.n & (header.n - 1) or header.r != 8 or header.p != 1:
            raise StoreUnavailable(f"{self.place} has scrypt parameters out of range: restore it from its backup")
        key = _derive(self._passphrase(False), header)
        try:
            return KeyMaterial(AESGCM(key).decrypt(header.nonce, header.wrapped, _authenticated(header)))
        except (InvalidTag, ValueError) as error:
            raise StoreUnavailable(f"the passphrase is wrong (or {self.place} was changed)") from error

    def change(self, new: PassphraseSource) -> None:
        """Wrap the same root key under a new passphrase.

        Raises:
            StoreUnavailable: the present passphrase is wrong or the new one too short.
        """
        root = self.unseal()
        replace(self.place, self._wrap(root, new(True)))
        root.wipe()

    def _wrap(self, root: KeyMaterial, passphrase: str) -> bytes:
        if len(passphrase) < SHORTEST_PASSPHRASE:
            raise StoreUnavailable(f"the passphrase is too short: use at least {SHORTEST_PASSPHRASE} characters")
        header = _Header(1, self._cost, 8, 1, self._source(16), self._source(12), b"")
        key = _derive(passphrase, header)
        header.wrapped = AESGCM(key).encrypt(header.nonce, root.reveal(), _authenticated(header))
        return msgspec.json.encode(header) + b"\n"


def passphrase_source(kind: str, *, file: Path | None, credential: str, what: str) -> PassphraseSource:
    """Where a passphrase comes from: a file, a systemd credential, or whoever sits at the terminal.

    Args:
        kind: ``file``, ``credential`` or ``prompt``.
        file: for ``file``; mode 0600.
        credential: for ``credential``: a name in ``$CREDENTIALS_DIRECTORY``.
        what: named in the prompt.

    Raises:
        StoreUnavailable: what `kind` needs is not given.
    """
    if kind == "file":
        if file is None:
            raise StoreUnavailable("[store] passphrase_file is missing: passphrase_source file needs its path")
        path = file
        return lambda new: _from_file(path)
    if kind == "credential":
        return lambda new: _from_credential(credential)
    return lambda new: _from_prompt(what, new)


def _from_file(path: Path) -> str:
    return _text(read_private(path), str(path))


def _from_credential(name: str) -> str:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise StoreUnavailable(
            f"$CREDENTIALS_DIRECTORY is not set: start the service by systemd with LoadCredential={name}:PATH"
        )
    if "/" in name or name in ("", ".", ".."):
        raise StoreUnavailable(f"[store] passphrase_credential {name!r} is not the name of a credential")
    path = Path(directory) / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreUnavailable(
            f"cannot read the systemd credential {name}: {error.strerror}; add LoadCredential={name}:PATH to the unit"
        ) from error
    return _text(content, f"credential {name}")


def _from_prompt(what: str, new: bool) -> str:
    if not sys.stdin.isatty():
        raise StoreUnavailable(
            "no terminal to ask for the passphrase: set [store] passphrase_source to file or credential"
        )
    first = getpass.getpass(f"{'New passphrase' if new else 'Passphrase'} of {what}: ")
    if new and getpass.getpass("Once more: ") != first:
        raise StoreUnavailable("the two passphrases differ; nothing was done")
    return first


def _text(content: bytes, where: str) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise StoreUnavailable(f"the passphrase in {where} is not UTF-8 text") from error
    return text.removesuffix("\n").removesuffix("\r")


def _derive(passphrase: str, header: _Header) -> bytes:
    return Scrypt(salt=header.salt, length=32, n=header.n, r=header.r, p=header.p).derive(passphrase.encode())


def _authenticated(header: _Header) -> bytes:
    return b"%s|%d|%d|%d|%d|%s" % (_WRAPPED_ROOT, header.format, header.n, header.r, header.p, header.salt)
