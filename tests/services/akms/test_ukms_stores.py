"""What an AKMS remembers of its UKMSs' stores, what it tells of it, and what follows from a new one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import Connection, select, text

from keyhaul.config.services import StoreSection
from keyhaul.keys.states import KeyState
from keyhaul.randomness import identifier
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import Schema, StoreUnavailable
from keyhaul.transport.messages.aaa import Revocation
from keyhaul.transport.messages.access import Report, Reported
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import Voided, VoidKeys
from keyhaul.transport.operations import ACCESS_REPORT, DELIVERY_PUSH, PEER_VOID
from services.akms import batches, exposures
from services.akms.batches import find
from services.akms.pace import Pace
from services.akms.stores import GREATEST, Known, UkmsStores
from services.akms.tables import SCHEMA, UKMS_STORES, USAGE, store_of
from tests.services.akms.town import Town, Ukms, name, until

UKMS = "ukms-1"
ONE, TWO, THREE = "1" * 32, "2" * 32, "3" * 32


async def tell(ukms: Ukms, store: str, generation: int = 0, **more: Any) -> tuple[str, int]:
    report = Report(store=store, unsettled=[], generation=generation, **more)
    reported = await ukms.up(ACCESS_REPORT, report)
    return reported.store, reported.generation


async def opened(directory: Path, schema: Schema = SCHEMA) -> EmbeddedStore:
    return await EmbeddedStore.open(StoreSection(path="store.db", key_file="store.key"), directory, schema)


async def again(store: EmbeddedStore) -> UkmsStores:
    """What a process would find that starts now."""
    stores = UkmsStores(store, Pace())
    await stores.load()
    return stores


async def test_a_report_is_answered_with_what_was_known_before_it(town: Town) -> None:
    ukms = town.ukms[UKMS]
    former = ukms.store
    assert await tell(ukms, former, 5) == (former, 0)
    assert await tell(ukms, former, 9) == (former, 5)
    assert await tell(ukms, former, 7) == (former, 9)
    assert await tell(ukms, former) == (former, 9)
    assert await tell(ukms, TWO, 3) == (former, 9)
    assert await tell(ukms, TWO) == (TWO, 3)


async def test_an_inquiry_changes_nothing(town: Town) -> None:
    ukms = town.ukms[UKMS]
    former = ukms.store
    await tell(ukms, former, 5)
    for _ in range(3):
        assert await tell(ukms, TWO, 99, inquiry=True) == (former, 5)
    assert await tell(ukms, former) == (former, 5)
    assert "ukms-store-replaced" not in town.a.process.alarms


async def test_an_inquiry_is_checked_like_any_report(town: Town) -> None:
    with pytest.raises(ServiceError) as caught:
        await tell(town.ukms[UKMS], "short", inquiry=True)
    assert caught.value.code is ErrorCode.MALFORMED


async def test_a_ukms_of_the_release_before_is_answered(town: Town) -> None:
    message = msgspec.json.decode(b'{"v":1,"store":"%s","unsettled":[]}' % TWO.encode(), type=Report)
    reply = await town.ukms[UKMS].up(ACCESS_REPORT, message)
    msgspec.json.decode(msgspec.json.encode(reply), type=Accepted)


async def test_requests_pushes_and_voids_tell_too(town: Town) -> None:
    ukms, slave = town.ukms[UKMS], town.ukms["ukms-2"]
    await tell(ukms, ukms.store, 1)
    ukms.generation, slave.generation = 20, 30
    await ukms.ask("sae-1a", ["sae-2a"])
    await town.settled("sae-1a", ["sae-2a"])
    assert await tell(ukms, ukms.store) == (ukms.store, 20)
    assert await tell(slave, slave.store) == (slave.store, 30)


async def test_after_a_restart_it_is_still_known(town: Town) -> None:
    ukms = town.ukms[UKMS]
    await tell(ukms, TWO, 12)
    ukms.store = TWO
    async with asyncio.timeout(5):
        while (await again(town.a.store.real)).known(UKMS) != Known(TWO, 12):
            await asyncio.sleep(0.001)
    await town.a.restart()
    assert await tell(ukms, TWO) == (TWO, 12)


async def test_a_store_that_comes_while_another_one_is_being_replaced_is_not_forgotten(town: Town) -> None:
    """What was held under the identity before, and under the one in between, is withdrawn; what is held under the last
    one stays."""
    ids = await town.ukms[UKMS].ask("sae-1a", ["sae-2a"], 4)
    await town.settled("sae-1a", ["sae-2a"])
    master, slave = town.ukms[UKMS], town.ukms["ukms-2"]
    slave.new_store()
    await asyncio.gather(slave.report(), tell(slave, TWO), tell(slave, THREE))
    slave.store = THREE
    await until(lambda: town.aaa.void == set(ids))
    assert not master.usable("master", "sae-1a")

    async def known() -> str | None:
        return await town.b.store.read(lambda connection: store_of(connection, "ukms-2"))

    async with asyncio.timeout(5):
        while await known() != THREE:
            await asyncio.sleep(0.001)
    more = await master.ask("sae-1a", ["sae-2a"], 2)
    await town.settled("sae-1a", ["sae-2a"])
    await slave.report()
    assert set(slave.usable("slave", "sae-2a")) >= set(more)


async def test_an_identity_is_durable_before_it_counts_as_taken(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    stores = await again(store)
    await stores.identified(UKMS, ONE)
    assert (await again(store)).known(UKMS) == Known(ONE, 0)
    stores.told(UKMS, 7)
    await stores.flush()
    await stores.identified(UKMS, TWO)
    assert (await again(store)).known(UKMS) == Known(TWO, 0)
    assert await store.read(lambda c: store_of(c, UKMS)) == ONE, "what was in it is still to be withdrawn"
    await store.close()
    with pytest.raises(StoreUnavailable):
        await stores.identified(UKMS, THREE)
    with pytest.raises(StoreUnavailable):
        await stores.identified(UKMS, THREE)


async def test_a_generation_is_known_at_once_and_durable_soon(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    stores = UkmsStores(store, Pace(generations=0.001))
    await stores.identified(UKMS, ONE)
    running = asyncio.create_task(stores.run())
    for generation in range(1, 50):
        stores.told(UKMS, generation)
        assert stores.known(UKMS).generation == generation
    async with asyncio.timeout(5):
        while (await again(store)).known(UKMS) != Known(ONE, 49):
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


async def test_only_the_present_store_and_only_upwards(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    stores = await again(store)
    stores.told(UKMS, 5)
    assert stores.known(UKMS) == Known()
    await stores.identified(UKMS, ONE)
    for generation, of in ((5, ONE), (4, ONE), (9, TWO), (-3, ""), (GREATEST + 1, ""), (6, "")):
        stores.told(UKMS, generation, of)
    assert stores.known(UKMS) == Known(ONE, 6)
    stores.told("ukms-2", 5)
    await stores.flush()
    assert (await again(store)).known(UKMS) == Known(ONE, 6)
    await stores.identified(UKMS, TWO)
    stores.told(UKMS, 2, ONE)
    assert stores.known(UKMS) == Known(TWO, 0)
    await store.close()


async def test_a_store_of_the_release_before_knows_what_it_knew(tmp_path: Path) -> None:
    store = await opened(tmp_path)

    def as_before(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE usage DROP COLUMN ukms"))
        line = "('expired', 'b', '', 0, x'00', 0, false)"
        connection.execute(text(f"INSERT INTO usage (kind, batch, grant, size, key_ids, at, refused) VALUES {line}"))
        for index in ("batches_by_peer", "batches_compromised"):
            connection.execute(text(f"DROP INDEX {index}"))
        for column in ("exposed", "compromised"):
            connection.execute(text(f"ALTER TABLE batches DROP COLUMN {column}"))
        connection.execute(text("DROP TABLE exposures"))
        row = "'b', 'asker', 'akms-2', '', '', 'm', 'u', x'5b5d', x'7b7d', 'silver', 8, x'', 'issued', 1e12, NULL"
        connection.execute(text(f"INSERT INTO batches VALUES ({row})"))
        connection.execute(text("DROP TABLE ukms_stores"))
        connection.execute(text("CREATE TABLE ukms_stores (ukms VARCHAR(64) PRIMARY KEY, store VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO ukms_stores VALUES (:ukms, :store)"), {"ukms": UKMS, "store": ONE})
        connection.execute(text("UPDATE keyhaul_store SET value = '1' WHERE name = 'version'"))

    await store.write(as_before)
    await store.close()
    store = await opened(tmp_path)
    stores = await again(store)
    assert stores.known(UKMS) == Known(ONE, 0)
    stores.told(UKMS, 4)
    await stores.flush()
    assert (await again(store)).known(UKMS) == Known(ONE, 4)
    assert await store.read(lambda c: c.execute(select(USAGE.c.batch, USAGE.c.ukms)).all()) == [("b", "")]
    [batch] = await store.read(lambda c: batches.in_state(c, batches.Part.ASKER, KeyState.ISSUED))
    assert not batch.exposed
    found = await store.read(lambda c: exposures.concerned(c, batches.Part.ASKER, "akms-2", "silver"))
    assert found == ["b"]
    assert await store.read(exposures.all_known) == {}
    await store.close()


async def on_their_way(town: Town, number: int = 4) -> tuple[str, list[UUID]]:
    """A batch that the master's UKMS has, which the AKMS does not know: no answer to a push arrives."""
    master = town.ukms[UKMS]
    handle = master.handle

    async def silent(operation: Any, request: Any, secret: bytes) -> Any:
        answer = await handle(operation, request, secret)
        if operation is DELIVERY_PUSH and request.for_master:
            raise ServiceError(ErrorCode.UNREACHABLE)
        return answer

    master.handle = silent  # type: ignore[method-assign]
    ids = await master.ask("sae-1a", ["sae-2a"], number)
    await until(lambda: town.records)
    (batch,) = town.records
    assert await state_of(town, batch) is KeyState.RELEASED
    master.issue("sae-1a", ids[:1])
    return batch, ids


async def state_of(town: Town, batch: str) -> KeyState:
    found = await town.a.store.real.read(lambda connection: find(connection, batch))
    assert found is not None
    return found.state


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_may_have_been_handed_out_before_the_masters_store_was_lost_stays(
    town: Town, restarted: bool
) -> None:
    """It is not pushed to the new store, nothing of it is void, and slaves may fetch what masters got."""
    batch, ids = await on_their_way(town)
    master, slave = town.ukms[UKMS], town.ukms["ukms-2"]
    copies = slave.usable("slave", "sae-2a")
    master.new_store()
    await master.report()
    assert await state_of(town, batch) is KeyState.DESTROYED
    if restarted:
        await town.a.restart()
    pushed = len(master.pushed)
    town.aaa.revocations.append(Revocation(serial=1, master="sae-1a"))
    await until(lambda: master.revoked)
    await master.report()
    town.a.service.returned(UKMS)
    reply = await town.to_akms(
        name("akms-2"), town.b.certificate, "akms-1", PEER_VOID, VoidKeys(batch=batch, key_ids=ids)
    )
    assert (reply.voided, set(reply.issued)) == ([], set(ids))
    assert await town.a.service.accounting.flush()
    assert len(master.pushed) == pushed
    assert set(copies) == set(ids)
    assert slave.usable("slave", "sae-2a") == copies
    assert not town.aaa.void | town.aaa.expired
    assert town.records[batch][1] == set(ids)


@pytest.mark.parametrize("when", [1, 2])
async def test_a_new_identity_and_what_follows_for_batches_are_one_transaction(town: Town, when: int) -> None:
    """The AKMS dies before or after the write: the other half is never missing."""
    batch, _ = await on_their_way(town)
    master = town.ukms[UKMS]
    master.new_store()
    master.away = True
    town.a.die_at = town.a.steps + when
    report = asyncio.create_task(master.report())
    await town.a.died.wait()
    known = (await again(town.a.store.real)).known(UKMS).store
    assert (known == master.store) is (await state_of(town, batch) is KeyState.DESTROYED)
    report.cancel()
    await asyncio.gather(report, return_exceptions=True)
    master.away = False
    await town.a.restart()
    assert await state_of(town, batch) is KeyState.DESTROYED


class Closed:
    """A UKMS whose process has just started and has not reported: it takes nothing yet, and counts who tried."""

    def __init__(self, ukms: Ukms) -> None:
        self.refused: list[str] = []
        self.open = False
        self._handle: Any = ukms.handle
        ukms.handle = self._answer  # type: ignore[method-assign]

    async def _answer(self, operation: Any, request: Any, secret: bytes) -> Any:
        if operation is DELIVERY_PUSH and request.for_master and not self.open:
            self.refused.append(request.batch)
            raise ServiceError(ErrorCode.BUSY, "this UKMS has just started")
        return await self._handle(operation, request, secret)


async def asked(town: Town, number: int = 4) -> None:
    """A request whose answer the UKMS that made it does not see any more."""
    request = identifier()
    town.ukms[UKMS].requests[request] = asyncio.get_running_loop().create_future()
    await town.ukms[UKMS].send(request, "sae-1a", ["sae-2a"], number, 256)
    town.ukms[UKMS].requests.clear()


async def test_what_no_process_with_a_former_store_can_have_got_is_void_on_both_sides(town: Town) -> None:
    """A batch that is released while the new process has told nothing yet: nobody gets it, so nobody is charged."""
    master, slave = town.ukms[UKMS], town.ukms["ukms-2"]
    closed = Closed(master)
    master.new_store()
    await asked(town)
    await until(lambda: closed.refused)
    batch = closed.refused[0]
    await until(lambda: town.records)
    ids = town.records[batch][1]
    await master.report()
    assert await state_of(town, batch) is KeyState.RELEASED
    closed.open = True
    await until(lambda: town.aaa.void == ids)
    await until(lambda: not slave.usable("slave", "sae-2a"))
    assert not town.a.process.failures


async def test_what_was_released_while_the_masters_ukms_could_not_be_reached_may_be_anywhere(town: Town) -> None:
    """What the AKMS began to send while no session stood may have reached the process before: it stays counted."""
    master, slave = town.ukms[UKMS], town.ukms["ukms-2"]
    master.new_store()
    await asked(town)
    master.away = True
    await until(lambda: town.records and DELIVERY_PUSH.name in town.log)
    (batch,) = town.records
    await until(lambda: town.log.count(DELIVERY_PUSH.name) >= 3)
    master.away = False
    await master.report()
    assert await state_of(town, batch) is KeyState.DESTROYED
    assert set(slave.usable("slave", "sae-2a")) == town.records[batch][1]
    assert not town.aaa.void


async def test_what_an_earlier_process_released_may_be_anywhere(town: Town) -> None:
    """The AKMS starts again: it does not know any more to whom it had sent what."""
    master = town.ukms[UKMS]
    closed = Closed(master)
    master.new_store()
    await asked(town)
    await until(lambda: closed.refused)
    await town.a.restart()
    assert await state_of(town, closed.refused[0]) is KeyState.DESTROYED


async def test_keys_that_a_new_store_has_are_not_lost_with_the_one_before(town: Town) -> None:
    """They come while the AKMS still withdraws what other sites held for the store before."""
    master, slave = town.ukms[UKMS], town.ukms["ukms-2"]
    before = await master.ask("sae-1a", ["sae-2a"], 2)
    await town.settled("sae-1a", ["sae-2a"])
    former = set(town.records)
    master.new_store()
    await master.report()
    ids = await master.ask("sae-1a", ["sae-2a"], 2)
    await until(lambda: set(town.records) - former)
    (batch,) = set(town.records) - former
    assert town.records[batch][1] == set(ids)

    async def replaced() -> bool:
        return await town.a.store.real.read(lambda connection: store_of(connection, UKMS)) == master.store

    async with asyncio.timeout(5):
        while not await replaced() or await state_of(town, batch) is KeyState.RELEASED:
            await asyncio.sleep(0.001)
    assert await state_of(town, batch) is KeyState.ISSUED
    assert [await state_of(town, name) for name in former] == [KeyState.DESTROYED]
    slave.new_store()
    await slave.report()
    await until(lambda: town.aaa.void == set(ids))
    assert not master.usable("master", "sae-1a")
    assert not town.aaa.void & set(before)


async def test_the_first_identity_of_a_ukms_ends_nothing(town: Town) -> None:
    """As after an upgrade, or where the AKMS lost its own memory of it."""
    batch, _ = await on_their_way(town)
    await town.a.store.real.write(lambda connection: connection.execute(UKMS_STORES.delete()))
    await town.a.restart()
    assert await state_of(town, batch) is KeyState.RELEASED


def test_what_is_left_out_is_told_by_nobody() -> None:
    assert Reported() == Reported(store="", generation=0)
    assert Voided().generation == 0
