"""Values: RFC 7951 in JSON_IETF, plain numbers and names in JSON, and what the schema does not allow is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi import data, types, values
from keyhaul.agents.gnmi.data import BrokenData
from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.agents.gnmi.models import ckms, etsi015
from keyhaul.agents.gnmi.paths import names, parse
from keyhaul.agents.gnmi.schema import Container, Leaf, Module, Schema, container, leaf, list_of
from tests.keyhaul.agents.gnmi.carrier import LINK, Carrier

SCHEMA = Schema([ckms.MODULE, etsi015.MODULE])


def node(path: str) -> Any:
    return SCHEMA.node(names(parse(path)))


def test_ietf_qualifies_the_outermost_members_and_identities(carrier: Carrier) -> None:
    path = parse(f"/{etsi015.TOP}/qkd_links/qkd_link[qkdl_id={LINK}]")
    found = data.at(carrier.tree.refresh(), path)
    ietf = json.loads(values.encoded(path, node(f"/{etsi015.TOP}/qkd_links/qkd_link"), found, ietf=True))
    plain = json.loads(values.encoded(path, node(f"/{etsi015.TOP}/qkd_links/qkd_link"), found, ietf=False))
    assert ietf["etsi-qkd-sdn-node:qkdl_status"] == "etsi-qkd-node-types:ACTIVE"
    assert ietf["etsi-qkd-sdn-node:qkdl_local"]["qkdi_id"] == 1
    assert plain["qkdl_status"] == "ACTIVE"


@pytest.mark.parametrize(
    ("kind", "value", "ietf", "plain"),
    [
        (types.UINT64, 2**63, str(2**63), 2**63),
        (types.UINT32, 7, 7, 7),
        (types.Decimal64(6), Decimal("0.021300"), "0.0213", 0.0213),
        (types.Decimal64(3), Decimal("-5.000"), "-5.0", -5.0),
        (types.BOOLEAN, True, True, True),
        (types.Binary(4), b"\xff\x00", "/wA=", "/wA="),
        (types.identity("m", "A"), "A", "m:A", "A"),
        (types.enumeration("otp"), "otp", "otp", "otp"),
    ],
)
def test_each_type_both_ways(kind: types.LeafType, value: Any, ietf: Any, plain: Any) -> None:
    assert kind.encode(value, ietf=True) == ietf
    assert kind.encode(value, ietf=False) == plain
    assert kind.decode(ietf, ietf=True) == value
    assert kind.decode(plain, ietf=False) == value
    assert kind.parse(kind.text(value)) == value


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (types.UINT64, 5),
        (types.UINT64, "-1"),
        (types.UINT64, "5.0"),
        (types.UINT64, "1" * 5000),
        (types.UINT8, 256),
        (types.UINT8, True),
        (types.UINT8, "5"),
        (types.UINT8, 5.0),
        (types.Decimal64(2), 0.5),
        (types.Decimal64(2), "NaN"),
        (types.Decimal64(2), "1e5"),
        (types.Decimal64(18), "10.0"),
        (types.BOOLEAN, "true"),
        (types.BOOLEAN, 1),
        (types.Binary(4), "AAAAAAAA"),
        (types.Binary(4), "!!!!"),
        (types.UUID, "x"),
        (types.enumeration("otp"), "OTP"),
        (types.identity("m", "A"), "n:A"),
        (types.Text(3), "four"),
    ],
)
def test_what_a_type_does_not_allow(kind: types.LeafType, raw: Any) -> None:
    with pytest.raises(types.WrongValue):
        kind.decode(raw, ietf=True)


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.integers(1, 18))
def test_decimals_keep_every_digit(digits: int, fraction: int) -> None:
    kind = types.Decimal64(fraction)
    value = Decimal(digits).scaleb(-fraction)
    assert kind.decode(kind.encode(kind.check(value), ietf=True), ietf=True) == value


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (gnmi_pb2.TypedValue(), Code.INVALID_ARGUMENT),
        (gnmi_pb2.TypedValue(ascii_val="x"), Code.UNIMPLEMENTED),
        (gnmi_pb2.TypedValue(proto_bytes=b"x"), Code.UNIMPLEMENTED),
        (gnmi_pb2.TypedValue(json_val=b"{"), Code.INVALID_ARGUMENT),
        (gnmi_pb2.TypedValue(json_val=b"\xff"), Code.INVALID_ARGUMENT),
        (gnmi_pb2.TypedValue(json_val=b"[" * 100_000), Code.INVALID_ARGUMENT),
        (gnmi_pb2.TypedValue(json_val=b"[]"), Code.INVALID_ARGUMENT),
        (gnmi_pb2.TypedValue(json_val=b'{"statement":{}}'), Code.INVALID_ARGUMENT),
        (gnmi_pb2.TypedValue(json_val=b'{"statement":[{"body":"e30="}]}'), Code.INVALID_ARGUMENT),
        (gnmi_pb2.TypedValue(json_val=b'{"statement":[{"serial":1},{"serial":1}]}'), Code.INVALID_ARGUMENT),
        (gnmi_pb2.TypedValue(json_val=b'{"weather":1}'), Code.INVALID_ARGUMENT),
        (gnmi_pb2.TypedValue(json_ietf_val=b'{"other:statement":[]}'), Code.INVALID_ARGUMENT),
        (gnmi_pb2.TypedValue(json_ietf_val=b'{"statement":[],"keyhaul-ckms:statement":[]}'), Code.INVALID_ARGUMENT),
        (gnmi_pb2.TypedValue(string_val="x"), Code.UNIMPLEMENTED),
    ],
)
def test_values_of_a_set_that_are_refused(value: Any, code: Code) -> None:
    with pytest.raises(Refused) as caught:
        values.decoded(node(f"/{ckms.TOP}/forwarding"), value, "keyhaul-ckms")
    assert caught.value.code is code


def test_a_leaf_takes_scalars() -> None:
    body = node(f"/{ckms.TOP}/forwarding/statement/body")
    assert values.decoded(body, gnmi_pb2.TypedValue(bytes_val=b"x"), "keyhaul-ckms") == b"x"
    with pytest.raises(Refused):
        values.decoded(body, gnmi_pb2.TypedValue(string_val="x"), "keyhaul-ckms")


@pytest.mark.parametrize("number", [1, 2, 3, 99])
def test_other_encodings_are_not_implemented(number: int) -> None:
    with pytest.raises(Refused) as caught:
        values.encoding(number)
    assert caught.value.code is Code.UNIMPLEMENTED


def test_configuration_and_state_are_told_apart(carrier: Carrier) -> None:
    carrier.book.held[18] = {"serial": 18, "body": b"{}", "signature": b""}
    carrier.entries.append({"previous": "ckms-8", "label": "0123456789abcdef"})
    forwarding = data.at(carrier.tree.refresh(), parse(f"/{ckms.TOP}/forwarding"))
    schema = node(f"/{ckms.TOP}/forwarding")
    assert data.only(schema, forwarding, config=True).keys() == {"statement"}
    assert data.only(schema, forwarding, config=False).keys() == forwarding.keys() - {"statement"}


def test_data_that_the_schema_does_not_allow_are_the_services_error(carrier: Carrier) -> None:
    carrier.links["ckms-8"]["rate"] = -1
    with pytest.raises(BrokenData, match="/link/rate"):
        carrier.tree.refresh()
    carrier.links["ckms-8"] = {"neighbour": "ckms-8", "sae": "alice"}
    with pytest.raises(BrokenData, match="sae"):
        carrier.tree.refresh()
    carrier.links["ckms-8"] = {"id": "x"}
    with pytest.raises(BrokenData, match="neighbour"):
        carrier.tree.refresh()


def test_links_that_did_not_change_are_not_looked_at_twice(carrier: Carrier) -> None:
    before = carrier.tree.refresh()
    assert carrier.tree.refresh() is before
    carrier.links["ckms-8"]["rate"] = 1
    after = carrier.tree.refresh()
    here = parse(f"/{ckms.TOP}/links/link[neighbour=ckms-8]")
    there = parse(f"/{ckms.TOP}/links/link[neighbour=ckms-16]")
    assert data.at(after, here) != data.at(before, here)
    assert data.at(after, there) is data.at(before, there)


def test_entries_that_move_keep_their_keys(carrier: Carrier) -> None:
    carrier.tree.refresh()
    carrier.links = {name: carrier.links[name] for name in reversed(carrier.links)}
    assert [dict(keys)["neighbour"] for keys in carrier.tree.refresh()[ckms.TOP]["links"]["link"]] == [
        "ckms-16",
        "ckms-8",
    ]


def test_a_list_needs_its_keys() -> None:
    with pytest.raises(ValueError, match="no leaf"):
        list_of("list", ["name"], leaf("other", types.STRING))
    made = container("top", leaf("state", types.STRING), config=False)
    inner = Schema([Module("m", "o", "r", "n", (made,))]).node(("m:top", "state"))
    assert isinstance(inner, Leaf)
    assert not inner.config
    assert isinstance(made, Container)
