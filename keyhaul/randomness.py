"""The one source of random bits: the operating system's generator.

Every key bit, key ID, nonce, label and identifier is drawn here and nowhere else. The functions are passed
to protocol logic as arguments (type `Source`), so that a test can put a seeded source in their place.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable

from keyhaul.keys.identifiers import LENGTH, unpack

_VERSION = bytes(octet & 0x0F | 0x40 for octet in range(256))
_VARIANT = bytes(octet & 0x3F | 0x80 for octet in range(256))

Source = Callable[[int], bytes]
"""Takes a number of bytes and returns that many random ones."""


def random_bytes(count: int) -> bytes:
    """Return `count` random bytes from the operating system's generator."""
    return os.urandom(count)


def key_id(source: Source = random_bytes) -> uuid.UUID:
    """Return a random UUIDv4 (RFC 9562 section 5.4), unrelated to any other identifier."""
    return uuid.UUID(bytes=source(16), version=4)


def key_ids(count: int, source: Source = random_bytes) -> list[uuid.UUID]:
    """Return that many random UUIDv4, as `key_id`, from one draw."""
    drawn = bytearray(source(LENGTH * count))
    drawn[6::LENGTH] = drawn[6::LENGTH].translate(_VERSION)
    drawn[8::LENGTH] = drawn[8::LENGTH].translate(_VARIANT)
    return unpack(bytes(drawn))


def identifier(source: Source = random_bytes) -> str:
    """Return a random 128-bit identifier as 32 hexadecimal digits."""
    return source(16).hex()


def label(source: Source = random_bytes) -> str:
    """Return a random 64-bit path label or reference as 16 hexadecimal digits."""
    return source(8).hex()


def fraction(source: Source = random_bytes) -> float:
    """Return a random number, uniform from 0 (included) to 1 (excluded)."""
    return (int.from_bytes(source(7)) >> 3) / 2.0**53
