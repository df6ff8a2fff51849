"""Keys as shares: all of them together are the key, and fewer say nothing of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhaul.keys.material import xor
from keyhaul.randomness import Source
from services.ckms.shares import divide, join, name_of

BATCH = "0123456789abcdef" * 2


def drawing(*drawn: bytes) -> Source:
    """A source of these bytes, one draw after the other."""
    left = list(drawn)
    return lambda count: left.pop(0) if len(left[0]) == count else b""


@given(st.binary(min_size=1, max_size=200), st.integers(2, 8), st.randoms(use_true_random=False))
def test_all_shares_together_are_the_key_in_any_order(bits: bytes, shares: int, seeded: random.Random) -> None:
    divided = divide(bits, shares, seeded.randbytes)
    assert len(divided) == shares
    assert {len(share) for share in divided} == {len(bits)}
    seeded.shuffle(divided)
    assert join(divided) == bits


@given(st.binary(min_size=1, max_size=64), st.integers(2, 8), st.randoms(use_true_random=False), st.data())
def test_whoever_lacks_one_share_cannot_tell_the_key_from_any_other(
    bits: bytes, shares: int, seeded: random.Random, data: st.DataObject
) -> None:
    """For every other key there is a draw, as likely as this one, that shows exactly the same of all other shares."""
    other = data.draw(st.binary(min_size=len(bits), max_size=len(bits)))
    lacking = data.draw(st.integers(0, shares - 1))
    drawn = [seeded.randbytes(len(bits)) for _ in range(shares - 1)]
    seen = divide(bits, shares, drawing(*drawn))
    if lacking < shares - 1:
        drawn[lacking] = xor(drawn[lacking], xor(bits, other))
    again = divide(other, shares, drawing(*drawn))
    assert [one for number, one in enumerate(again) if number != lacking] == [
        one for number, one in enumerate(seen) if number != lacking
    ]
    assert join(again) == other


@pytest.mark.parametrize("key", [0, 1, 0x0F, 9])
def test_over_all_draws_each_proper_subset_of_shares_is_uniform(key: int) -> None:
    """Exhaustive, of keys of four bits in three shares: every two shares take each pair of values equally often."""

    def of(draws: Iterable[int]) -> list[int]:
        return [share[0] for share in divide(bytes([key]), 3, drawing(*(bytes([one]) for one in draws)))]

    all_draws = [of(draws) for draws in product(range(16), repeat=2)]
    for size in (1, 2):
        for subset in combinations(range(3), size):
            counts = Counter(tuple(shares[number] for number in subset) for shares in all_draws)
            assert len(counts) == 16**size
            assert len(set(counts.values())) == 1


def test_shares_are_drawn_anew_each_time() -> None:
    seeded = random.Random(1)
    first, second = (divide(bytes(32), 2, seeded.randbytes) for _ in range(2))
    assert not set(first) & set(second)


def test_one_share_would_be_the_key_itself() -> None:
    with pytest.raises(ValueError, match="two shares"):
        divide(b"key", 1, bytes)


def test_names_of_shares_are_all_different_and_tell_nothing_of_the_batchs() -> None:
    names = [name_of(BATCH, number, shares) for shares in range(2, 9) for number in range(shares)]
    assert len(set(names)) == len(names) == 35
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in names)
    assert BATCH not in names
    assert name_of(BATCH, 0, 2) == "38e7c40fad182896de682784ad8ccc52"
    assert name_of(BATCH[:-1] + "0", 0, 2) not in names
