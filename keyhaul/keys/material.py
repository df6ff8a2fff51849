"""Key material as a type of its own, whose text shows nothing and whose memory can be wiped."""

from __future__ import annotations

import hmac
from typing import NewType, NoReturn
from uuid import UUID

KeyId = UUID
"""The identifier of a KSA key: a random UUIDv4."""

Bits = NewType("Bits", int)
"""A number of bits (ETSI GS QKD 014 counts key sizes in bits)."""


class KeyMaterial:
    """Secret bytes that never appear in text and are overwritten when wiped.

    Python copies bytes freely (base64, JSON, slices), so wiping reduces what stays in memory; it cannot
    promise that nothing does.
    """

    __slots__ = ("_buffer",)

    def __init__(self, secret: bytes | bytearray | memoryview) -> None:
        self._buffer = bytearray(secret)

    def __len__(self) -> int:
        """The length in bytes."""
        return len(self._buffer)

    @property
    def bits(self) -> Bits:
        """The length in bits."""
        return Bits(8 * len(self._buffer))

    def reveal(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return a copy of the secret bytes from `start` to `stop` (byte offsets), for cryptography or a reply."""
        return bytes(self._buffer[start:stop])

    def wipe(self, start: int = 0, stop: int | None = None) -> None:
        """Overwrite the bytes from `start` to `stop` (byte offsets) with zeros, in place."""
        end = len(self._buffer) if stop is None else stop
        self._buffer[start:end] = bytes(end - start)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeyMaterial):
            return NotImplemented
        return hmac.compare_digest(self._buffer, other._buffer)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<KeyMaterial of {8 * len(self._buffer)} bits>"

    __str__ = __repr__

    def __format__(self, specification: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("key material is not pickled")


def xor(left: bytes, right: bytes) -> bytes:
    """Return the bitwise exclusive or of two byte strings of the same length.

    Raises:
        ValueError: the lengths differ.
    """
    if len(left) != len(right):
        raise ValueError(f"cannot combine {len(left)} bytes with {len(right)}")
    return (int.from_bytes(left, "little") ^ int.from_bytes(right, "little")).to_bytes(len(left), "little")
