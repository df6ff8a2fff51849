"""What the messages of an establishment are authenticated by, and the secrets that come out of it (sans-IO).

Signatures are ML-DSA-65 (FIPS 204) by the pinned link keys, over a fixed prefix, the message's role and its exact
bytes. The session's secrets come from the ML-KEM secret and the link's bootstrap secret by HKDF-SHA-512 (RFC 5869),
with the transcript as salt.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keyhaul.link.pads import BOOTSTRAP_LENGTH

_PREFIX = b"keyhaul link v1\0"
_PROOF_LENGTH = 32


class SessionRefused(Exception):
    """A message of the establishment that does not lead to a session."""


class NotAuthentic(SessionRefused):
    """It was not made by the neighbour for this link and this attempt."""


class Repeated(SessionRefused):
    """It was received before."""


class NoCommonSuite(SessionRefused):
    """The two ends' lists and floors leave no suite that both accept."""


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """Who this end is, and what it knows of the other before any message."""

    link: str
    own: str
    """Service id."""
    peer: str
    key: MLDSA65PrivateKey = field(repr=False)
    peer_key: MLDSA65PublicKey
    bootstrap: bytes = field(repr=False, default=b"")
    """The bootstrap secret, the same at both ends."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What both ends of an attempt derive, and nobody else can."""

    proof: bytes = field(repr=False)
    from_initiator: bytes = field(repr=False)
    """Bootstrap pad of that direction."""
    from_responder: bytes = field(repr=False)


def transcript_of(hello: bytes, reply: bytes) -> bytes:
    """The digest of both bodies, which names the session."""
    return hashlib.sha256(struct.pack(">Q", len(hello)) + hello + reply).digest()


def derive(shared: bytes, bootstrap: bytes, transcript: bytes) -> Secrets:
    """The secrets of an attempt, out of the ML-KEM secret and the bootstrap secret."""
    length = _PROOF_LENGTH + 2 * BOOTSTRAP_LENGTH
    expanded = HKDF(algorithm=SHA512(), length=length, salt=transcript, info=_PREFIX + b"bootstrap").derive(
        struct.pack(">Q", len(shared)) + shared + bootstrap
    )
    first = _PROOF_LENGTH + BOOTSTRAP_LENGTH
    return Secrets(expanded[:_PROOF_LENGTH], expanded[_PROOF_LENGTH:first], expanded[first:])


def _signed_input(role: bytes, content: bytes) -> bytes:
    return _PREFIX + role + b"\0" + content


def sign(end: LinkEnd, role: bytes, content: bytes) -> bytes:
    """Sign a message of a role with this end's link key."""
    return end.key.sign(_signed_input(role, content))


def verify(end: LinkEnd, role: bytes, content: bytes, signature: bytes) -> None:
    """Verify a message of the neighbour.

    Raises:
        NotAuthentic: it did not sign this.
    """
    try:
        end.peer_key.verify(signature, _signed_input(role, content))
    except (InvalidSignature, ValueError) as error:
        raise NotAuthentic("the signature is not the neighbour's") from error
