"""Grants: limits under concurrency, refresh ahead of need, one question to AAA at a time."""

from __future__ import annotations

import asyncio
import time

import pytest

from keyhaul.transport.messages.base import ServiceError
from tests.services.akms.town import Town, until


async def test_no_more_keys_than_allowances_under_concurrency(town: Town) -> None:
    town.aaa.allowance = 7
    asks = [town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 2, seconds=2) for _ in range(12)]
    await asyncio.gather(*asks, return_exceptions=True)
    await town.settled("sae-1a", ["sae-2a"])
    by_grant: dict[str, int] = {}
    for grant, ids in town.records.values():
        by_grant[grant] = by_grant.get(grant, 0) + len(ids)
    assert by_grant
    assert all(count <= 7 for count in by_grant.values())


async def test_many_at_once_ask_aaa_once(town: Town) -> None:
    await asyncio.gather(*(town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"]) for _ in range(10)))
    assert town.aaa.authorised == 1


async def test_a_new_grant_comes_before_half_the_allowance_is_gone(town: Town) -> None:
    town.aaa.allowance = 10
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 6)
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 1)
    await until(lambda: town.aaa.authorised == 2)
    town.aaa.away = True
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 9)
    town.aaa.away = False
    await town.settled("sae-1a", ["sae-2a"])


async def test_a_grant_serves_only_its_own_set_of_slaves(town: Town) -> None:
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    town.aaa.refused_slaves.add("sae-22a")
    with pytest.raises(ServiceError):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-22a"])
    with pytest.raises(ServiceError):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a", "sae-22a"])


async def test_a_request_whose_answer_was_lost_is_repeated_under_its_name(town: Town) -> None:
    """So AAA can take back what the lost answer promised; after an answer the next request has another name."""
    town.lose_answer += ["aaa.authorise"]
    names = town.aaa.names
    with pytest.raises(ServiceError):
        await town.a.service.grants.obtain("ukms-1", "sae-1a", ["sae-2a"])
    await until(lambda: town.a.service.grants._refused["ukms-1", "sae-1a", ("sae-2a",)][0] < time.monotonic())
    await town.a.service.grants.obtain("ukms-1", "sae-1a", ["sae-2a"])
    await town.a.service.grants.obtain("ukms-1", "sae-1b", ["sae-2a"])
    assert len(names) == 3
    assert names[0] == names[1] != names[2]
    assert not town.a.service.grants._unanswered
