"""A contract's rate is held at the asker, with times to come back that hold; contracts share what they share."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from keyhaul.config.services import PoolSection
from keyhaul.randomness import identifier, random_bytes
from keyhaul.transport.messages.access import DeliveryFailed
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import FailureReason
from services.akms.cn_pool import MakerPool, Share
from services.akms.metrics import Metrics
from services.akms.rates import Rates
from services.akms.service import Terms
from tests.services.akms.town import COLD, Town, until


def rates() -> Rates:
    return Rates(Metrics(CollectorRegistry()))


def refused(of: Rates, grant: Any, number: int, now: float) -> float:
    """Seconds after which to come back; 0: it was not refused."""
    try:
        of.take(grant, number, now)
    except ServiceError as error:
        return error.retry_after_ms / 1000 if error.code is ErrorCode.EXHAUSTED else -1.0
    return 0.0


@pytest.fixture
def grant(town: Town) -> Any:
    def make(master: str = "sae-1a", **terms: Any) -> Any:
        return town.aaa.grant(master, ["sae-2a"], **{"contract": "first/silver", "rate": 10.0, "burst": 20, **terms})

    return make


async def test_what_exceeds_the_rate_is_refused_until_the_time_that_is_told(grant: Any) -> None:
    of = rates()
    assert refused(of, grant(), 20, 0.0) == 0
    wait = refused(of, grant(), 5, 0.0)
    assert wait == pytest.approx(0.5)
    assert refused(of, grant(), 5, wait - 0.1) > 0
    assert refused(of, grant(), 5, wait) == 0


async def test_saes_of_one_contract_share_its_rate_and_other_contracts_have_their_own(grant: Any) -> None:
    of = rates()
    assert refused(of, grant(), 20, 0.0) == 0
    assert refused(of, grant("sae-1b"), 1, 0.0) > 0
    assert refused(of, grant(contract="second/gold"), 20, 0.0) == 0
    assert refused(of, grant(contract="", rate=0.0, burst=0), 10_000, 0.0) == 0


async def test_what_one_sae_was_told_to_come_back_for_is_not_anothers_of_the_contract(grant: Any) -> None:
    of = rates()
    assert refused(of, grant(), 20, 0.0) == 0
    assert refused(of, grant(), 20, 0.0) == pytest.approx(2.0)
    assert refused(of, grant("sae-1b"), 20, 2.5) > 0
    assert refused(of, grant(), 20, 2.5) == 0


async def test_keys_that_were_not_delivered_are_given_back(grant: Any) -> None:
    of = rates()
    of.take(grant(), 20, 0.0)
    of.give_back(grant(), 20)
    assert refused(of, grant(), 20, 0.0) == 0


async def test_a_newer_grant_changes_the_rate_and_an_older_one_does_not(grant: Any) -> None:
    of = rates()
    of.take(grant(epoch=5), 20, 0.0)
    assert refused(of, grant(epoch=6, rate=100.0, burst=100), 10, 0.0) == pytest.approx(0.1)
    assert refused(of, grant(epoch=5), 10, 0.11) == 0
    assert refused(of, grant(epoch=6, rate=100.0, burst=100), 100, 1.2) == 0


async def test_the_ukms_hears_when_to_come_back_and_is_served_then(town: Town) -> None:
    town.aaa.terms = {"contract": "first/silver", "rate": 4.0, "burst": 2}
    ukms = town.ukms["ukms-1"]
    first, second = identifier(), identifier()
    for request in (first, second):
        ukms.requests[request] = asyncio.get_running_loop().create_future()
        await ukms.send(request, "sae-1a", ["sae-2a"], 2, 256)
    with pytest.raises(ServiceError):
        await asyncio.wait_for(ukms.requests[second], 5)
    failure: DeliveryFailed = ukms.failures[second]
    assert failure.reason is FailureReason.NO_KEYS
    assert 0 < failure.retry_after_ms <= 500
    assert failure.keys_per_second == 4.0
    await asyncio.sleep(failure.retry_after_ms / 1000)
    await ukms.ask("sae-1a", ["sae-2a"], 2)
    await until(lambda: len(town.records) == 2)


async def test_one_contract_at_full_speed_leaves_another_its_turn(tmp_path: Path) -> None:
    """With places for four requests, all that is greedy holds two, and the other customer waits for none of it."""
    town = Town(tmp_path, Terms(requests_per_peer=4, pool=COLD))
    await town.open()
    town.aaa.terms_of = {"sae-1a": {"contract": "greedy"}, "sae-1b": {"contract": "modest"}}
    stopped: list[bytes] = []
    town.carrier = [lambda bits: stopped.append(bits) or None] * 4  # type: ignore[func-returns-value]
    town.ukms["ukms-1"].requests |= (
        names := {identifier(): asyncio.get_running_loop().create_future() for _ in range(8)}
    )
    for request in names:
        await town.ukms["ukms-1"].send(request, "sae-1a", ["sae-2a"], 1, 256)
    await until(lambda: town.a.service.asking.under_way["asking"] == 2)
    town.carrier = []
    async with asyncio.timeout(5):
        await town.ukms["ukms-1"].ask("sae-1b", ["sae-2b"])
        await asyncio.gather(*names.values())
    await until(lambda: town.a.service.asking.under_way == {"asking": 0, "queued": 0})
    await town.close()


def test_cn_bits_go_to_contracts_in_fair_order() -> None:
    pool = MakerPool("silver", PoolSection(minimum=0, maximum=0, batches=[512, 4096]), random_bytes, 0.0)
    greedy = [pool.ask(400, 0.0, Share("greedy")) for _ in range(40)]
    modest = pool.ask(400, 0.0, Share("modest"))
    heavy = [pool.ask(400, 0.0, Share("heavy", 4.0)) for _ in range(8)]
    order: list[int] = []
    now = 0.0
    while len(order) < 20:
        for batch in pool.plan(now):
            pool.submitted(batch.name)
            pool.delivered(batch.name)
            pool.confirm(batch.name, batch.check, now)
        order += [ticket for ticket, _ in pool.serve(now)]
        now += 0.1
    assert modest in order[:3]
    assert sum(ticket in heavy for ticket in order[:12]) >= 7
    assert [ticket for ticket in order if ticket in greedy] == greedy[: sum(ticket in greedy for ticket in order)]
