"""Signed grants: how AAA signs what it promises, and how every AKMS verifies it by itself.

The signature is ML-DSA-65 (FIPS 204) over `SIGNATURE_PREFIX` followed by the grant's exact JSON bytes, so a grant
is passed on as it was received and never encoded anew.
"""

from __future__ import annotations

from math import isfinite

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from keyhaul.transport.messages.aaa import Grant, SignedGrant

SIGNATURE_PREFIX = b"keyhaul grant v1\0"
"""Stands before the signed bytes, so that a signature over anything else is never one over a grant."""

GRANT_VERSION = 1
"""The version of `Grant` that this release writes and reads."""

SPLIT = "split"
"""The class whose CN keys go as shares over paths that meet nowhere; no other path ever carries them."""

SERVICE_CLASSES = frozenset({"gold", "silver", "bronze", SPLIT})

_SIGNED = msgspec.json.Decoder(SignedGrant)
_GRANT = msgspec.json.Decoder(Grant)
_ENCODER = msgspec.json.Encoder()


class InvalidGrant(Exception):
    """A grant that is not AAA's, was changed, or is of an unknown version."""


def sign(grant: Grant, key: MLDSA65PrivateKey) -> SignedGrant:
    """Return the grant's JSON bytes with AAA's signature over them."""
    body = _ENCODER.encode(grant)
    return SignedGrant(grant=body, signature=key.sign(SIGNATURE_PREFIX + body))


def encode(signed: SignedGrant) -> bytes:
    """Return a signed grant as the JSON bytes that `verify` reads and one AKMS passes to another."""
    return _ENCODER.encode(signed)


def verify(signed: SignedGrant | bytes, public_key: MLDSA65PublicKey) -> Grant:
    """Check AAA's signature and return the grant.

    Args:
        signed: a signed grant, or its JSON bytes as they travel in `peer.request`.
        public_key: AAA's pinned grant key.

    Raises:
        InvalidGrant: the bytes are no signed grant, the signature is not of this key, or the grant's version
            or contents are none that this release knows.
    """
    if isinstance(signed, bytes):
        try:
            signed = _SIGNED.decode(signed)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InvalidGrant("not a signed grant") from None
    try:
        public_key.verify(signed.signature, SIGNATURE_PREFIX + signed.grant)
    except InvalidSignature:
        raise InvalidGrant("the grant's signature is not of AAA's grant key") from None
    try:
        grant = _GRANT.decode(signed.grant)
    except msgspec.DecodeError:
        raise InvalidGrant("signed bytes that are not a grant") from None
    if grant.v != GRANT_VERSION:
        raise InvalidGrant(f"a grant of version {grant.v}: this release knows version {GRANT_VERSION}")
    if grant.service_class not in SERVICE_CLASSES:
        raise InvalidGrant("a grant of an unknown service class")
    if not grant.slaves or grant.allowance < 0 or grant.lifetime_s < 0:
        raise InvalidGrant("a grant without slaves, or with a negative allowance or lifetime")
    if not (isfinite(grant.rate) and grant.rate >= 0 and grant.weight >= 1) or (grant.rate and grant.burst < 1):
        raise InvalidGrant("a grant of an impossible rate, burst or weight")
    return grant
