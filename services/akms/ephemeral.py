"""The asker's ephemeral ML-KEM-768 keys: one per maker, at most a minute in use, signed once.

A key is offered to new requests for `LIFETIME` seconds and kept after that only while requests that carried it are
open, since their transfers are encapsulated to it. The private half never leaves memory.

Sans-IO: time is an argument.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

LIFETIME = 60.0
"""Seconds for which a key is offered to new requests."""

_PREFIX = b"keyhaul kem key v1\0"


class BadKemKey(Exception):
    """An encapsulation key that is malformed or not signed by the AKMS that sent it."""


@dataclass(slots=True, eq=False)
class EphemeralKey:
    """One encapsulation key offered to one maker."""

    maker: str
    private: MLKEM768PrivateKey = field(repr=False)
    public: bytes
    signature: bytes
    made: float
    users: int = 0
    digest: bytes = b""

    def __post_init__(self) -> None:
        self.digest = key_digest(self.public)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the secret of an encapsulation to this key.

        Raises:
            ValueError: the ciphertext has the wrong length.
        """
        return self.private.decapsulate(ciphertext)


class EphemeralKeys:
    """The keys of one asking AKMS."""

    def __init__(self, own: str, signing_key: MLDSA65PrivateKey) -> None:
        self._own = own
        self._signing_key = signing_key
        self._current: dict[str, EphemeralKey] = {}

    def renew(self, signing_key: MLDSA65PrivateKey) -> None:
        """Sign with another key from now on; what was signed with the former is offered no more."""
        self._signing_key = signing_key
        self._current.clear()

    def borrow(self, maker: str, now: float) -> EphemeralKey:
        """Return the present key for a maker, made and signed where there is none young enough.

        Each borrow is given back with `give_back` when its request is closed.
        """
        key = self._current.get(maker)
        if key is None or now - key.made >= LIFETIME:
            private = MLKEM768PrivateKey.generate()
            public = private.public_key().public_bytes_raw()
            signature = self._signing_key.sign(_signed(self._own, maker, public))
            key = self._current[maker] = EphemeralKey(maker, private, public, signature, now)
        key.users += 1
        return key

    def give_back(self, key: EphemeralKey) -> None:
        """The request that borrowed the key is closed."""
        key.users -= 1

    def expire(self, now: float) -> None:
        """Drop what is too old to be offered and that no request uses."""
        for maker, key in list(self._current.items()):
            if now - key.made >= LIFETIME and not key.users:
                del self._current[maker]


def key_digest(public: bytes) -> bytes:
    """SHA-256 of an encapsulation key, by which a transfer names it."""
    return hashlib.sha256(public).digest()


def verify_kem_key(asker: str, maker: str, public: bytes, signature: bytes, key: MLDSA65PublicKey) -> MLKEM768PublicKey:
    """Check an asker's encapsulation key and return it (FIPS 203 checks of the key included).

    Raises:
        BadKemKey: it is malformed, or not signed by this asker for this maker.
    """
    try:
        key.verify(signature, _signed(asker, maker, public))
        return MLKEM768PublicKey.from_public_bytes(public)
    except (InvalidSignature, ValueError):
        raise BadKemKey("the KEM key is malformed or not signed by the asking AKMS") from None


def _signed(asker: str, maker: str, public: bytes) -> bytes:
    return _PREFIX + msgspec.json.encode([asker, maker]) + public
