"""Keys of class split as shares: how they are divided, put together, and called on their way. Pure functions.

Of m shares m - 1 are random and the last is their exclusive or with the key. So any m - 1 of them are random bits that
say nothing of it, whichever they are.

A share travels under a name of its own: half of a SHA-256 over the batch's name and the share's number. The batch's
name is 128 random bits that the two AKMSs tell their own CKMSs, and no node between them. So none of those can relate
two shares to each other by their names, give a share the name of another, or guess one that is awaited.
"""

from __future__ import annotations

import hashlib
from functools import reduce

from keyhaul.keys.material import xor
from keyhaul.randomness import Source

_NAME_PREFIX = b"keyhaul cn share v1\0"


def divide(bits: bytes, shares: int, source: Source) -> list[bytes]:
    """Return shares of some bits, each as long as these, drawn anew at each call.

    Raises:
        ValueError: a single share would be the bits.
    """
    if shares < 2:
        raise ValueError("there are two shares or more")
    drawn = [source(len(bits)) for _ in range(shares - 1)]
    return [*drawn, reduce(xor, drawn, bits)]


def join(shares: list[bytes]) -> bytes:
    """Return the bits whose shares these are: all of them, of one length."""
    return reduce(xor, shares)


def name_of(batch: str, number: int, shares: int) -> str:
    """Return what the share of this number (from 0), of so many, is called: 32 hexadecimal digits.

    Args:
        batch: the batch's name, 32 hexadecimal digits.
        number: of the share, from 0.
        shares: how many there are.
    """
    return hashlib.sha256(_NAME_PREFIX + bytes.fromhex(batch) + bytes((number, shares))).hexdigest()[:32]
