"""`aes-256-gcm`: 32 bytes of pad are the key of many messages; the sequence number is the nonce.

A key belongs to one session, direction, stream and realm, is never stored, and is replaced after a number of
messages, bytes or seconds (NIST SP 800-38D section 8.2.1: nonces from a counter).
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

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

KEY_LENGTH = 32
"""Bytes of pad that one key takes."""

KNOWN_KEYS = 8
"""Keys that a receiver remembers, so that late messages of replaced keys still open."""

_NONCE_LENGTH = 12


@dataclass(slots=True)
class _OwnKey:
    offset: int
    cipher: AESGCM
    made_at: float
    messages: int = 0
    bytes: int = 0


class Aes256Gcm(Protection):
    """AES-256-GCM with rotated keys: 32 bytes of pad a key."""

    name = "aes-256-gcm"
    strength = 100

    def __init__(self, rotation: Rotation) -> None:
        super().__init__(rotation)
        self._own: dict[tuple[Realm, Stream], _OwnKey] = {}
        self._known: dict[tuple[Stream, int], AESGCM] = {}

    def needs(self, realm: Realm, stream: Stream, length: int, now: float) -> Need:
        """Nothing while the present key serves, else 32 bytes."""
        return Need() if self._serving(realm, stream, length, now) else Need.in_stream(stream, KEY_LENGTH)

    def prepare(self, pads: PadSource, stream: Stream, length: int, now: float) -> Ticket:
        """Count the message on the present key; take a new key where that one is worn out."""
        key = self._serving(pads.realm, stream, length, now)
        if key is None:
            offset, bits = pads.take(stream, KEY_LENGTH)
            key = self._own[pads.realm, stream] = _OwnKey(offset, AESGCM(bits), now)
        key.messages += 1
        key.bytes += length
        return Ticket(key.offset, 0, (stream, key.offset), key.cipher)

    def seal(
        self, ticket: Ticket, sequence: int, header: bytes, clear: bytes, associated: bytes, secret: bytes
    ) -> tuple[bytes, bytes]:
        """Encrypt and authenticate in one."""
        cipher: AESGCM = ticket.secret
        ticket.secret = None
        sealed = cipher.encrypt(sequence.to_bytes(_NONCE_LENGTH), secret, frame(header, clear, associated))
        return sealed[:-TAG_LENGTH], sealed[-TAG_LENGTH:]

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
        """Verify and decrypt; mark a key seen for the first time as used pad."""
        place = (head.stream, head.offset)
        cipher = self._known.get(place)
        new = cipher is None
        if cipher is None:
            cipher = AESGCM(pads.read(head.stream, head.offset, KEY_LENGTH))
        if len(tag) != TAG_LENGTH:
            raise AuthenticationFailed("the tag has the wrong length")
        try:
            secret = cipher.decrypt(
                head.sequence.to_bytes(_NONCE_LENGTH), ciphertext + tag, frame(header, clear, associated)
            )
        except (InvalidTag, OverflowError):
            raise AuthenticationFailed("the tag does not belong to this message") from None
        if new:
            pads.use(head.stream, head.offset, KEY_LENGTH)
            if len(self._known) >= KNOWN_KEYS:
                del self._known[next(iter(self._known))]
            self._known[place] = cipher
        return secret

    def _serving(self, realm: Realm, stream: Stream, length: int, now: float) -> _OwnKey | None:
        key = self._own.get((realm, stream))
        limits = self.rotation
        if (
            key is None
            or key.messages >= limits.messages
            or (key.bytes and key.bytes + length > limits.bytes)
            or now - key.made_at >= limits.seconds
        ):
            return None
        return key
