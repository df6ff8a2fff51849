from __future__ import annotations

import json
import random
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.keys import etsi014
from services.qkdm.pair import Receiver, Transmitter
from services.qkdm.requests import MAXIMUM_KEYS_PER_REQUEST, Answer, Kme, Names, Request


class Site:
    """Both ends' KMEs without a network between."""

    def __init__(self) -> None:
        self.a = Transmitter("a-b", 256, 2_000, random.Random(1).randbytes)
        self.b = Receiver("a-b", 256, 2_000, random.Random(2).randbytes)
        hello = self.a.hello()
        self.a.receive(self.b.hello(), 0.0)
        self.b.receive(hello, 0.0)
        self.kme_a = Kme(Names("kme-a", "kme-b", "kms-a", "kms-b"), self.a)
        self.kme_b = Kme(Names("kme-b", "kme-a", "kms-b", "kms-a"), self.b)

    def make(self, count: int) -> None:
        block = self.a.produce(count, 0.0, rate=1.0, qber=0.02)
        assert block is not None
        for reply in self.b.receive(block, 0.0):
            self.a.receive(reply, 0.0)

    def ask(
        self,
        path: str,
        body: object = None,
        *,
        query: list[tuple[str, str]] | None = None,
        method: str | None = None,
        caller: str | None = "kms-a",
        at: str = "a",
        raw: bytes | None = None,
        rate: float = 2_000.0,
    ) -> Answer:
        encoded = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        request = Request(
            caller=caller,
            method=method or ("GET" if not encoded else "POST"),
            path=path.split("/"),
            query=query or [],
            body=encoded,
        )
        return (self.kme_a if at == "a" else self.kme_b).answer(request, 0.0, rate)


ENC = "api/v1/keys/kms-b/enc_keys"
DEC = "api/v1/keys/kms-a/dec_keys"


@pytest.fixture
def site() -> Site:
    made = Site()
    made.make(400)
    return made


def container(answer: Answer) -> dict[UUID, bytes]:
    assert answer.status == 200, answer.body
    return {key.key_ID: key.key for key in msgspec.json.decode(answer.body, type=etsi014.KeyContainer).keys}


def message(answer: Answer, status: int = 400) -> str:
    assert answer.status == status
    return msgspec.json.decode(answer.body, type=etsi014.Error).message


def test_status_names_everybody_and_counts(site: Site) -> None:
    answer = site.ask("api/v1/keys/kms-b/status")
    status = msgspec.json.decode(answer.body, type=etsi014.Status)
    assert (status.source_KME_ID, status.target_KME_ID) == ("kme-a", "kme-b")
    assert (status.master_SAE_ID, status.slave_SAE_ID) == ("kms-a", "kms-b")
    assert (status.key_size, status.min_key_size, status.max_key_size) == (256, 256, 256)
    assert status.stored_key_count == site.a.level == 200
    assert status.max_key_count == site.a.capacity
    assert status.max_SAE_ID_count == 0


def test_the_extension_of_the_status_has_the_figures_of_the_link_where_there_are_any(site: Site) -> None:
    request = Request("kms-a", "GET", ["api", "v1", "keys", "kms-b", "status"], [], b"")
    told = msgspec.json.decode(site.kme_a.answer(request, 0.0, 1.0, {"qber": 0.02}).body)
    assert told["status_extension"] == {"qber": 0.02}
    assert "status_extension" not in msgspec.json.decode(site.kme_a.answer(request, 0.0, 1.0).body)


@pytest.mark.parametrize("body", [None, {}, {"number": 1, "size": 256}, {"extension_optional": [{"x_y": 1}]}])
def test_a_key_is_given_out_once_and_fetched_once(site: Site, body: dict[str, Any] | None) -> None:
    given = container(site.ask(ENC, body, method="POST"))
    (key_id,) = given
    fetch = {"key_IDs": [{"key_ID": str(key_id)}]}
    assert container(site.ask(DEC, fetch, caller="kms-b", at="b")) == given
    assert message(site.ask(DEC, fetch, caller="kms-b", at="b")) == etsi014.KEYS_NOT_FOUND
    assert key_id not in container(site.ask(ENC, {"number": 100}))


def test_get_serves_the_simple_forms(site: Site) -> None:
    given = container(site.ask(ENC, query=[("number", "3"), ("size", "256")]))
    assert len(given) == 3
    key_id = next(iter(given))
    fetched = container(site.ask(DEC, query=[("key_ID", str(key_id).upper())], caller="kms-b", at="b"))
    assert fetched == {key_id: given[key_id]}


def test_the_receiver_is_master_as_well(site: Site) -> None:
    given = container(site.ask("api/v1/keys/kms-a/enc_keys", {"number": 5}, caller="kms-b", at="b"))
    ids = {"key_IDs": [{"key_ID": str(key_id)} for key_id in given]}
    assert container(site.ask("api/v1/keys/kms-b/dec_keys", ids)) == given


def test_one_missing_key_fails_the_whole_request_and_takes_nothing(site: Site) -> None:
    given = container(site.ask(ENC, {"number": 4}))
    ids = [*map(str, given)]
    bad = {"key_IDs": [{"key_ID": key_id} for key_id in [*ids, str(uuid4())]]}
    assert message(site.ask(DEC, bad, caller="kms-b", at="b")) == etsi014.KEYS_NOT_FOUND
    good = {"key_IDs": [{"key_ID": key_id} for key_id in ids]}
    assert container(site.ask(DEC, good, caller="kms-b", at="b")) == given


def test_nobody_fetches_keys_of_their_own_direction(site: Site) -> None:
    own = next(iter(site.a.store.own.ids()))
    answer = site.ask("api/v1/keys/kms-b/dec_keys", query=[("key_ID", str(own))])
    assert message(answer) == etsi014.KEYS_NOT_FOUND


@pytest.mark.parametrize("caller", [None, "kms-b", "kms-x", "KMS-A", ""])
def test_another_sae_is_refused(site: Site, caller: str | None) -> None:
    for path in ("api/v1/keys/kms-b/status", ENC, "nothing"):
        message(site.ask(path, caller=caller), 401)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"number": 0}, "number"),
        ({"number": -1}, "number"),
        ({"number": MAXIMUM_KEYS_PER_REQUEST + 1}, "number"),
        ({"number": 10**30}, "number"),
        ({"number": "1"}, "number"),
        ({"number": 1.5}, "number"),
        ({"size": 255}, etsi014.SIZE_NOT_MULTIPLE_OF_8),
        ({"size": 128}, "size shall be 256"),
        ({"size": -8}, "size shall be 256"),
        ({"additional_slave_SAE_IDs": ["x"]}, "additional"),
        ({"extension_mandatory": [{"abc_route_type": "direct"}]}, etsi014.MANDATORY_UNSUPPORTED),
        ([], "as specified"),
    ],
)
def test_wrong_key_requests_are_told_what_is_wrong(site: Site, body: object, expected: str) -> None:
    level = site.a.level
    assert expected in message(site.ask(ENC, body))
    assert site.a.level == level


def test_unsupported_mandatory_extensions_are_named(site: Site) -> None:
    answer = site.ask(ENC, {"extension_mandatory": [{"abc_route_type": "direct"}]})
    assert json.loads(answer.body)["details"] == [
        {"extension_mandatory_unsupported": "abc_route_type is not supported"}
    ]


@pytest.mark.parametrize(
    "raw", [b"{", b"\xff", b'{"number":\xff}', b"[" * 60_000, b'{"extension_optional":' + b"[" * 9_000]
)
def test_what_is_not_json_is_refused(site: Site, raw: bytes) -> None:
    assert "body" in message(site.ask(ENC, raw=raw))
    assert "body" in message(site.ask(DEC, raw=raw, caller="kms-b", at="b"))


@pytest.mark.parametrize(
    "query",
    [
        [("number", "x")],
        [("number", "1"), ("number", "2")],
        [("extension_optional", "1")],
        [("size", "-8")],
        [("number", "")],
        [("number", "\u0663")],
    ],
)
def test_wrong_queries_are_refused(site: Site, query: list[tuple[str, str]]) -> None:
    message(site.ask(ENC, query=query))


@pytest.mark.parametrize(
    "ids",
    [
        [],
        [{"key_ID": "no-uuid"}],
        [{}],
        [{"key_ID": str(UUID(int=1))}, {"key_ID": str(UUID(int=1)).upper()}],
        [{"key_ID": str(UUID(int=number))} for number in range(MAXIMUM_KEYS_PER_REQUEST + 1)],
        [{"key_ID": "{" + str(UUID(int=1)) + "}"}],
    ],
)
def test_wrong_key_ids_are_refused(site: Site, ids: list[dict[str, str]]) -> None:
    message(site.ask(DEC, {"key_IDs": ids}, caller="kms-b", at="b"))


def test_unknown_resources_methods_and_partners(site: Site) -> None:
    message(site.ask("api/v1/keys/kms-b/other"), 404)
    message(site.ask("api/v2/keys/kms-b/status"), 404)
    message(site.ask("api/v1/keys/kms-b/status/more"), 404)
    answer = site.ask("api/v1/keys/kms-b/status", method="POST")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    assert site.ask(ENC, method="DELETE").status == 405
    assert "shares no keys" in message(site.ask("api/v1/keys/kms-x/enc_keys"))
    assert "shares no keys" in message(site.ask("api/v1/keys/kms-a/status"))


def test_too_few_keys_are_answered_503_with_when_to_ask_again() -> None:
    site = Site()
    site.make(4)
    answer = site.ask(ENC, {"number": 10}, rate=512.0)
    message(answer, 503)
    assert answer.headers["Retry-After"] == "4"
    assert site.a.level == 2
    assert site.ask(ENC, {"number": 100}, rate=0.0).headers["Retry-After"] == "10"


@given(path=st.text(max_size=40), body=st.binary(max_size=200), method=st.sampled_from(["GET", "POST", "PUT"]))
@settings(max_examples=100, deadline=None)
def test_any_request_is_answered(path: str, body: bytes, method: str) -> None:
    site = Site()
    for one in (path, ENC, DEC):
        answer = site.ask(one, method=method, raw=body)
        assert 400 <= answer.status < 500 or answer.status == 503 or answer.status == 200
        assert isinstance(json.loads(answer.body), dict)


def test_answers_show_no_keys_in_their_text(site: Site) -> None:
    answer = site.ask(ENC)
    assert json.loads(answer.body)["keys"][0]["key"] not in repr(answer)
