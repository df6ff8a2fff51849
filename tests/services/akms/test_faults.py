"""Lost answers, deaths between any two steps, swapped and withheld CN bits, outages: both ends come to one view."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from keyhaul.transport.interface import Peer
from keyhaul.transport.messages.aaa import Revocation
from keyhaul.transport.messages.base import ServiceError
from keyhaul.transport.messages.peer import Withdraw
from keyhaul.transport.operations import ACCESS_WITHDRAW, PEER_TRANSFER
from services.akms.cn_path import FIRST_PATIENCE
from services.akms.service import Terms
from tests.services.akms.town import WARM, MemoryCalls, Town, until


@pytest.mark.parametrize(
    "operation",
    ["peer.transfer", "peer.confirm", "delivery.push", "aaa.usage", "delivery.settle", "carrier.submit"],
)
async def test_a_lost_answer_changes_nothing(town: Town, operation: str) -> None:
    town.lose_answer.append(operation)
    ids = await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 2)
    await town.settled("sae-1a", ["sae-2a"])
    assert set(town.ukms["ukms-1"].usable("master", "sae-1a")) == set(ids)


async def test_a_lost_answer_to_a_request_leaves_both_ends_alike(town: Town) -> None:
    town.lose_answer.append("peer.request")
    with contextlib.suppress(ServiceError):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 2)
    await town.settled("sae-1a", ["sae-2a"])


async def test_swapped_cn_bits_are_burned_and_others_made(town: Town) -> None:
    town.carrier.append(lambda bits: bits[:-1] + bytes([bits[-1] ^ 1]))
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], seconds=15)
    assert "cn-bits-differ" in town.a.process.alarms
    assert "cn-bits-differ" in town.b.process.alarms
    await town.settled("sae-1a", ["sae-2a"])


async def test_after_a_relay_failure_a_fresh_key_goes_under_a_new_name(town: Town) -> None:
    town.carrier += [lambda bits: None, lambda bits: None]
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    assert len({submit.batch for submit in town.submitted}) == len({submit.bits for submit in town.submitted}) == 3
    await town.settled("sae-1a", ["sae-2a"])


async def test_without_a_carrier_nothing_stays(town: Town) -> None:
    town.carrier += [lambda bits: None] * 200
    with pytest.raises(ServiceError):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], seconds=0.5)
    await town.settled("sae-1a", ["sae-2a"])
    assert not town.records
    town.carrier.clear()
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])


@pytest.mark.parametrize("service_class", ["gold", "silver"])
async def test_a_restarted_asker_gets_fresh_cn_bits(tmp_path: Path, service_class: str) -> None:
    town = Town(tmp_path, Terms(pool=WARM))
    town.aaa.service_class = service_class
    await town.open()
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    await town.settled("sae-1a", ["sae-2a"])
    await town.a.restart()
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    assert "cn-bits-unknown" in town.b.process.alarms
    await town.settled("sae-1a", ["sae-2a"])
    await town.close()


async def test_bits_that_a_restarted_asker_lacks_are_told_once(tmp_path: Path) -> None:
    """Each of the requests under way was handed some of them."""
    town = Town(tmp_path, Terms(pool=WARM))
    town.aaa.service_class = "gold"
    await town.open()
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    await town.settled("sae-1a", ["sae-2a"])
    await town.a.restart()
    await asyncio.gather(*(town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"]) for _ in range(8)))
    assert town.log.count("peer.transfer") > 9
    assert town.b.process.alarms.count("cn-bits-unknown") == 1
    await town.settled("sae-1a", ["sae-2a"])
    await town.close()


async def test_bits_under_way_are_not_waited_for_when_a_connection_ends(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They vanished with a process, and no carrier node says so: patience would last for five seconds."""

    def vanish(bits: bytes) -> bytes:
        raise asyncio.CancelledError

    gone: list[bool] = []
    monkeypatch.setattr(MemoryCalls, "connected", property(lambda calls: not gone))
    town.carrier += [vanish]
    asking = asyncio.create_task(town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"]))
    await until(lambda: town.submitted)
    gone.append(True)
    await until(lambda: len(town.submitted) > 1, 2)
    gone.clear()
    await asyncio.wait_for(asking, 2)
    await town.settled("sae-1a", ["sae-2a"])


@pytest.mark.parametrize("node", ["akms-1", "akms-2"])
async def test_a_death_between_any_two_steps(tmp_path: Path, node: str) -> None:
    """Each run dies one step later than the one before, until a request goes through unharmed."""
    for death in range(1, 60):
        path = tmp_path / str(death)
        path.mkdir()
        town = Town(path)
        await town.open()
        mortal = town.akms[node]
        mortal.die_at = mortal.steps + death
        asking = asyncio.create_task(town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 2, seconds=0.4))
        while not asking.done() and not mortal.died.is_set():
            await asyncio.wait([asking], timeout=0.005)
        alive = not mortal.died.is_set()
        await asyncio.sleep(0)
        await mortal.restart()
        await asyncio.wait([asking], timeout=0.6)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        try:
            await town.settled("sae-1a", ["sae-2a"])
            # CN bits that were on their way to it when it died are waited for so long.
            await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], seconds=2 * FIRST_PATIENCE)
            await town.settled("sae-1a", ["sae-2a"])
        except BaseException as error:
            error.add_note(f"died at step {death} of {node}: {town.log}")
            raise
        await town.close()
        if alive:
            return
    raise AssertionError("a request takes more steps than the test foresees")


async def a_request_under_way(town: Town) -> asyncio.Task[list[UUID]]:
    """A request that its maker took on and cannot finish: the slave's UKMS is away. Its time is a minute."""
    town.ukms["ukms-2"].away = True
    asking = asyncio.create_task(town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], seconds=60))
    await until(lambda: town.b.service.making.under_way and town.log.count("delivery.push") > 1)
    return asking


async def test_when_a_maker_dies_its_askers_hear_of_it_at_once(town: Town) -> None:
    asking = await a_request_under_way(town)
    await town.b.stop()
    with pytest.raises(ServiceError, match="unreachable"):
        await asyncio.wait_for(asking, 5)
    town.ukms["ukms-2"].away = False
    await town.b.start()
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    await town.settled("sae-1a", ["sae-2a"])


async def test_a_maker_that_began_anew_makes_what_the_process_before_had_taken_on(town: Town) -> None:
    asking = await a_request_under_way(town)
    noticed, town.b.died = town.b.died, asyncio.Event()
    await town.b.restart()
    noticed.set()
    town.ukms["ukms-2"].away = False
    key_ids = await asyncio.wait_for(asking, 5)
    await town.settled("sae-1a", ["sae-2a"])
    assert set(town.ukms["ukms-1"].usable("master", "sae-1a")) == set(key_ids)


async def test_a_maker_that_lives_makes_once_however_often_the_connection_is_lost(town: Town) -> None:
    asking = await a_request_under_way(town)
    for asked in (2, 3, 4):
        town.b.died.set()
        town.b.died.clear()
        await until(lambda asked=asked: town.log.count("peer.request") == asked)  # type: ignore[misc]
    town.ukms["ukms-2"].away = False
    await asyncio.wait_for(asking, 5)
    await town.settled("sae-1a", ["sae-2a"])
    assert len({push.batch for push in town.ukms["ukms-2"].pushed}) == 1


@pytest.mark.parametrize("slaves", [["sae-11a"], ["sae-2a", "sae-11a"]])
async def test_a_death_with_slaves_on_the_masters_side(tmp_path: Path, slaves: list[str]) -> None:
    for death in range(1, 60):
        path = tmp_path / str(death)
        path.mkdir()
        town = Town(path)
        await town.open()
        mortal = town.a
        mortal.die_at = mortal.steps + death
        asking = asyncio.create_task(town.ukms["ukms-1"].ask("sae-1a", slaves, 2, seconds=0.4))
        while not asking.done() and not mortal.died.is_set():
            await asyncio.wait([asking], timeout=0.005)
        alive = not mortal.died.is_set()
        await mortal.restart()
        await asyncio.wait([asking], timeout=0.6)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        try:
            await town.settled("sae-1a", slaves)
        except BaseException as error:
            error.add_note(f"died at step {death}: {town.log}")
            raise
        await town.close()
        if alive:
            return
    raise AssertionError("a request takes more steps than the test foresees")


async def test_aaa_away_uses_what_is_left_through_a_restart(town: Town) -> None:
    town.aaa.allowance = 10
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 4)
    await town.settled("sae-1a", ["sae-2a"])
    town.aaa.away = True
    await town.a.restart()
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 4)
    with pytest.raises(ServiceError):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 4)
    town.aaa.away = False
    await town.settled("sae-1a", ["sae-2a"])
    assert len(town.records) == 2


async def test_a_ukms_that_was_away_gets_its_keys_when_it_is_back(town: Town) -> None:
    ukms = town.ukms["ukms-2"]
    ukms.away = True
    asking = asyncio.create_task(town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], seconds=10))
    await until(lambda: town.log.count("delivery.push") > 2)
    assert not town.ukms["ukms-1"].usable("master", "sae-1a")
    assert not town.records
    ukms.away = False
    await ukms.report()
    await asking
    await town.settled("sae-1a", ["sae-2a"])


async def test_a_new_store_of_a_slaves_ukms_stops_the_master(town: Town) -> None:
    ids = await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 4)
    await town.settled("sae-1a", ["sae-2a"])
    master, slave = town.ukms["ukms-1"], town.ukms["ukms-2"]
    master.issue("sae-1a", ids[:1])
    slave.new_store()
    await slave.report()
    await until(lambda: set(master.usable("master", "sae-1a")) == {ids[0]})
    await until(lambda: town.aaa.void == set(ids[1:]))
    assert "ukms-store-replaced" in town.b.process.alarms


async def test_a_new_store_of_the_masters_ukms_leaves_the_slaves_copies(town: Town) -> None:
    ids = await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 2)
    await town.settled("sae-1a", ["sae-2a"])
    master, slave = town.ukms["ukms-1"], town.ukms["ukms-2"]
    master.issue("sae-1a", ids)
    master.new_store()
    await master.report()
    slave.new_store()
    await slave.report()
    await until(lambda: town.log.count("peer.void") == 1)
    await asyncio.sleep(0.05)
    assert not town.aaa.void


async def test_what_expires_at_the_master_goes_at_the_slave(town: Town) -> None:
    ids = await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 3)
    await town.settled("sae-1a", ["sae-2a"])
    batch = next(iter(town.records))
    await town.ukms["ukms-1"].up(ACCESS_WITHDRAW, Withdraw(batch=batch, key_ids=ids[:2]))
    await until(lambda: set(town.ukms["ukms-2"].usable("slave", "sae-2a")) == set(ids[2:]))
    await until(lambda: town.aaa.expired == set(ids[:2]))


async def test_a_stranger_withdraws_nothing(town: Town) -> None:
    ids = await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 3)
    await town.settled("sae-1a", ["sae-2a"])
    batch = next(iter(town.records))
    await town.ukms["ukms-11"].up(ACCESS_WITHDRAW, Withdraw(batch=batch, key_ids=ids))
    await town.settled("sae-1a", ["sae-2a"])
    assert not town.aaa.expired


async def test_a_revocation_reaches_the_masters_ukms_and_ends_grants(town: Town) -> None:
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    town.aaa.refused_slaves.add("sae-2a")
    town.aaa.revocations.append(Revocation(serial=1, master="sae-1a", slaves=["sae-2a"]))
    await until(lambda: town.ukms["ukms-1"].revoked)
    assert not town.ukms["ukms-11"].revoked
    assert not town.ukms["ukms-2"].revoked
    with pytest.raises(ServiceError):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    await town.settled("sae-1a", ["sae-2a"])


async def test_keys_released_but_not_handed_over_are_recalled_at_a_revocation(town: Town) -> None:
    master = town.ukms["ukms-1"]
    asking = asyncio.create_task(master.ask("sae-1a", ["sae-2a"], seconds=10))
    await until(lambda: "peer.transfer" in town.log)
    master.away = True
    await asyncio.wait([asking], timeout=0.2)
    town.aaa.refused_slaves.add("sae-2a")
    town.aaa.revocations.append(Revocation(serial=1, master="sae-1a"))
    await until(lambda: "aaa.usage" in town.log)
    await asyncio.sleep(0.1)
    master.away = False
    await master.report()
    await until(lambda: master.revoked)
    await town.settled("sae-1a", ["sae-2a"])
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_what_a_ukms_holds_and_nobody_knows_is_void(town: Town) -> None:
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    await town.settled("sae-1a", ["sae-2a"])
    ukms = town.ukms["ukms-2"]
    ukms.unsettled.add("f" * 32)
    await ukms.report()
    await until(lambda: "f" * 32 in ukms.void)
    await town.settled("sae-1a", ["sae-2a"])


async def test_a_makers_record_that_ends_during_the_transfer_fails_nothing(town: Town) -> None:
    """Its clock was put forward; the asker has released the keys, and the record is purged before the answer."""
    route = town.a.routes.find(PEER_TRANSFER.path)
    assert route is not None
    handler = route.handler

    async def then_purge(peer: Peer, message: Any) -> Any:
        answer = await handler(peer, message)
        town.b.ahead = 200_000.0
        await town.b.service.endings.purge()
        return answer

    town.a.routes._routes[PEER_TRANSFER.path] = type(route)(route.operation, route.request, then_purge)
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 2)
    await until(lambda: not town.b.service.making.under_way)
    await town.settled("sae-1a", ["sae-2a"])
