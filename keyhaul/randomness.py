"""The one source of random bits: the operating system's generator.

Every key bit, key ID, nonce, label and identifier is drawn here and nowhere else. The functions are passed
to protocol logic as arguments (type `Source`), so that a test can put a seeded source in their place.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable

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
    drawn = source(16 * count)
    return [uuid.UUID(bytes=drawn[start : start + 16], version=4) for start in range(0, len(drawn), 16)]


def identifier(source: Source = random_bytes) -> str:
    """Return a random 128-bit identifier as 32 hexadecimal digits."""
    return source(16).hex()


def label(source: Source = random_bytes) -> str:
    """Return a random 64-bit path label or reference as 16 hexadecimal digits."""
    return source(8).hex()
