"""Requests through two AKMSs: same keys at both ends, held before released, counted once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from keyhaul.randomness import identifier
from keyhaul.transport.messages.access import Describe
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import ACCESS_DESCRIBE
from services.akms.service import Terms
from tests.services.akms.town import WARM, Town, until


@pytest.mark.parametrize("service_class", ["gold", "silver"])
async def test_both_ends_get_the_same_keys(town: Town, service_class: str) -> None:
    town.aaa.service_class = service_class
    ids = await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 3)
    await town.settled("sae-1a", ["sae-2a"])
    assert len(ids) == 3
    assert set(town.ukms["ukms-2"].usable("slave", "sae-2a")) == set(ids)
    assert town.log.index("delivery.push") < town.log.index("peer.transfer")


async def test_whoever_owes_a_message_is_watched_until_it_came(town: Town) -> None:
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 3)
    await town.settled("sae-1a", ["sae-2a"])
    assert town.watched == {("akms-1", "akms-2"), ("akms-2", "akms-1"), ("akms-2", "ckms-2")}
    await until(lambda: not any(town.expected.values()))


@pytest.mark.parametrize("service_class", ["gold", "bronze"])
async def test_1024_keys_in_one_batch(town: Town, service_class: str) -> None:
    town.aaa.service_class = service_class
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 1024, 1024)
    await town.settled("sae-1a", ["sae-2a"])
    assert len(town.records) == 1


async def test_many_requests_at_once_in_both_directions(town: Town) -> None:
    asks = [town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 2) for _ in range(20)]
    back = [town.ukms["ukms-2"].ask("sae-2b", ["sae-1b"], 2) for _ in range(20)]
    await asyncio.gather(*asks, *back)
    await until(lambda: len(town.records) == 40)
    for master, slave in (("sae-1a", "sae-2a"), ("sae-2b", "sae-1b")):
        ukms = town.ukms[town.directory[master][0]]
        other = town.ukms[town.directory[slave][0]]
        assert len(ukms.usable("master", master)) == 40
        assert ukms.usable("master", master) == other.usable("slave", slave)


async def test_two_ukmss_under_one_akms_need_no_carrier(town: Town) -> None:
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-11a"], 4)
    await town.settled("sae-1a", ["sae-11a"])
    assert not town.relayed


async def test_loopback_is_one_push(town: Town) -> None:
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-1a"])
    await town.settled("sae-1a", ["sae-1a"])
    assert town.log.count("delivery.push") == 1


async def test_multicast_to_slaves_on_both_sides(town: Town) -> None:
    slaves = ["sae-2a", "sae-22a", "sae-11a", "sae-1b"]
    await town.ukms["ukms-1"].ask("sae-1a", slaves, 5)
    await town.settled("sae-1a", slaves)


async def test_multicast_is_void_when_one_slave_is_away(town: Town) -> None:
    town.ukms["ukms-11"].away = True
    with pytest.raises(ServiceError):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a", "sae-11a"], seconds=0.5)
    town.ukms["ukms-11"].away = False
    await town.ukms["ukms-11"].report()
    await town.settled("sae-1a", ["sae-2a", "sae-11a"])
    assert not town.records


async def test_a_warm_pool_serves_without_a_relay(tmp_path: Path) -> None:
    town = Town(tmp_path, Terms(pool=WARM))
    await town.open()
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    await until(lambda: town.b.service.carrier.levels()["made"][0]["available"] >= 4000)  # type: ignore[operator]
    relayed = town.relayed
    for _ in range(5):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    assert town.relayed == relayed
    await town.settled("sae-1a", ["sae-2a"])
    await town.close()


async def test_unknown_and_forbidden_look_alike(town: Town) -> None:
    town.aaa.refused_slaves.add("sae-2b")
    failures = []
    for slave in ("sae-2b", "nobody"):
        with pytest.raises(ServiceError) as failure:
            await town.ukms["ukms-1"].up(ACCESS_DESCRIBE, Describe(master="sae-1a", slaves=[slave]))
        failures.append((failure.value.code, failure.value.message))
    assert failures[0] == failures[1] == (ErrorCode.NOT_PERMITTED, "not permitted")


async def test_refusals_are_asked_once_for_a_while(town: Town) -> None:
    for _ in range(3):
        with pytest.raises(ServiceError):
            await town.ukms["ukms-1"].up(ACCESS_DESCRIBE, Describe(master="sae-1a", slaves=["nobody"]))
    assert town.aaa.authorised == 1


async def test_a_ukms_gets_nothing_for_a_master_of_another(town: Town) -> None:
    with pytest.raises(ServiceError):
        await town.ukms["ukms-11"].ask("sae-1a", ["sae-2a"])
    assert not town.records


async def test_key_material_from_a_user_is_refused_and_alarmed(town: Town) -> None:
    with pytest.raises(ServiceError) as refusal:
        await town.ukms["ukms-1"].send(identifier(), "sae-1a", ["sae-2a"], 1, 256, secret=b"mine")
    assert refusal.value.code is ErrorCode.FORBIDDEN
    assert "key-material-from-user" in town.a.process.alarms


async def test_a_repeated_request_is_made_once(town: Town) -> None:
    ukms, request = town.ukms["ukms-1"], identifier()
    ukms.requests[request] = asyncio.get_running_loop().create_future()
    for _ in range(3):
        await ukms.send(request, "sae-1a", ["sae-2a"], 1, 256)
    await ukms.requests[request]
    await town.settled("sae-1a", ["sae-2a"])
    assert len(town.records) == 1


async def test_nothing_of_a_user_reaches_the_carrier(town: Town) -> None:
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    told = "".join(map(repr, town.submitted))
    assert not any(word in told for word in ("sae-", "ukms-", *town.ukms["ukms-1"].requests))


async def test_size_and_number_outside_the_contract_are_refused(town: Town) -> None:
    for number, size in ((1, 40), (1, 2048), (1, 257), (0, 256), (1025, 256)):
        with pytest.raises(ServiceError):
            await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], number, size)
    assert not town.records
