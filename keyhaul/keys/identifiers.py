"""Key IDs as bytes: 16 each, one after the other, as stores keep them and randomness comes."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from keyhaul.keys.material import KeyId

LENGTH = 16
"""Bytes of a key ID."""

_DECODER = msgspec.msgpack.Decoder(list[KeyId])


def pack(key_ids: Iterable[KeyId]) -> bytes:
    """Key IDs as their bytes."""
    return b"".join([key_id.bytes for key_id in key_ids])


def unpack(packed: bytes) -> list[KeyId]:
    """Key IDs back from their bytes.

    Raises:
        ValueError: not a whole number of key IDs.
    """
    number, rest = divmod(len(packed), LENGTH)
    if rest:
        raise ValueError("not a whole number of key IDs")
    # As MessagePack (array 32 of bin 8), whose decoder makes a UUID many times faster than its constructor does.
    parts = [b"\xc4\x10" + packed[start : start + LENGTH] for start in range(0, len(packed), LENGTH)]
    return _DECODER.decode(b"\xdd" + number.to_bytes(4) + b"".join(parts))
