"""Field encryption: a field opens in its own place only, and no nonce repeats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhaul.keys.material import KeyMaterial
from keyhaul.store.field_cipher import StoreFieldCipher
from keyhaul.store.interface import StoreCorrupt

KEY = KeyMaterial(bytes(range(32)))


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_a_field_opens_again_also_in_a_later_process(plain: bytes, context: bytes) -> None:
    sealed = StoreFieldCipher(KEY).seal(plain, context)
    assert StoreFieldCipher(KEY).open(sealed, context) == plain


@given(st.binary(min_size=1, max_size=64), st.data())
def test_any_changed_bit_is_noticed(plain: bytes, data: st.DataObject) -> None:
    cipher = StoreFieldCipher(KEY)
    sealed = bytearray(cipher.seal(plain, b"context"))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StoreCorrupt):
        cipher.open(bytes(sealed), b"context")


def test_a_field_belongs_to_its_context_and_store() -> None:
    sealed = StoreFieldCipher(KEY).seal(b"key bits", b"key 1")
    with pytest.raises(StoreCorrupt):
        StoreFieldCipher(KEY).open(sealed, b"key 2")
    with pytest.raises(StoreCorrupt):
        StoreFieldCipher(KeyMaterial(bytes(32))).open(sealed, b"key 1")


@given(st.binary(max_size=60))
def test_nonsense_is_refused(sealed: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        StoreFieldCipher(KEY).open(sealed, b"")


def test_no_key_and_nonce_occur_twice() -> None:
    cipher, restarted = StoreFieldCipher(KEY), StoreFieldCipher(KEY)
    heads = [one.seal(b"same", b"")[:25] for one in (cipher, restarted) for _ in range(100)]
    assert len(set(heads)) == 200
