"""Reading requests of ETSI GS QKD 014: what is accepted, and the exact answer to what is not."""

import json
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.keys.etsi014 import KeyRequest
from services.ukms import etsi014
from services.ukms.etsi014 import Method, Refusal
from services.ukms.wanted import wanted_keys

A_KEY = "8b2ad0a4-3a0b-4f2a-9a1a-0d9d8b4d7a11"


def refused(call: Any, *arguments: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize("method", list(Method))
def test_a_url_names_a_method_and_an_sae(method: Method) -> None:
    target = etsi014.target(f"/api/v1/keys/sae%3Ab%40bonn/{method}")
    assert (target.method, target.sae) == (method, "sae:b@bonn")


@pytest.mark.parametrize(
    "path",
    ["/", "/api/v1/keys/", "/api/v1/keys/b", "/api/v1/keys//status", "/api/v1/keys/b/status/", "/api/v2/keys/b/status"],
)
def test_any_other_url_is_not_found(path: str) -> None:
    assert refused(etsi014.target, path).status == 404


def test_the_wrong_http_method_is_told_the_right_ones() -> None:
    refusal = refused(etsi014.check_method, etsi014.Target(Method.STATUS, "b"), "POST")
    assert (refusal.status, refusal.allow) == (405, ("GET",))


def test_get_takes_number_and_size() -> None:
    assert etsi014.get_enc_keys("") == KeyRequest()
    assert etsi014.get_enc_keys("number=3&size=1024") == KeyRequest(number=3, size=1024)


@pytest.mark.parametrize(
    "query",
    [
        "number=3&number=4",
        "number=",
        "number=-1",
        "number=1.5",
        "number=%C2%B2",
        "number=99999999999999999999",
        "size=0x100",
        "extension_optional=1",
        "number=1&size=64&additional_slave_SAE_IDs=c",
        "%ff=1",
    ],
)
def test_get_takes_nothing_else(query: str) -> None:
    assert refused(etsi014.get_enc_keys, query).status == 400


@pytest.mark.parametrize("body", [b"", b"  \r\n", b"{}"])
def test_post_without_a_body_means_an_empty_object(body: bytes) -> None:
    assert etsi014.post_enc_keys(body) == KeyRequest()


def test_unknown_fields_are_tolerated() -> None:
    assert etsi014.post_enc_keys(b'{"number": 2, "colour": {"a": [1]}}') == KeyRequest(number=2)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"3",
        b"{",
        b'{"number": "3"}',
        b'{"number": 1.5}',
        b'{"number": NaN}',
        b'{"number": true}',
        b'{"number": null}',
        b'{"number": 1e999}',
        b'{"number": ' + b"9" * 10_000 + b"}",
        b'{"size": []}',
        b'{"additional_slave_SAE_IDs": "b"}',
        b'{"extension_mandatory": {"a": 1}}',
        b'{"extension_optional": [1]}',
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xff\xfe",
        b'{"additional_slave_SAE_IDs": ["\\ud800"]}',
        b"number=3",
    ],
)
def test_a_body_that_is_no_key_request_is_refused(body: bytes) -> None:
    refusal = refused(etsi014.post_enc_keys, body)
    assert refusal.status == 400
    assert refusal.error.message.startswith("the body is not a key request")


def test_dec_keys_by_get_takes_exactly_one_id() -> None:
    assert etsi014.get_dec_keys(f"key_ID={A_KEY}") == (uuid.UUID(A_KEY),)
    for query in ("", "key_ID=", "key_ID=x", f"key_ID={A_KEY}&key_ID={A_KEY}", f"key_ID={A_KEY}&size=8"):
        assert refused(etsi014.get_dec_keys, query).status == 400


def test_dec_keys_by_post_takes_different_uuids() -> None:
    ids = [str(uuid.uuid4()) for _ in range(3)]
    body = json.dumps({"key_IDs": [{"key_ID": one, "key_ID_extension": {"a": 1}} for one in ids], "more": 1})
    assert [str(one) for one in etsi014.post_dec_keys(body.encode())] == ids


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key_IDs": []},
        {"key_IDs": [A_KEY]},
        {"key_IDs": [{"key_ID": "8b2ad0a43a0b4f2a9a1a0d9d8b4d7a11"}]},
        {"key_IDs": [{"key_ID": 1}]},
        {"key_IDs": [{"key_ID": A_KEY}, {"key_ID": A_KEY.upper()}]},
        {"key_IDs": [{"key_ID": str(uuid.UUID(int=number))} for number in range(1025)]},
    ],
)
def test_other_lists_of_ids_are_refused(body: object) -> None:
    assert refused(etsi014.post_dec_keys, json.dumps(body).encode()).status == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = ("number", "size", "additional_slave_SAE_IDs", "extension_mandatory", "extension_optional", "key_IDs")


def outcome(read: Any, *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except Refusal as refusal:
        return refusal


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6) | JSON)
def test_whatever_the_json_it_is_read_or_refused_with_400(document: object) -> None:
    body = json.dumps(document).encode()
    wanted = outcome(lambda: wanted_keys("b", etsi014.post_enc_keys(body)))
    if isinstance(wanted, Refusal):
        assert wanted.status == 400
        assert all(isinstance(detail, dict) for detail in wanted.error.details)
    else:
        assert wanted.number >= 1
        assert wanted.size is None or wanted.size % 8 == 0


@settings(max_examples=150)
@given(st.binary(max_size=64), st.text(max_size=40))
def test_whatever_the_bytes_they_are_read_or_refused(body: bytes, text: str) -> None:
    answers = [outcome(read, body) for read in (etsi014.post_enc_keys, etsi014.post_dec_keys)]
    answers += [outcome(read, text) for read in (etsi014.target, etsi014.get_enc_keys, etsi014.get_dec_keys)]
    assert all(answer.status in (400, 404) for answer in answers if isinstance(answer, Refusal))
