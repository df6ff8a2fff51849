"""A statement is what a controller signed, byte for byte, or it is nothing."""

from __future__ import annotations

import json
from hashlib import sha384
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from hypothesis import given
from hypothesis import strategies as st

from keyhaul.agents.signing import (
    ALONE,
    LONGEST_SIGNATURE,
    MAXIMUM_TOGETHER,
    SIGNATURE,
    TOGETHER,
    SignedStatement,
    Verifier,
    sign,
)
from keyhaul.agents.statements import (
    MAXIMUM_BODY,
    EntryStatement,
    PathStatement,
    StatedHop,
    Statement,
    StatementRefusal,
    StatementRefused,
    Withdrawal,
    encode,
)
from keyhaul.identity.keys import generate

KEY = generate(lambda count: b"\x01" * count)
OTHER = generate(lambda count: b"\x02" * count)
KEYS = [KEY.public_key()]

ENTRY = EntryStatement(
    label="a" * 16, previous="ckms-1", next=StatedHop("ckms-3", "b" * 16), service_class="gold", rate=4096.0, burst=8192
)
PATH = PathStatement(destination="ckms-9", group="c" * 32, rank=0, first=StatedHop("ckms-3", "d" * 16), rate=1, burst=1)


def statement(says: Any = ENTRY, **changes: Any) -> Statement:
    return msgspec.structs.replace(
        Statement(v=1, node="ckms-2", epoch=3, serial=17, lifetime_s=3600, says=says), **changes
    )


def signed_json(body: Any) -> SignedStatement:
    """What a controller of another release might sign."""
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return SignedStatement(encoded, KEY.sign(encoded, ALONE))


def plain(of: Statement) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(encode(of))
    return loaded


def alone(one: Statement, key: MLDSA65PrivateKey = KEY) -> SignedStatement:
    (signed,) = sign([one], key)
    return signed


def verify(signed: SignedStatement, keys: list[MLDSA65PublicKey] = KEYS) -> Statement:
    return Verifier(keys).verify(signed)


def refusal(signed: SignedStatement, keys: list[MLDSA65PublicKey] = KEYS) -> StatementRefusal:
    with pytest.raises(StatementRefused) as refused:
        verify(signed, keys)
    return refused.value.refusal


@pytest.mark.parametrize("says", [ENTRY, PATH, Withdrawal(serials=(1, 2), drain_s=5.0)])
def test_what_was_signed_is_read_back(says: Any) -> None:
    assert verify(alone(statement(says)), KEYS) == statement(says)


def test_the_encoding_is_canonical() -> None:
    assert encode(statement(PATH)) == (
        b'{"v":1,"node":"ckms-2","epoch":3,"serial":17,"lifetime_s":3600,"says":{"kind":"path","destination":"ckms-9",'
        b'"group":"cccccccccccccccccccccccccccccccc","rank":0,"first":{"neighbour":"ckms-3","label":"dddddddddddddddd"},'
        b'"rate":1,"burst":1}}'
    )


def test_any_of_the_pinned_keys_will_do_and_no_other() -> None:
    signed = alone(statement(), OTHER)

    assert verify(signed, [KEY.public_key(), OTHER.public_key()]) == statement()
    assert refusal(signed) == StatementRefusal.FORGED
    assert refusal(signed, []) == StatementRefusal.FORGED


def test_every_changed_byte_is_noticed() -> None:
    signed = alone(statement())
    for place in range(len(signed.body)):
        body = bytearray(signed.body)
        body[place] ^= 1
        assert refusal(SignedStatement(bytes(body), signed.signature)) == StatementRefusal.FORGED


def test_a_signature_for_another_purpose_is_none() -> None:
    body = encode(statement())

    assert refusal(SignedStatement(body, KEY.sign(body))) == StatementRefusal.FORGED
    assert refusal(SignedStatement(body, KEY.sign(body, b"keyhaul grant v1"))) == StatementRefusal.FORGED
    assert refusal(SignedStatement(body, KEY.sign(ALONE + body))) == StatementRefusal.FORGED
    assert refusal(SignedStatement(body, b"")) == StatementRefusal.FORGED


def test_fields_of_a_later_release_are_ignored_unless_they_are_critical() -> None:
    later = plain(statement())
    later |= {"colour": "red"}
    later["says"] |= {"weight": 3, "next": later["says"]["next"] | {"lane": 2}}

    assert verify(signed_json(later), KEYS) == statement()
    for name in ("colour", "says.weight", "weight"):
        assert refusal(signed_json(later | {"critical": [name]})) == StatementRefusal.UNKNOWN
    known = ["serial", "says.detour", "says.rate"]
    assert verify(signed_json(later | {"critical": known}), KEYS).critical == tuple(known)


def test_a_critical_field_of_another_kind_is_unknown() -> None:
    assert refusal(signed_json(plain(statement(PATH)) | {"critical": ["says.detour"]})) == StatementRefusal.UNKNOWN


def test_another_version_or_kind_is_unknown_whatever_its_fields_are() -> None:
    assert refusal(signed_json({"v": 2, "all": "new"})) == StatementRefusal.UNKNOWN
    assert refusal(signed_json(plain(statement()) | {"says": {"kind": "meter"}})) == StatementRefusal.UNKNOWN


@pytest.mark.parametrize(
    "change",
    [
        {"node": "akms-2"},
        {"node": "ckms-2\n"},
        {"epoch": 0},
        {"serial": 2**63},
        {"lifetime_s": 0},
        {"lifetime_s": 10**9},
        {"says": {"kind": "entry", "label": "A" * 16}},
        {"says": plain(statement())["says"] | {"rate": 0}},
        {"says": plain(statement())["says"] | {"service_class": "platinum"}},
        {"says": plain(statement())["says"] | {"next": None, "detour": {"neighbour": "ckms-3", "label": "e" * 16}}},
        {
            "says": plain(statement())["says"]
            | {"service_class": "split", "detour": {"neighbour": "ckms-3", "label": "e" * 16}}
        },
        {"says": plain(statement(PATH))["says"] | {"service_class": "split"}},
        {"says": plain(statement(PATH))["says"] | {"shares": 2}},
        {"says": plain(statement(PATH))["says"] | {"service_class": "split", "shares": 2, "share": 2}},
        {"says": {"kind": "withdrawal", "serials": [0]}},
        {"says": {"kind": "withdrawal", "serials": [1] * 1025}},
        {"says": {"kind": "withdrawal", "serials": [1], "drain_s": -1}},
    ],
)
def test_signed_nonsense_is_malformed(change: dict[str, Any]) -> None:
    assert refusal(signed_json(plain(statement()) | change)) == StatementRefusal.MALFORMED


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{}", b"[" * 10_000, b'{"v":"1"}'])
def test_what_is_no_statement_is_malformed(body: bytes) -> None:
    assert refusal(signed_json(body)) == StatementRefusal.MALFORMED


def test_a_body_is_bounded() -> None:
    assert refusal(signed_json(b" " * (MAXIMUM_BODY + 1))) == StatementRefusal.TOO_MANY


def test_a_controller_cannot_sign_what_no_node_would_accept() -> None:
    with pytest.raises(StatementRefused):
        alone(statement(msgspec.structs.replace(PATH, shares=3)), KEY)
    with pytest.raises(StatementRefused):
        alone(statement(node="ukms-1"), KEY)


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_no_bytes_end_in_another_error(body: bytes, signature: bytes) -> None:
    with pytest.raises(StatementRefused):
        verify(SignedStatement(body, signature), KEYS)
    with pytest.raises(StatementRefused):
        verify(signed_json(body), KEYS)


def several(count: int, first: int = 1) -> list[Statement]:
    return [statement(serial=serial) for serial in range(first, first + count)]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 8, 64, 65, 127, 1000, MAXIMUM_TOGETHER])
def test_each_of_those_signed_together_is_verified_by_itself(count: int) -> None:
    statements = several(count)
    signed = sign(statements, KEY)

    assert len({one.signature[:SIGNATURE] for one in signed}) == 1
    assert max(len(one.signature) for one in signed) <= LONGEST_SIGNATURE
    for number in {0, 1, count // 2, count - 2, count - 1}:
        assert verify(signed[number]) == statements[number]
    together = Verifier(KEYS)
    assert [together.verify(one) for one in signed] == statements


def test_none_and_too_many() -> None:
    assert sign([], KEY) == []
    with pytest.raises(StatementRefused):
        sign(several(MAXIMUM_TOGETHER + 1), KEY)


def test_nothing_of_those_signed_together_can_be_changed_or_exchanged() -> None:
    first, second, third = sign(several(3), KEY)
    other, _ = sign(several(2, first=7), KEY)
    body, signature = first.body, first.signature
    way = signature[SIGNATURE:]
    verifier = Verifier(KEYS)
    verifier.verify(first)

    for wrong in (
        SignedStatement(body, second.signature),
        SignedStatement(second.body, signature),
        SignedStatement(body, other.signature),
        SignedStatement(body, other.signature[:SIGNATURE] + way),
        SignedStatement(body, signature[:SIGNATURE]),
        SignedStatement(body, alone(statement(serial=1)).signature + way),
        SignedStatement(body, signature + bytes(48)),
        SignedStatement(body, signature[:-1]),
        SignedStatement(body, signature[:-48]),
        SignedStatement(body, signature + b"\0"),
        SignedStatement(body, signature[:SIGNATURE] + b"\0\0"),
        SignedStatement(body, signature[: SIGNATURE + 1]),
        SignedStatement(body, bytes(SIGNATURE) + way),
        SignedStatement(body + b" ", signature),
    ):
        for one in (verifier, Verifier(KEYS)):
            with pytest.raises(StatementRefused) as refused:
                one.verify(wrong)
            assert refused.value.refusal is StatementRefusal.FORGED
    for place in range(SIGNATURE, len(signature)):
        changed = bytearray(signature)
        changed[place] ^= 1
        with pytest.raises(StatementRefused):
            verifier.verify(SignedStatement(body, bytes(changed)))
    assert verifier.verify(third) == statement(serial=3)


def test_a_node_of_the_tree_is_no_statement_and_a_root_is_none_alone() -> None:
    """What is hashed to a leaf never reads as what is hashed to a node, and one purpose is not the other."""
    first, second = sign(several(2), KEY)
    hashes = [sha384(b"\x00" + one.body).digest() for one in (first, second)]
    root = sha384(b"\x01" + hashes[0] + hashes[1]).digest()

    assert first.signature[SIGNATURE:] == b"\0\0" + hashes[1]
    assert second.signature[SIGNATURE:] == b"\0\1" + hashes[0]
    KEY.public_key().verify(first.signature[:SIGNATURE], root, TOGETHER)
    assert refusal(SignedStatement(root, KEY.sign(root, TOGETHER))) == StatementRefusal.FORGED
    inner = b"\x01" + hashes[0] + hashes[1]
    assert refusal(SignedStatement(inner[1:], first.signature)) == StatementRefusal.FORGED


def test_a_key_that_is_pinned_no_more_is_not_believed_for_what_came_before() -> None:
    first, second = sign(several(2), KEY)

    assert refusal(first, [OTHER.public_key()]) == StatementRefusal.FORGED
    verifier = Verifier([OTHER.public_key(), KEY.public_key()])
    assert [verifier.verify(first).serial, verifier.verify(second).serial] == [1, 2]
