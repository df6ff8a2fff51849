"""A statement is what a controller signed, byte for byte, or it is nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from hypothesis import given
from hypothesis import strategies as st

from keyhaul.agents.statements import (
    CONTEXT,
    MAXIMUM_BODY,
    EntryStatement,
    PathStatement,
    SignedStatement,
    StatedHop,
    Statement,
    StatementRefusal,
    StatementRefused,
    Withdrawal,
    encode,
    sign,
    verify,
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
    return SignedStatement(encoded, KEY.sign(encoded, CONTEXT))


def plain(of: Statement) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(encode(of))
    return loaded


def refusal(signed: SignedStatement, keys: list[MLDSA65PublicKey] = KEYS) -> StatementRefusal:
    with pytest.raises(StatementRefused) as refused:
        verify(signed, keys)
    return refused.value.refusal


@pytest.mark.parametrize("says", [ENTRY, PATH, Withdrawal(serials=(1, 2), drain_s=5.0)])
def test_what_was_signed_is_read_back(says: Any) -> None:
    assert verify(sign(statement(says), KEY), KEYS) == statement(says)


def test_the_encoding_is_canonical() -> None:
    assert encode(statement(PATH)) == (
        b'{"v":1,"node":"ckms-2","epoch":3,"serial":17,"lifetime_s":3600,"says":{"kind":"path","destination":"ckms-9",'
        b'"group":"cccccccccccccccccccccccccccccccc","rank":0,"first":{"neighbour":"ckms-3","label":"dddddddddddddddd"},'
        b'"rate":1,"burst":1}}'
    )


def test_any_of_the_pinned_keys_will_do_and_no_other() -> None:
    signed = sign(statement(), OTHER)

    assert verify(signed, [KEY.public_key(), OTHER.public_key()]) == statement()
    assert refusal(signed) == StatementRefusal.FORGED
    assert refusal(signed, []) == StatementRefusal.FORGED


def test_every_changed_byte_is_noticed() -> None:
    signed = sign(statement(), KEY)
    for place in range(len(signed.body)):
        body = bytearray(signed.body)
        body[place] ^= 1
        assert refusal(SignedStatement(bytes(body), signed.signature)) == StatementRefusal.FORGED


def test_a_signature_for_another_purpose_is_none() -> None:
    body = encode(statement())

    assert refusal(SignedStatement(body, KEY.sign(body))) == StatementRefusal.FORGED
    assert refusal(SignedStatement(body, KEY.sign(body, b"keyhaul grant v1"))) == StatementRefusal.FORGED
    assert refusal(SignedStatement(body, KEY.sign(CONTEXT + body))) == StatementRefusal.FORGED
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
        sign(statement(msgspec.structs.replace(PATH, shares=3)), KEY)
    with pytest.raises(StatementRefused):
        sign(statement(node="ukms-1"), KEY)


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_no_bytes_end_in_another_error(body: bytes, signature: bytes) -> None:
    with pytest.raises(StatementRefused):
        verify(SignedStatement(body, signature), KEYS)
    with pytest.raises(StatementRefused):
        verify(signed_json(body), KEYS)
