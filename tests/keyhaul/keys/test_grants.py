"""A grant is AAA's exact bytes, or it is none."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.keys.grants import SIGNATURE_PREFIX, InvalidGrant, encode, sign, verify
from keyhaul.transport.messages.aaa import Grant, SignedGrant
from keyhaul.transport.messages.peer import SlaveSite

KEY = MLDSA65PrivateKey.generate()
GRANT = Grant(
    v=1,
    id="0" * 32,
    domain="keyhaul.example",
    master="sae-a",
    master_ukms="ukms-1",
    master_akms="akms-2",
    slaves=[SlaveSite("sae-b", "ukms-15", "akms-14")],
    service_class="gold",
    loopback=False,
    sizes=[],
    default_size=256,
    minimum_size=64,
    maximum_size=1024,
    maximum_keys_per_request=128,
    allowance=10,
    lifetime_s=60,
    epoch=7,
    target_kme="kme-15",
)


def changed(**fields: object) -> Grant:
    return msgspec.structs.replace(GRANT, **fields)


def test_a_signed_grant_is_read_back_from_either_form() -> None:
    signed = sign(GRANT, KEY)

    assert verify(signed, KEY.public_key()) == GRANT
    assert verify(encode(signed), KEY.public_key()) == GRANT


def test_fields_of_later_releases_are_ignored() -> None:
    body = signed_body(msgspec.json.encode({**msgspec.to_builtins(GRANT), "later": 1}))

    assert verify(body, KEY.public_key()) == GRANT


def test_another_key_or_another_purpose_is_refused() -> None:
    body = msgspec.json.encode(GRANT)
    with pytest.raises(InvalidGrant):
        verify(sign(GRANT, KEY), MLDSA65PrivateKey.generate().public_key())
    with pytest.raises(InvalidGrant):
        verify(SignedGrant(grant=body, signature=KEY.sign(body)), KEY.public_key())


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_whatever_is_changed_is_refused(data: st.DataObject) -> None:
    signed = sign(GRANT, KEY)
    parts = [bytearray(signed.grant), bytearray(signed.signature)]
    part = data.draw(st.sampled_from(parts))
    part[data.draw(st.integers(0, len(part) - 1))] ^= data.draw(st.integers(1, 255))

    with pytest.raises(InvalidGrant):
        verify(SignedGrant(grant=bytes(parts[0]), signature=bytes(parts[1])), KEY.public_key())


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(InvalidGrant):
        verify(noise, KEY.public_key())
    with pytest.raises(InvalidGrant):
        verify(signed_body(noise), KEY.public_key())


@pytest.mark.parametrize(
    "grant",
    [changed(v=2), changed(service_class="tin"), changed(slaves=[]), changed(allowance=-1), changed(lifetime_s=-1)],
)
def test_a_grant_of_another_version_or_without_sense_is_refused(grant: Grant) -> None:
    with pytest.raises(InvalidGrant):
        verify(sign(grant, KEY), KEY.public_key())


def signed_body(body: bytes) -> SignedGrant:
    return SignedGrant(grant=body, signature=KEY.sign(SIGNATURE_PREFIX + body))
