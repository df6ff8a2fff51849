"""KSA keys under CN bits and an ML-KEM secret: what one end protects the other opens, and no change passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.transport.messages.peer import CnRange
from services.akms.combination import (
    CombinationSuite,
    Context,
    NotAuthentic,
    Protected,
    open_protected,
    protect,
    sign,
    verify,
)

SECRET = bytes(range(32))


def cn_for(suite: CombinationSuite) -> bytes:
    return bytes((7 * index + 3) % 256 for index in range(suite.cn_bytes(64)))


SUITES = list(CombinationSuite)


def context_for(suite: CombinationSuite, number: int = 2, size: int = 256) -> Context:
    return Context(
        suite=suite,
        request="1" * 32,
        batch="2" * 32,
        maker="akms-2",
        asker="akms-1",
        kem_key_digest=b"k" * 32,
        kem_ciphertext_digest=b"c" * 32,
        key_ids=[uuid4() for _ in range(number)],
        size=size,
        cn=[CnRange("3" * 32, 32, suite.cn_bytes(number * size // 8))],
    )


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SUITES), st.integers(1, 64), st.sampled_from([64, 256, 1024]), st.randoms(use_true_random=False))
def test_what_is_protected_is_opened(suite: CombinationSuite, number: int, size: int, random: object) -> None:
    context = context_for(suite, number, size)
    keys = bytes(index % 251 for index in range(context.key_bytes))
    cn = bytes((7 * index) % 256 for index in range(suite.cn_bytes(len(keys))))
    protected = protect(context, keys, cn, SECRET)
    assert protected.cipher != keys
    assert open_protected(context, protected, cn, SECRET) == keys


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(
    "changed",
    [
        {"request": "9" * 32},
        {"batch": "9" * 32},
        {"maker": "akms-9"},
        {"asker": "akms-9"},
        {"kem_key_digest": b"x" * 32},
        {"kem_ciphertext_digest": b"x" * 32},
        {"key_ids": [uuid4(), uuid4()]},
        {"cn": [CnRange("3" * 32, 64, 96)]},
        {"direction": "asker-to-maker"},
    ],
)
def test_every_part_of_the_context_is_bound(suite: CombinationSuite, changed: dict[str, object]) -> None:
    context = context_for(suite)
    cn = cn_for(suite)
    protected = protect(context, bytes(64), cn, SECRET)
    with pytest.raises(NotAuthentic):
        open_protected(msgspec.structs.replace(context, **changed), protected, cn, SECRET)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(
    "change",
    [
        lambda p: replace(p, cipher=bytes([p.cipher[0] ^ 1]) + p.cipher[1:]),
        lambda p: replace(p, tag=p.tag[:-1] + bytes([p.tag[-1] ^ 1])),
    ],
)
def test_a_changed_bit_is_refused(suite: CombinationSuite, change: Callable[[Protected], Protected]) -> None:
    context, cn = context_for(suite), cn_for(suite)
    protected = protect(context, bytes(64), cn, SECRET)
    with pytest.raises(NotAuthentic):
        open_protected(context, change(protected), cn, SECRET)


def test_both_secrets_are_needed() -> None:
    for suite in SUITES:
        context, cn = context_for(suite), cn_for(suite)
        keys = bytes(range(64))
        protected = protect(context, keys, cn, SECRET)
        other_cn = b"\1" + cn[1:]
        assert protect(context, keys, cn, b"\1" * 32).cipher != protected.cipher
        assert protect(context, keys, other_cn, SECRET).cipher != protected.cipher


@pytest.mark.parametrize("suite", SUITES)
def test_wrong_lengths_are_refused(suite: CombinationSuite) -> None:
    context = context_for(suite)
    with pytest.raises(ValueError):
        protect(context, bytes(63), cn_for(suite), SECRET)
    with pytest.raises(ValueError):
        protect(context, bytes(64), bytes(suite.cn_bytes(64) + 1), SECRET)


def test_only_the_makers_signature_over_this_very_transfer_passes() -> None:
    key, other = MLDSA65PrivateKey.generate(), MLDSA65PrivateKey.generate()
    context = context_for(CombinationSuite.AEAD)
    protected = protect(context, bytes(64), bytes(32), SECRET)
    signature = sign(context, protected, key)
    verify(context, protected, signature, key.public_key())
    with pytest.raises(NotAuthentic):
        verify(context, protected, signature, other.public_key())
    with pytest.raises(NotAuthentic):
        verify(msgspec.structs.replace(context, asker="akms-9"), protected, signature, key.public_key())
    with pytest.raises(NotAuthentic):
        verify(context, replace(protected, tag=bytes(16)), signature, key.public_key())
