"""`otp`: one-time pad, and a one-time MAC after Carter and Wegman; both information-theoretic.

The tag is Poly1305 (RFC 8439 section 2.5) of the framed message with r the direction's hash key and s 16 fresh bytes
of pad. Poly1305 clamps r to 106 bits; s, added modulo 2^128 and never used twice, hides the polynomial's value. So
forging one message of n bytes succeeds with a probability of at most 8 * (n / 16 + 1) / 2^106 an attempt, whatever
the forger can compute.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

from keyhaul.keys.material import xor
from keyhaul.link.protection.interface import (
    TAG_LENGTH,
    AuthenticationFailed,
    Need,
    PadArchive,
    PadSource,
    Protection,
    Realm,
    Rotation,
    Ticket,
    frame,
)
from keyhaul.transport.messages.link import SealedHeader, Stream

HASH_KEY_LENGTH = 16
"""Bytes of control pad that a direction's hash key takes, once a session and realm."""

KNOWN_HASH_KEYS = 4
"""Hash keys that a receiver remembers; a sender has one of each realm."""


class OneTimePad(Protection):
    """XOR with pad, and a one-time MAC: len(secret) + 16 bytes of pad a message."""

    name = "otp"
    strength = 200

    def __init__(self, rotation: Rotation) -> None:
        super().__init__(rotation)
        self._own: dict[Realm, tuple[int, bytes]] = {}
        self._known: dict[int, bytes] = {}

    def needs(self, realm: Realm, stream: Stream, length: int, now: float) -> Need:
        """The secret's length, 16 for the tag, and the hash key where there is none yet."""
        return Need.in_stream(stream, length + TAG_LENGTH, control=0 if realm in self._own else HASH_KEY_LENGTH)

    def prepare(self, pads: PadSource, stream: Stream, length: int, now: float) -> Ticket:
        """Take the message's pad, and the hash key first where there is none yet."""
        if pads.realm not in self._own:
            self._own[pads.realm] = pads.take(Stream.CONTROL, HASH_KEY_LENGTH)
        key, hash_key = self._own[pads.realm]
        offset, pad = pads.take(stream, length + TAG_LENGTH)
        return Ticket(offset, key, (Stream.CONTROL, key), (hash_key, pad))

    def seal(
        self, ticket: Ticket, sequence: int, header: bytes, clear: bytes, associated: bytes, secret: bytes
    ) -> tuple[bytes, bytes]:
        """Encrypt, then authenticate the ciphertext with the rest."""
        hash_key, pad = ticket.secret
        ticket.secret = None
        length = len(secret)
        ciphertext = xor(secret, pad[:length]) if length else b""
        return ciphertext, Poly1305.generate_tag(hash_key + pad[length:], frame(header, clear, associated, ciphertext))

    def open(
        self,
        pads: PadArchive,
        head: SealedHeader,
        header: bytes,
        clear: bytes,
        associated: bytes,
        ciphertext: bytes,
        tag: bytes,
    ) -> bytes:
        """Verify, mark the pad and a hash key seen for the first time, decrypt."""
        if (head.key < 0) != (head.offset < 0):
            raise AuthenticationFailed("the hash key and the pad are of different realms")
        hash_key = self._known.get(head.key)
        new = hash_key is None
        if hash_key is None:
            hash_key = pads.read(Stream.CONTROL, head.key, HASH_KEY_LENGTH)
        length = len(ciphertext)
        pad = pads.read(head.stream, head.offset, length + TAG_LENGTH)
        try:
            Poly1305.verify_tag(hash_key + pad[length:], frame(header, clear, associated, ciphertext), tag)
        except InvalidSignature:
            raise AuthenticationFailed("the tag does not belong to this message") from None
        pads.use(head.stream, head.offset, length + TAG_LENGTH)
        if new:
            pads.use(Stream.CONTROL, head.key, HASH_KEY_LENGTH)
            if len(self._known) >= KNOWN_HASH_KEYS:
                del self._known[next(iter(self._known))]
            self._known[head.key] = hash_key
        return xor(ciphertext, pad[:length]) if length else b""
