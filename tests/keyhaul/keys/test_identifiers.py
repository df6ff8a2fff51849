"""Key IDs come back from their bytes as what they were."""

from __future__ import annotations

import pickle
import random
import uuid

import pytest

from keyhaul.keys.identifiers import pack, unpack
from keyhaul.randomness import key_id, key_ids


@pytest.mark.parametrize("number", [0, 1, 2, 255, 1024, 70_000])
def test_packed_key_ids_come_back(number: int) -> None:
    drawn = random.Random(number).randbytes(16 * number)
    ids = unpack(drawn)
    assert pack(ids) == drawn
    assert ids == [uuid.UUID(bytes=drawn[start : start + 16]) for start in range(0, len(drawn), 16)]


def test_what_comes_back_is_a_whole_uuid() -> None:
    plain = uuid.UUID("01234567-89ab-4def-8123-456789abcdef")
    (found,) = unpack(plain.bytes)
    assert type(found) is uuid.UUID
    assert (str(found), hash(found), found.is_safe) == (str(plain), hash(plain), plain.is_safe)
    assert pickle.loads(pickle.dumps(found)) == plain


@pytest.mark.parametrize("length", [1, 15, 17])
def test_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="whole number"):
        unpack(bytes(length))


def test_many_key_ids_are_drawn_as_one_is() -> None:
    many = key_ids(300, random.Random(5).randbytes)
    drawn = random.Random(5).randbytes(16 * 300)
    assert many == [key_id(lambda n, at=at: drawn[at : at + n]) for at in range(0, len(drawn), 16)]  # type: ignore[misc]
    assert {(one.version, one.variant) for one in many} == {(4, uuid.RFC_4122)}
    assert key_ids(0) == []
