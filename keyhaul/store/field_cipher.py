"""Encryption of single fields: what protects keys in the database's page cache and in a copied store.

AES-256-GCM. Every process draws a random 128-bit salt, derives its own key from the store's field key and counts
nonces under it, so that no (key, nonce) occurs twice however often a store is restored or copied.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keyhaul.keys.material import KeyMaterial
from keyhaul.randomness import Source, random_bytes
from keyhaul.store.interface import StoreCorrupt

_FORMAT = 1
_SALT = 16
_COUNTER = 8
_TAG = 16
_HEADER = 1 + _SALT + _COUNTER


class StoreFieldCipher:
    """Seals fields as format (1 byte), salt (16), nonce counter (8), ciphertext and tag (16)."""

    def __init__(self, field_key: KeyMaterial, source: Source = random_bytes) -> None:
        self._field_key = field_key
        self._salt = source(_SALT)
        self._own = self._cipher(self._salt)
        self._counter = itertools.count()
        self._of_salt = lru_cache(maxsize=64)(self._cipher)

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Return the sealed field; `context` is authenticated with it. Safe to call from several threads."""
        count = next(self._counter).to_bytes(_COUNTER, "big")
        header = bytes((_FORMAT,)) + self._salt + count
        return header + self._own.encrypt(count.rjust(12, b"\0"), plain, header + context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Return the plain bytes.

        Raises:
            StoreCorrupt: the field was changed, or belongs to another context or store.
        """
        if len(sealed) < _HEADER + _TAG or sealed[0] != _FORMAT:
            raise StoreCorrupt("a sealed field has no known form")
        header = sealed[:_HEADER]
        cipher = self._of_salt(header[1 : 1 + _SALT])
        try:
            return cipher.decrypt(header[1 + _SALT :].rjust(12, b"\0"), sealed[_HEADER:], header + context)
        except InvalidTag:
            raise StoreCorrupt("a sealed field was changed, or belongs to another place or store") from None

    def _cipher(self, salt: bytes) -> AESGCM:
        derivation = HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"keyhaul store field key v1")
        return AESGCM(derivation.derive(self._field_key.reveal()))
