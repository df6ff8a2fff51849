"""Protecting KSA keys between two AKMSs by CN bits and an ML-KEM secret together.

Whoever misses either learns nothing: in `otp` the CN bits are a one-time pad and a one-time MAC key
(information-theoretic) over which a stream from the ML-KEM secret lies; in `aead` both go into one key derivation
(NIST SP 800-56C two-step, hybrid form). The context that both ends build by themselves binds suite, request, batch,
both AKMSs, KEM key and ciphertext, key IDs, size, CN ranges and direction.

Sans-IO: bits, secrets and keys are arguments.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.poly1305 import Poly1305

from keyhaul.keys.material import xor
from keyhaul.transport.messages.peer import CnRange, Transfer

CN_KEY_BYTES = 32
"""CN bytes that key the MAC of `otp`, or are the CN part of the key of `aead`."""

TAG_BYTES = 16
DIRECTION = "maker-to-asker"
_SIGNATURE_PREFIX = b"keyhaul transfer v1\0"
_STREAM_PREFIX = b"keyhaul otp stream v1\0"
_AEAD_PREFIX = b"keyhaul aead key v1\0"
_EXPAND_BYTES = 255 * 64
_ZERO_NONCE = bytes(12)


class CombinationSuite(StrEnum):
    """How KSA keys travel between two AKMSs."""

    OTP = "otp"
    AEAD = "aead"

    @classmethod
    def of_class(cls, service_class: str) -> CombinationSuite:
        """The suite that a service class has: gold is information-theoretic in the CN key."""
        return cls.OTP if service_class == "gold" else cls.AEAD

    def cn_bytes(self, key_bytes: int) -> int:
        """CN bytes that a batch of so many bytes of KSA keys uses."""
        return key_bytes + CN_KEY_BYTES if self is CombinationSuite.OTP else CN_KEY_BYTES


class NotAuthentic(Exception):
    """A transfer whose tag or signature is not right: changed on its way, or protected with other CN bits."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What both ends bind into the protection; encoded as JSON in the order of these fields."""

    suite: CombinationSuite
    request: str
    batch: str
    maker: str
    asker: str
    kem_key_digest: bytes
    kem_ciphertext_digest: bytes
    key_ids: list[UUID]
    size: int
    cn: list[CnRange]
    direction: str = DIRECTION

    def encode(self) -> bytes:
        """The exact bytes that are bound in."""
        return msgspec.json.encode(self)

    @property
    def key_bytes(self) -> int:
        """Bytes of all keys together."""
        return len(self.key_ids) * self.size // 8


@dataclass(frozen=True, slots=True)
class Protected:
    """Keys as they travel."""

    cipher: bytes
    tag: bytes


def context_of(transfer: Transfer, maker: str, asker: str) -> Context:
    """Build the context of a transfer from its fields and the verified ids of its two ends.

    Raises:
        ValueError: the transfer names an unknown suite.
    """
    return Context(
        suite=CombinationSuite(transfer.suite),
        request=transfer.request,
        batch=transfer.batch,
        maker=maker,
        asker=asker,
        kem_key_digest=transfer.kem_key_digest,
        kem_ciphertext_digest=hashlib.sha256(transfer.kem_ciphertext).digest(),
        key_ids=transfer.key_ids,
        size=transfer.size,
        cn=transfer.cn,
    )


def protect(context: Context, keys: bytes, cn: bytes, kem_secret: bytes) -> Protected:
    """Encrypt keys, one after the other, under CN bytes and an ML-KEM secret that serve this once.

    Args:
        context: what is bound in.
        keys: `context.key_bytes` bytes.
        cn: exactly `suite.cn_bytes` bytes that were never used before.
        kem_secret: the secret of a fresh encapsulation.

    Raises:
        ValueError: a length is wrong.
    """
    _check_lengths(context, len(keys), len(cn))
    bound = context.encode()
    if context.suite is CombinationSuite.OTP:
        pad, mac_key = cn[: len(keys)], cn[len(keys) :]
        cipher = xor(xor(keys, pad), _stream(kem_secret, bound, len(keys)))
        return Protected(cipher, Poly1305.generate_tag(mac_key, _authenticated(bound, cipher)))
    sealed = AESGCM(_aead_key(cn, kem_secret, bound)).encrypt(_ZERO_NONCE, keys, bound)
    return Protected(sealed[:-TAG_BYTES], sealed[-TAG_BYTES:])


def open_protected(context: Context, protected: Protected, cn: bytes, kem_secret: bytes) -> bytes:
    """Return the keys of a transfer, one after the other.

    Raises:
        NotAuthentic: the tag is wrong; nothing is returned of what was encrypted.
        ValueError: a length is wrong.
    """
    _check_lengths(context, len(protected.cipher), len(cn))
    bound = context.encode()
    if context.suite is CombinationSuite.OTP:
        pad, mac_key = cn[: len(protected.cipher)], cn[len(protected.cipher) :]
        expected = Poly1305.generate_tag(mac_key, _authenticated(bound, protected.cipher))
        if not hmac.compare_digest(expected, protected.tag):
            raise NotAuthentic("the one-time MAC of the transfer is wrong")
        return xor(xor(protected.cipher, pad), _stream(kem_secret, bound, len(pad)))
    try:
        return AESGCM(_aead_key(cn, kem_secret, bound)).decrypt(_ZERO_NONCE, protected.cipher + protected.tag, bound)
    except InvalidTag:
        raise NotAuthentic("the tag of the transfer is wrong") from None


def sign(context: Context, protected: Protected, key: MLDSA65PrivateKey) -> bytes:
    """Sign a protected batch with the maker's certificate key (ML-DSA-65, FIPS 204)."""
    return key.sign(_signed(context, protected))


def verify(context: Context, protected: Protected, signature: bytes, key: MLDSA65PublicKey) -> None:
    """Check the maker's signature with the public key of its verified certificate.

    Raises:
        NotAuthentic: it is not the maker's signature over these fields.
    """
    try:
        key.verify(signature, _signed(context, protected))
    except InvalidSignature:
        raise NotAuthentic("the transfer is not signed by its maker") from None


def _signed(context: Context, protected: Protected) -> bytes:
    return _SIGNATURE_PREFIX + _authenticated(
        context.encode(), hashlib.sha512(protected.cipher).digest() + protected.tag
    )


def _authenticated(bound: bytes, rest: bytes) -> bytes:
    return len(bound).to_bytes(8, "big") + bound + rest


def _stream(kem_secret: bytes, bound: bytes, length: int) -> bytes:
    """HKDF-Expand of the ML-KEM secret in numbered pieces, as one expansion ends at 255 blocks (RFC 5869)."""
    digest = hashlib.sha256(bound).digest()
    pieces = []
    for number, start in enumerate(range(0, length, _EXPAND_BYTES)):
        information = _STREAM_PREFIX + number.to_bytes(4, "big") + digest
        pieces.append(HKDFExpand(SHA512(), min(_EXPAND_BYTES, length - start), information).derive(kem_secret))
    return b"".join(pieces)


def _aead_key(cn: bytes, kem_secret: bytes, bound: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=_AEAD_PREFIX + bound).derive(cn + kem_secret)


def _check_lengths(context: Context, keys: int, cn: int) -> None:
    if keys != context.key_bytes or cn != context.suite.cn_bytes(keys):
        raise ValueError(
            f"{len(context.key_ids)} keys of {context.size} bits do not fit {keys} bytes and {cn} CN bytes"
        )
