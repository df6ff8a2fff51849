"""Grants for those who may, and one answer for all who may not."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from keyhaul.keys.grants import encode, verify
from keyhaul.transport.messages.aaa import Authorise, SignedGrant
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import SlaveSite
from keyhaul.transport.operations import AAA_AUTHORISE

BERLIN = ("ukms-1", "first-berlin-1")


async def authorise(bench: Any, akms: str, ukms: str, master: str, *slaves: str) -> SignedGrant:
    reply = await bench.call(akms, AAA_AUTHORISE, Authorise(ukms=ukms, master=master, slaves=list(slaves)))
    assert isinstance(reply, SignedGrant)
    return reply


async def refused(bench: Any, akms: str, ukms: str, master: str, *slaves: str) -> ServiceError:
    with pytest.raises(ServiceError) as error:
        await authorise(bench, akms, ukms, master, *slaves)
    return error.value


async def test_a_grant_says_route_and_terms_and_verifies_as_it_travels(bench: Any) -> None:
    signed = await authorise(bench, "akms-2", *BERLIN, "first-bonn-1")
    grant = verify(encode(signed), bench.key.public_key())

    assert (grant.master, grant.master_ukms, grant.master_akms) == ("first-berlin-1", "ukms-1", "akms-2")
    assert grant.slaves == [SlaveSite("first-bonn-1", "ukms-15", "akms-14")]
    assert (grant.service_class, grant.sizes, grant.default_size) == ("gold", [128, 256], 256)
    assert (grant.domain, grant.target_kme, grant.loopback) == ("keyhaul.example", "kme-15", False)
    assert (grant.allowance, grant.lifetime_s, grant.epoch) == (500, 86_400, 1)
    assert len(grant.id) == 32


@pytest.mark.parametrize("service_class", ["gold", "silver", "bronze", "split"])
async def test_a_grant_says_the_class_of_the_contract_that_was_imported(bench: Any, service_class: str) -> None:
    text = bench.text.replace('class = "gold"', f'class = "{service_class}"')
    await bench.runtime.commands["import"]({"text": text, "name": "aaa.toml"})
    signed = await authorise(bench, "akms-2", *BERLIN, "first-bonn-1")
    assert verify(signed, bench.key.public_key()).service_class == service_class


async def test_every_grant_has_an_id_of_its_own(bench: Any) -> None:
    first = await authorise(bench, "akms-2", *BERLIN, "first-bonn-1")
    second = await authorise(bench, "akms-2", *BERLIN, "first-bonn-1")

    key = bench.key.public_key()
    assert verify(first, key).id != verify(second, key).id


async def test_several_slaves_come_in_the_order_asked_for(bench: Any) -> None:
    signed = await authorise(bench, "akms-2", *BERLIN, "first-bonn-2", "first-bonn-1")

    assert [slave.sae for slave in verify(signed, bench.key.public_key()).slaves] == ["first-bonn-2", "first-bonn-1"]


@pytest.mark.parametrize(
    ("akms", "ukms", "master", "slaves"),
    [
        ("akms-2", "ukms-1", "first-berlin-1", ["second-bonn"]),  # forbidden
        ("akms-2", "ukms-1", "first-berlin-1", ["nobody"]),  # unknown
        ("akms-2", "ukms-1", "first-berlin-1", ["first-bonn-1", "nobody"]),
        ("akms-2", "ukms-1", "first-berlin-1", ["' OR 1=1 --"]),
        ("akms-2", "ukms-1", "nobody", ["first-bonn-1"]),
        ("akms-2", "ukms-1", "first-berlin-1", ["first-berlin-1"]),  # no loopback
        ("akms-14", "ukms-15", "first-bonn-2", ["first-berlin-1"]),  # only the other direction
        ("akms-14", "ukms-1", "first-berlin-1", ["first-bonn-1"]),  # not its AKMS
        ("akms-2", "ukms-15", "first-berlin-1", ["first-bonn-1"]),  # not its UKMS
        ("akms-14", "ukms-15", "first-berlin-1", ["first-bonn-1"]),  # another AKMS claims the master
        ("akms-99", "ukms-99", "first-berlin-1", ["first-bonn-1"]),
    ],
)
async def test_whatever_is_not_permitted_gets_one_answer(
    bench: Any, akms: str, ukms: str, master: str, slaves: list[str]
) -> None:
    error = await refused(bench, akms, ukms, master, *slaves)

    assert error.code is ErrorCode.NOT_PERMITTED
    assert error.message == "these keys are not permitted"
    assert error.retry_after_ms == 0


async def test_unknown_and_forbidden_cost_the_same_queries(bench: Any) -> None:
    seen: list[str] = []
    engine = bench.database._engine
    event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))

    await refused(bench, "akms-2", *BERLIN, "nobody")
    unknown, seen[:] = list(seen), []
    await refused(bench, "akms-2", *BERLIN, "second-bonn")

    assert seen == unknown


async def test_only_a_contract_with_loopback_lets_a_master_be_its_own_slave(bench: Any) -> None:
    signed = await authorise(bench, "akms-2", "ukms-1", "probe-berlin", "probe-berlin")

    assert verify(signed, bench.key.public_key()).loopback


async def test_a_community_is_everybody_with_everybody_else(bench: Any) -> None:
    bench.load(
        bench.text + '[[community]]\nid = "branches"\ncustomer = "first"\nmembers = ["first-bonn-1", "first-bonn-2"]\n'
    )

    await authorise(bench, "akms-14", "ukms-15", "first-bonn-1", "first-bonn-2")
    await authorise(bench, "akms-14", "ukms-15", "first-bonn-2", "first-bonn-1")
    assert (await refused(bench, "akms-14", "ukms-15", "first-bonn-2", "first-bonn-2")).code is ErrorCode.NOT_PERMITTED
    assert (await refused(bench, "akms-14", "ukms-15", "first-bonn-2", "first-berlin-1")).code is (
        ErrorCode.NOT_PERMITTED
    )


@pytest.mark.parametrize("slaves", [[], ["first-bonn-1", "first-bonn-1"], [f"sae-{n}" for n in range(65)]])
async def test_slaves_that_make_no_sense_are_malformed(bench: Any, slaves: list[str]) -> None:
    assert (await refused(bench, "akms-2", *BERLIN, *slaves)).code is ErrorCode.MALFORMED


async def test_all_grants_together_promise_no_more_than_the_quota_leaves(bench: Any) -> None:
    key = bench.key.public_key()
    promised: list[int] = []
    while sum(promised) < 1000:
        signed = await authorise(bench, "akms-2", "ukms-1", "second-berlin", "second-bonn")
        promised.append(verify(signed, key).allowance)
    assert promised[0] == 250
    assert promised == sorted(promised, reverse=True)
    assert sum(promised) == 1000
    error = await refused(bench, "akms-14", "ukms-15", "second-bonn", "second-berlin")
    assert error.code is ErrorCode.EXHAUSTED
    assert error.retry_after_ms > 0


async def test_promises_that_ran_out_of_time_are_given_anew(bench: Any) -> None:
    await authorise(bench, "akms-2", "ukms-1", "second-berlin", "second-bonn")
    bench.now += 86_400
    signed = await authorise(bench, "akms-2", "ukms-1", "second-berlin", "second-bonn")

    assert verify(signed, bench.key.public_key()).allowance == 250


async def test_outcomes_are_counted_without_naming_anybody(bench: Any) -> None:
    await authorise(bench, "akms-2", *BERLIN, "first-bonn-1")
    await refused(bench, "akms-2", *BERLIN, "nobody")

    assert bench.metric("keyhaul_aaa_authorisations_total", outcome="granted") == 1
    assert bench.metric("keyhaul_aaa_authorisations_total", outcome="not-permitted") == 1
    text = repr(list(bench.runtime.registry.collect()))
    assert "first-" not in text
    assert "akms-2" not in text
