"""The published description of the interface to SAEs: valid, and true to the code."""

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from services.ukms import etsi014
from services.ukms.etsi014 import ALLOWED, Method
from services.ukms.wanted import wanted_keys

DOCUMENT = Path(__file__).parents[3] / "proto" / "etsi-014.openapi.json"


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(DOCUMENT.read_text())


def test_it_is_a_valid_document(document: Any) -> None:
    validate(document)


def test_it_has_every_method_and_no_other(document: Any) -> None:
    found = {
        (path.rpartition("/")[2], verb.upper())
        for path, item in document["paths"].items()
        for verb in item
        if verb != "parameters"
    }
    assert found == {(method.value, verb) for method in Method for verb in ALLOWED[method]}


def test_every_answer_but_200_has_an_error_body(document: Any) -> None:
    for name, response in document["components"]["responses"].items():
        if name != "Keys":
            schema = response["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Error"}, name


def test_its_texts_and_limits_are_the_codes(document: Any) -> None:
    responses = document["components"]["responses"]

    def messages(name: str) -> set[str]:
        examples = responses[name]["content"]["application/json"]["examples"]
        return {example["value"]["message"] for example in examples.values()}

    assert etsi014.slave_refused().error.message in messages("KeyRefused") & messages("StatusRefused")
    assert etsi014.keys_not_found().error.message in messages("KeysNotFound")
    assert etsi014.not_named().error.message in messages("NotNamed")
    assert {etsi014.exhausted().error.message, etsi014.unavailable().error.message} == messages("Unavailable")
    assert str(etsi014.MAXIMUM_BODY) in responses["TooLarge"]["description"]
    key_ids = document["components"]["schemas"]["KeyIds"]["properties"]["key_IDs"]
    assert key_ids["maxItems"] == etsi014.MAXIMUM_KEY_IDS


def test_its_examples_are_accepted(document: Any) -> None:
    path = document["paths"]
    post = path["/api/v1/keys/{slave_SAE_ID}/enc_keys"]["post"]["requestBody"]["content"]["application/json"]
    for example in post["examples"].values():
        body = json.dumps(example["value"]).encode()
        assert wanted_keys("sae-bonn-1", etsi014.post_enc_keys(body)).number >= 1
    ids = path["/api/v1/keys/{master_SAE_ID}/dec_keys"]["post"]["requestBody"]["content"]["application/json"]
    assert len(etsi014.post_dec_keys(json.dumps(ids["example"]).encode())) == 2
