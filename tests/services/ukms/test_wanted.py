"""What a request for keys wants: refused where nobody can have it, or where the contract does not give it."""

from typing import Any

import pytest

from keyhaul.identity.names import SaeId
from keyhaul.keys.etsi014 import KeyRequest
from keyhaul.transport.messages.access import Description
from services.ukms.etsi014 import Refusal, post_enc_keys, slave_refused
from services.ukms.wanted import Wanted, wanted_keys, within_terms

TERMS = Description(
    target_kme="kme-b",
    service_class="silver",
    default_size=256,
    minimum_size=64,
    maximum_size=1024,
    maximum_keys_per_request=128,
    maximum_additional_slaves=1,
    maximum_stored_keys=4096,
)


def refused(call: Any, *arguments: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value


def test_huge_numbers_are_refused_as_out_of_range() -> None:
    request = post_enc_keys(b'{"number": 123456789012345678901234567890}')
    wanted = wanted_keys("b", request)
    assert refused(within_terms, wanted, TERMS).error.message == "number shall be at most 128"


def test_mandatory_extensions_are_named_in_the_details() -> None:
    request = KeyRequest(extension_mandatory=[{"abc_route_type": "direct", "xyz_age": 3}, {}])
    refusal = refused(wanted_keys, "b", request)
    assert refusal.status == 400
    assert refusal.error.message == "not all extension_mandatory parameters are supported"
    assert refusal.error.details == [
        {"extension_mandatory_unsupported": "abc_route_type is not supported"},
        {"extension_mandatory_unsupported": "xyz_age is not supported"},
    ]


def test_optional_extensions_are_ignored() -> None:
    assert wanted_keys("b", KeyRequest(extension_optional=[{"abc_age": 1}])) == Wanted((SaeId("b"),), 1, None)


def test_a_size_that_is_no_multiple_of_8_gets_the_prescribed_text() -> None:
    assert refused(wanted_keys, "b", KeyRequest(size=255)).error.message == "size shall be a multiple of 8"


@pytest.mark.parametrize("request_", [KeyRequest(number=0), KeyRequest(number=-5), KeyRequest(size=0)])
def test_amounts_below_one_are_refused(request_: KeyRequest) -> None:
    assert refused(wanted_keys, "b", request_).status == 400


@pytest.mark.parametrize("name", ["", "a/b", "ä", "x" * 65, "a b", "a\x00"])
def test_an_impossible_slave_gets_the_answer_of_an_unknown_one(name: str) -> None:
    unknown = slave_refused()
    for refusal in (
        refused(wanted_keys, name, KeyRequest()),
        refused(wanted_keys, "b", KeyRequest(additional_slave_SAE_IDs=[name])),
    ):
        assert (refusal.status, refusal.error) == (unknown.status, unknown.error)


def test_a_slave_named_twice_counts_once() -> None:
    wanted = wanted_keys("b", KeyRequest(additional_slave_SAE_IDs=["c", "b", "c"]))
    assert wanted.slaves == ("b", "c")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted((SaeId("b"),), 129, None), "number shall be at most 128"),
        (Wanted((SaeId("b"),), 1, 56), "size shall be from 64 to 1024"),
        (Wanted((SaeId("b"),), 1, 1032), "size shall be from 64 to 1024"),
        (
            Wanted((SaeId("b"), SaeId("c"), SaeId("d")), 1, 64),
            "additional_slave_SAE_IDs names more SAEs than max_SAE_ID_count",
        ),
    ],
)
def test_requests_beyond_the_contract_are_refused(wanted: Wanted, message: str) -> None:
    assert refused(within_terms, wanted, TERMS).error.message == message


def test_the_default_size_is_the_contracts() -> None:
    assert within_terms(Wanted((SaeId("b"),), 1, None), TERMS) == 256
