"""An AKMS whose store is lost, or older than the truth, declares nothing void that a master has or may get."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, func, select, update

from keyhaul.keys.states import KeyState
from keyhaul.randomness import identifier
from keyhaul.transport.interface import Peer
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import (
    BatchState,
    Query,
    Records,
    Shared,
    SharedBatches,
    Voided,
    VoidKeys,
    Withdraw,
)
from keyhaul.transport.operations import (
    ACCESS_WITHDRAW,
    DELIVERY_QUERY,
    PEER_QUERY,
    PEER_RECORDS,
    PEER_SHARED,
    PEER_TRANSFER,
    PEER_VOID,
)
from services.akms import batches
from services.akms.searching import Found
from services.akms.tables import BATCHES, USAGE
from services.akms.tracing import _joined
from tests.services.akms.test_hostile_peers import asked, transfer_to
from tests.services.akms.town import Akms, Town, name, until


async def lose(node: Akms, copy: Path | None = None) -> None:
    """The node comes back with an empty store, or with an older copy of it."""
    await node.stop()
    for file in node.directory.glob("akms.db*"):
        file.unlink()
    if copy is not None:
        for file in copy.iterdir():
            shutil.copy(file, node.directory)
    await node.restart()


async def copied(node: Akms, to: Path) -> Path:
    """A copy of the node's store, taken while it is stopped."""
    await node.stop()
    to.mkdir()
    for file in node.directory.glob("akms.db*"):
        shutil.copy(file, to)
    await node.restart()
    return to


async def one_batch(town: Town, slaves: list[str], number: int = 3) -> tuple[str, list[Any]]:
    """A batch that is delivered and recorded."""
    before = set(town.records)
    ids = await town.ukms["ukms-1"].ask("sae-1a", slaves, number)
    await town.settled("sae-1a", slaves)
    (batch,) = set(town.records) - before
    return batch, ids


async def void(town: Town, batch: str, **fields: Any) -> Voided:
    reply = await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_VOID, VoidKeys(batch=batch, **fields))
    assert isinstance(reply, Voided)
    return reply


async def query(town: Town, batch: str) -> BatchState:
    reply = await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_QUERY, Query(batches=[batch]))
    return BatchState(reply.states[0])


async def state(node: Akms, batch: str) -> KeyState | None:
    found = await node.store.read(lambda connection: batches.find(connection, batch))
    return None if found is None else found.state


async def tombstones(node: Akms) -> int:
    void = select(func.count()).select_from(BATCHES).where(BATCHES.c.state == KeyState.VOID)
    return await node.store.read(lambda connection: connection.execute(void).scalar_one())


def long_ago(town: Town) -> None:
    """Every request of an earlier process is over."""
    for node in town.akms.values():
        node.service.reconciling._tracing._begun = float("-inf")


def of_an_older_version(node: Akms) -> None:
    """Until its next start, the node gives nobody back what they have lost."""
    route = node.routes.find(PEER_SHARED.path)
    assert route is not None

    async def unknown(_peer: Peer, _message: Any) -> Any:
        raise ServiceError(ErrorCode.NOT_FOUND)

    node.routes._routes[PEER_SHARED.path] = type(route)(route.operation, route.request, unknown)


@pytest.mark.parametrize("asker_too", [False, True])
async def test_a_maker_without_its_record_keeps_what_the_master_has(town: Town, asker_too: bool) -> None:
    batch, ids = await one_batch(town, ["sae-2a", "sae-22a"])
    town.ukms["ukms-1"].issue("sae-1a", ids[:1])
    for slave in ("ukms-2", "ukms-22"):
        town.ukms[slave].unsettled.add(batch)
    of_an_older_version(town.a)
    if asker_too:
        await lose(town.a)
    await lose(town.b)
    await until(lambda: not town.ukms["ukms-2"].unsettled | town.ukms["ukms-22"].unsettled)
    long_ago(town)
    for slave in ("ukms-2", "ukms-22"):
        await town.ukms[slave].report()
    await town.settled("sae-1a", ["sae-2a", "sae-22a"])
    assert len(town.ukms["ukms-2"].usable("slave", "sae-2a")) == 3


async def test_a_maker_put_back_to_an_older_copy_keeps_what_came_after_it(town: Town, tmp_path: Path) -> None:
    await one_batch(town, ["sae-2a"])
    copy = await copied(town.b, tmp_path / "copy")
    batch, _ = await one_batch(town, ["sae-2a"])
    town.ukms["ukms-2"].unsettled.add(batch)
    await lose(town.b, copy)
    await until(lambda: not town.ukms["ukms-2"].unsettled)
    await town.settled("sae-1a", ["sae-2a"])
    assert len(town.ukms["ukms-2"].usable("slave", "sae-2a")) == 6


async def test_local_keys_without_a_record_stay(town: Town) -> None:
    batch, _ = await one_batch(town, ["sae-11a"])
    town.ukms["ukms-11"].unsettled.add(batch)
    await lose(town.a)
    await until(lambda: not town.ukms["ukms-11"].unsettled)
    await town.settled("sae-1a", ["sae-11a"])


@pytest.mark.parametrize("away", ["the asker", "a UKMS of the asker", "a UKMS of the maker"])
async def test_nothing_is_void_before_everybody_has_answered(town: Town, away: str) -> None:
    ukms = town.ukms["ukms-2"]
    other = town.ukms[{"a UKMS of the asker": "ukms-11", "a UKMS of the maker": "ukms-22"}.get(away, "ukms-1")]
    if away == "the asker":
        await town.a.stop()
    else:
        other.away = True
    batch = identifier()
    ukms.unsettled.add(batch)
    await lose(town.b)
    long_ago(town)
    asked = town.log.count("peer.query"), town.log.count("delivery.query")
    await until(lambda: town.log.count("peer.query") > asked[0] + 2)
    assert batch not in ukms.void
    if away == "the asker":
        await town.a.start()
    other.away = False
    await until(lambda: batch in ukms.void)


async def test_nothing_is_void_while_a_request_of_the_process_before_may_be_open(town: Town) -> None:
    ukms, batch = town.ukms["ukms-2"], identifier()
    ukms.unsettled.add(batch)
    town.b.service.reconciling._tracing._begun = float("inf")
    await ukms.report()
    await until(lambda: town.log.count("peer.query") > 2)
    assert batch not in ukms.void
    long_ago(town)
    await until(lambda: batch in ukms.void)


async def test_what_the_asker_voided_goes_though_the_maker_has_no_record(town: Town) -> None:
    """The asker's word is enough, however long the maker has been running."""
    ukms, batch = town.ukms["ukms-2"], identifier()
    await town.a.store.write(lambda c: batches.tombstone(c, batch, "akms-2", 4e9))
    town.b.service.reconciling._tracing._begun = float("inf")
    ukms.unsettled.add(batch)
    await ukms.report()
    await until(lambda: batch in ukms.void)


@pytest.mark.parametrize(
    ("own", "said", "joined"),
    [
        (Found(), {"unknown"}, "unknown"),
        (Found(), {"unknown", "void"}, "void"),
        (Found(), {"void", "prepared"}, "prepared"),
        (Found(), {"void", "held"}, "prepared"),
        (Found(), {"void", "released"}, "released"),
        (Found(sure=False), {"void"}, "prepared"),
        (Found(sure=False), {"unknown"}, "prepared"),
        (Found(["ukms-2"], sure=False), {"void"}, "released"),
    ],
)
def test_one_word_keeps_a_batch_and_all_are_needed_to_give_it_up(own: Found, said: set[str], joined: str) -> None:
    assert _joined(own, {BatchState(word) for word in said}) == joined


async def test_a_ukms_has_a_bounded_number_of_batches_traced(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.akms.tracing.MAXIMUM_TRACED", 3)
    town.b.service.reconciling._tracing._begun = float("inf")
    ukms = town.ukms["ukms-2"]
    ukms.unsettled |= {identifier() for _ in range(3)}
    for _ in range(3):
        await ukms.report()
    ukms.unsettled.add(identifier())
    with pytest.raises(ServiceError) as refusal:
        await ukms.report()
    assert refusal.value.code is ErrorCode.BUSY


async def test_a_transfer_whose_answer_and_record_are_lost_is_settled(town: Town) -> None:
    """The asker dies when it has released and handed over; it comes back with nothing."""
    route = town.a.routes.find(PEER_TRANSFER.path)
    assert route is not None
    handler, master = route.handler, town.ukms["ukms-1"]

    async def then_die(peer: Peer, message: Any) -> Any:
        await handler(peer, message)
        await until(lambda: master.usable("master", "sae-1a") and town.records)
        town.a.died.set()
        raise ServiceError(ErrorCode.UNREACHABLE)

    town.a.routes._routes[PEER_TRANSFER.path] = type(route)(route.operation, route.request, then_die)
    with contextlib.suppress(ServiceError):
        await master.ask("sae-1a", ["sae-2a"], 2)
    await until(town.a.died.is_set)
    await lose(town.a)
    (batch,) = town.records
    async with asyncio.timeout(10):
        while await state(town.b, batch) is not KeyState.RELEASED:
            await asyncio.sleep(0.01)
    await town.settled("sae-1a", ["sae-2a"])


async def test_a_void_finds_what_the_asker_has_forgotten(town: Town) -> None:
    """Issued keys stay; the others are withdrawn everywhere, and their usage is reversed."""
    batch, ids = await one_batch(town, ["sae-2a", "sae-22a", "sae-11a"])
    master = town.ukms["ukms-1"]
    master.issue("sae-1a", ids[:1])
    of_an_older_version(town.b)
    await lose(town.a)
    town.ukms["ukms-2"].new_store()
    await town.ukms["ukms-2"].report()
    places = (("ukms-1", "master", "sae-1a"), ("ukms-22", "slave", "sae-22a"), ("ukms-11", "slave", "sae-11a"))
    for ukms, side, sae in places:
        await until(lambda: set(town.ukms[ukms].usable(side, sae)) == {ids[0]})  # noqa: B023 - awaited here
    await until(lambda: town.aaa.void == set(ids[1:]))
    again = await void(town, batch, key_ids=ids)
    assert (set(again.voided), again.issued) == (set(ids[1:]), ids[:1])


async def test_a_maker_that_names_no_keys_hears_no_half_of_the_truth(town: Town) -> None:
    """A version before this one names none; what it does not hear of as issued it would void."""
    batch, ids = await one_batch(town, ["sae-2a"])
    master = town.ukms["ukms-1"]
    master.issue("sae-1a", ids[:1])
    del master.copies["master", "sae-1a"][ids[0]]
    of_an_older_version(town.b)
    await lose(town.a)
    assert await query(town, batch) is BatchState.RELEASED
    with pytest.raises(ServiceError) as refusal:
        await void(town, batch)
    assert refusal.value.code is ErrorCode.CONFLICT
    assert not master.usable("master", "sae-1a")
    await until(lambda: town.aaa.void == set(ids[1:]))


async def test_an_asker_says_nothing_before_all_its_ukmss_have(town: Town) -> None:
    batch = identifier()
    town.ukms["ukms-11"].away = True
    assert await query(town, batch) is BatchState.PREPARED
    with pytest.raises(ServiceError) as refusal:
        await void(town, batch)
    assert refusal.value.code is ErrorCode.BUSY
    assert not await tombstones(town.a)
    town.ukms["ukms-11"].away = False
    assert await query(town, batch) is BatchState.UNKNOWN
    assert await void(town, batch) == Voided()
    assert await tombstones(town.a) == 1


async def test_what_this_process_asked_for_itself_needs_no_search(town: Town) -> None:
    """No transfer is taken; one of the asker's UKMSs is away for good."""
    town.ukms["ukms-11"].away = True
    route = town.a.routes.find(PEER_TRANSFER.path)
    assert route is not None

    async def lost(_peer: Peer, _message: Any) -> Any:
        raise ServiceError(ErrorCode.CONFLICT)

    town.a.routes._routes[PEER_TRANSFER.path] = type(route)(route.operation, route.request, lost)
    with pytest.raises(ServiceError):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 2, seconds=15)
    await until(lambda: "peer.void" in town.log)
    await town.settled("sae-1a", ["sae-2a"])
    assert town.ukms["ukms-2"].pushed
    assert "delivery.query" not in town.log


async def test_no_transfer_is_taken_while_its_batch_is_being_voided(town: Town) -> None:
    request, asking = await asked(town)
    digest = town.a.service.requesting._open[request.request].key.digest
    transfer = transfer_to(request, kem_key_digest=digest)
    other, go = town.ukms["ukms-11"], asyncio.Event()
    handle = other.handle

    async def slow(operation: Any, *arguments: Any) -> Any:
        if operation is DELIVERY_QUERY:
            await go.wait()
        return await handle(operation, *arguments)

    other.handle = slow  # type: ignore[method-assign,assignment]
    voiding = asyncio.create_task(void(town, transfer.batch))
    await until(lambda: "delivery.query" in town.log)
    with pytest.raises(ServiceError) as refusal:
        await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_TRANSFER, transfer)
    assert refusal.value.code is ErrorCode.CONFLICT
    go.set()
    assert await voiding == Voided()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_two_ukmss_that_claim_a_batch_have_none_of_it_voided(town: Town) -> None:
    batch, ids = await one_batch(town, ["sae-2a"])
    liar = town.ukms["ukms-11"]
    liar.copies["master", "sae-11a"] = dict(town.ukms["ukms-1"].copies["master", "sae-1a"])
    of_an_older_version(town.b)
    await lose(town.a)
    with pytest.raises(ServiceError) as refusal:
        await void(town, batch, key_ids=ids)
    assert refusal.value.code is ErrorCode.CONFLICT
    await town.settled("sae-1a", ["sae-2a"])


async def older(node: Akms, state: KeyState) -> None:
    """The record of what was handed over is as it was before, and its usage was not sent."""

    def change(connection: Any) -> None:
        connection.execute(update(BATCHES).where(BATCHES.c.part != "maker").values(state=state))
        connection.execute(delete(USAGE))

    await node.store.write(change)


@pytest.mark.parametrize("slaves", [["sae-11a"], ["sae-2a", "sae-11a"]])
async def test_what_a_store_shows_as_prepared_may_have_been_handed_over(town: Town, slaves: list[str]) -> None:
    batch, _ = await one_batch(town, slaves)
    town.ukms["ukms-11"].unsettled.add(batch)
    await older(town.a, KeyState.PREPARED)
    town.aaa.records.clear()
    await town.a.restart()
    await until(lambda: not town.ukms["ukms-11"].unsettled)
    await town.settled("sae-1a", slaves)
    assert await state(town.a, batch) is KeyState.ISSUED
    assert len(town.ukms["ukms-1"].usable("master", "sae-1a")) == 3


async def test_what_was_prepared_is_void_only_by_its_ukms(town: Town) -> None:
    batch, _ = await one_batch(town, ["sae-11a"])
    town.ukms["ukms-1"].copies.clear()
    await older(town.a, KeyState.PREPARED)
    town.aaa.records.clear()
    town.ukms["ukms-1"].away = True
    before = town.log.count("delivery.query")
    await town.a.restart()
    await until(lambda: town.log.count("delivery.query") > before + 3)
    assert await state(town.a, batch) is KeyState.PREPARED
    assert town.ukms["ukms-11"].usable("slave", "sae-11a")
    town.ukms["ukms-1"].away = False
    await until(lambda: not town.ukms["ukms-11"].usable("slave", "sae-11a"))
    assert not town.records


async def test_a_void_of_what_was_prepared_asks_its_ukms(town: Town) -> None:
    batch, ids = await one_batch(town, ["sae-2a", "sae-11a"])
    await older(town.a, KeyState.PREPARED)
    town.ukms["ukms-1"].away = True
    await town.a.restart()
    assert await query(town, batch) is BatchState.PREPARED
    with pytest.raises(ServiceError):
        await void(town, batch, key_ids=ids)
    town.ukms["ukms-1"].away = False
    town.ukms["ukms-1"].issue("sae-1a", ids[:1])
    reply = await void(town, batch, key_ids=ids)
    assert (set(reply.voided), reply.issued) == (set(ids[1:]), ids[:1])
    await until(lambda: town.aaa.void == set(ids[1:]))


async def test_what_a_store_shows_as_not_handed_over_is_pushed_again(town: Town) -> None:
    """Harmless: the UKMS knows the batch, and what it issued stays issued."""
    batch, ids = await one_batch(town, ["sae-2a"])
    master = town.ukms["ukms-1"]
    bits = b"".join(master.copies["master", "sae-1a"][key_id].bits for key_id in ids)
    sealed = town.a.store.fields.seal(bits, batch.encode())
    await older(town.a, KeyState.RELEASED)
    await town.a.store.write(lambda c: c.execute(update(BATCHES).values(bits=sealed)).rowcount)
    master.issue("sae-1a", ids[:1])
    pushes = len(master.pushed)
    await town.a.restart()
    await until(lambda: len(master.pushed) > pushes)
    async with asyncio.timeout(10):
        while await state(town.a, batch) is not KeyState.ISSUED:
            await asyncio.sleep(0.01)
    assert master.copies["master", "sae-1a"][ids[0]].state == "issued"
    await town.settled("sae-1a", ["sae-2a"])


async def test_a_ukms_hears_no_names_of_other_services_or_of_requests(town: Town) -> None:
    said: list[Any] = []
    for ukms in town.ukms.values():
        handle = ukms.handle

        async def listen(operation: Any, message: Any, secret: bytes, handle: Any = handle) -> Any:
            said.append(message)
            return await handle(operation, message, secret)

        ukms.handle = listen  # type: ignore[method-assign,assignment]
    town.ukms["ukms-2"].unsettled.add(identifier())
    await town.ukms["ukms-2"].report()
    await until(lambda: town.ukms["ukms-2"].void)
    queries = [message for message in said if isinstance(message, Query)]
    assert queries
    assert all(not message.requests for message in queries)
    assert not any("akms-" in repr(message) for message in said)


async def recorded(node: Akms, *names: str) -> None:
    """Wait until the node has records of these batches."""
    async with asyncio.timeout(10):
        while [name for name in names if await state(node, name) is None]:
            await asyncio.sleep(0.01)


async def test_an_asker_gets_its_records_back_and_the_usage_that_was_not_counted(town: Town) -> None:
    slaves = ["sae-2a", "sae-11a"]
    counted, others = await one_batch(town, slaves)
    batch, ids = await one_batch(town, slaves)
    del town.aaa.records[batch]
    await lose(town.a)
    await recorded(town.a, counted, batch)
    await town.settled("sae-1a", slaves)
    assert set(town.records) == {counted, batch}
    # Later words find their way: what expires at the master, and the loss of a slave's copies beside it.
    await town.ukms["ukms-1"].up(ACCESS_WITHDRAW, Withdraw(batch=batch, key_ids=ids[:1]))
    await until(lambda: town.aaa.expired == set(ids[:1]))
    await until(lambda: set(town.ukms["ukms-11"].usable("slave", "sae-11a")) == {*others, *ids[1:]})
    town.ukms["ukms-11"].new_store()
    await town.ukms["ukms-11"].report()
    await until(lambda: not set(town.ukms["ukms-1"].usable("master", "sae-1a")) - set(ids[:1]))


async def test_a_maker_gets_its_records_back_and_passes_on_what_is_lost_later(town: Town) -> None:
    batch, ids = await one_batch(town, ["sae-2a"])
    town.ukms["ukms-1"].issue("sae-1a", ids[:1])
    await lose(town.b)
    await recorded(town.b, batch)
    town.ukms["ukms-2"].new_store()
    await town.ukms["ukms-2"].report()
    await until(lambda: set(town.ukms["ukms-1"].usable("master", "sae-1a")) == {ids[0]})
    await until(lambda: town.aaa.void == set(ids[1:]))


async def test_records_come_back_when_the_other_akms_and_all_ukmss_can_be_asked(town: Town) -> None:
    batch, _ = await one_batch(town, ["sae-2a"])
    town.ukms["ukms-1"].away = True
    await town.b.stop()
    await town.a.stop()
    for file in town.a.directory.glob("akms.db*"):
        file.unlink()
    await town.a.start()
    before = town.log.count("delivery.query")
    await town.b.start()
    await until(lambda: town.log.count("delivery.query") > before + 3)
    assert await state(town.a, batch) is None
    town.ukms["ukms-1"].away = False
    await recorded(town.a, batch)


@pytest.mark.parametrize(
    "lie",
    [
        {"left_ms": 10**400},
        {"left_ms": 0},
        {"grant": "x"},
        {"master": "?"},
        {"slaves": []},
        {"service_class": "g" * 1000},
        {"size": 10**9},
        {"key_ids": []},
        {"made_here": False},
        {"batch": "f" * 32},
        {"request": "f" * 1000},
    ],
)
async def test_nothing_is_recorded_on_another_akmss_word_alone(town: Town, lie: dict[str, Any]) -> None:
    batch, _ = await one_batch(town, ["sae-2a"])
    other = "f" * 32
    said = 0
    routes = town.b.routes
    shared, records = routes.find(PEER_SHARED.path), routes.find(PEER_RECORDS.path)
    assert shared is not None
    assert records is not None
    handler = records.handler

    async def names(_peer: Peer, message: Any) -> Any:
        return SharedBatches(batches=[] if message.after else [batch, other])

    async def lying(peer: Peer, message: Any) -> Any:
        nonlocal said
        reply: Any = await handler(peer, message)
        reply.records = [msgspec.structs.replace(record, **lie) for record in reply.records]
        said += 1
        return reply

    routes._routes[PEER_SHARED.path] = type(shared)(shared.operation, shared.request, names)
    routes._routes[PEER_RECORDS.path] = type(records)(records.operation, records.request, lying)
    await lose(town.a)
    await until(lambda: said)
    await town.a.restart()
    await until(lambda: said > 1)
    assert await state(town.a, batch) is None
    assert await state(town.a, other) is None


async def test_another_akms_hears_nothing_of_batches_that_it_does_not_share(town: Town) -> None:
    batch, _ = await one_batch(town, ["sae-2a"])
    stranger = name("akms-9")
    for operation, message in ((PEER_SHARED, Shared()), (PEER_RECORDS, Records(batches=[batch]))):
        reply = await town.to_akms(stranger, town.b.certificate, "akms-1", operation, message)
        assert not getattr(reply, "batches", None)
        assert not getattr(reply, "records", None)


async def test_an_askers_requests_of_its_users_stay_with_it(town: Town) -> None:
    batch, _ = await one_batch(town, ["sae-2a"])
    reply = await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_RECORDS, Records(batches=[batch]))
    assert [record.request for record in reply.records] == [""]
