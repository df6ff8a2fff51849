"""Messages as JSON: versions, critical fields, and refusals that quote nothing."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhaul.transport import codec
from keyhaul.transport.messages import access, link, peer, relay
from keyhaul.transport.messages.base import Accepted, ErrorCode, Message, ServiceError
from keyhaul.transport.operations import OPERATIONS

KINDS = sorted(
    {kind for operation in OPERATIONS.values() for kind in (operation.request, operation.reply)} | {link.Sealed},
    key=lambda kind: kind.__name__,
)


def refusal(body: bytes, kind: type[Message]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        codec.decode(body, kind)
    return caught.value


def outcome(body: bytes, kind: type[Message]) -> ErrorCode | None:
    """The code with which a message is refused, None if it is not."""
    try:
        codec.decode(body, kind)
    except ServiceError as error:
        return error.code
    return None


def test_every_message_on_the_wire_carries_its_version() -> None:
    assert codec.encode(Accepted()) == b'{"v":1}'
    assert json.loads(codec.encode(relay.Outcome(batch="ab", id="x-1"))) == {"v": 1, "id": "x-1", "batch": "ab"}


def test_what_is_encoded_is_decoded() -> None:
    message = access.Push(
        batch="b", master="m", slaves=["s"], key_ids=[UUID(int=5)], size=256, service_class="gold", lifetime_ms=9
    )
    assert codec.decode(codec.encode(message), access.Push) == message


def test_unknown_fields_are_ignored() -> None:
    assert codec.decode(b'{"v":1,"batch":"b","new":[1]}', relay.Outcome).batch == "b"


def test_an_unknown_critical_field_is_refused() -> None:
    assert refusal(b'{"v":1,"batch":"b","new":[1],"critical":["new"]}', relay.Outcome).code == ErrorCode.VERSION


def test_a_known_critical_field_is_accepted() -> None:
    assert codec.decode(b'{"v":1,"batch":"b","critical":["batch"]}', relay.Outcome).batch == "b"


@pytest.mark.parametrize(
    "body",
    [b'{"v":2,"batch":"b"}', b'{"batch":"b","v":0}', b'{"v":1,"batch":"b","v":2}', b'{"v":7,"batch":[1]}'],
)
def test_other_versions_are_refused(body: bytes) -> None:
    assert refusal(body, relay.Outcome).code == ErrorCode.VERSION


def test_a_message_without_version_is_malformed() -> None:
    assert refusal(b'{"batch":"b"}', relay.Outcome).code == ErrorCode.MALFORMED


def test_a_refusal_names_the_place_and_quotes_nothing() -> None:
    error = refusal(b'{"v":1,"request":"r","reason":"c2VjcmV0IGtleSBiaXRz"}', peer.RequestFailed)
    assert error.code == ErrorCode.MALFORMED
    assert error.message == "a field is missing or not of its type, at $.reason"


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_random_bytes_are_refused_and_never_anything_else(kind: type[Message], body: bytes) -> None:
    assert outcome(body, kind) in (None, ErrorCode.MALFORMED, ErrorCode.VERSION)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.data(), st.sampled_from(KINDS))
def test_random_json_is_refused_and_never_anything_else(data: st.DataObject, kind: type[Message]) -> None:
    names = st.sampled_from(list(kind.__struct_fields__)) | st.text(max_size=8)
    document = data.draw(st.dictionaries(names, JSON, max_size=6))
    if data.draw(st.booleans()):
        document = {"v": 1, **document}
    body = json.dumps(document).encode("utf-8", "surrogatepass")
    assert outcome(body, kind) in (None, ErrorCode.MALFORMED, ErrorCode.VERSION)


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 200_000, b'{"v":1,"x":' + b"[" * 200_000])
def test_deep_nesting_is_malformed(body: bytes) -> None:
    assert refusal(body, relay.Outcome).code == ErrorCode.MALFORMED
