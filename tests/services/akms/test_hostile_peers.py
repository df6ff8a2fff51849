"""What a peer may send within its role, and must not achieve: stopping the service, filling it, undoing work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import pytest
from cryptography.hazmat.primitives.poly1305 import Poly1305
from sqlalchemy import func, select, update

from keyhaul.keys.grants import sign
from keyhaul.keys.states import KeyState
from keyhaul.randomness import identifier
from keyhaul.transport.interface import Peer
from keyhaul.transport.messages.aaa import Revocation
from keyhaul.transport.messages.access import Describe
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import (
    Announce,
    CnRange,
    KeyRequest,
    RequestFailed,
    SlaveSite,
    Transfer,
    VoidKeys,
    Withdraw,
)
from keyhaul.transport.messages.relay import Outcome
from keyhaul.transport.operations import (
    ACCESS_DESCRIBE,
    ACCESS_WITHDRAW,
    CARRIER_OUTCOME,
    PEER_ANNOUNCE,
    PEER_CONFIRM,
    PEER_FAILED,
    PEER_REQUEST,
    PEER_TRANSFER,
    PEER_VOID,
)
from services.akms import batches
from services.akms.batches import Batch, Part, Site
from services.akms.cn_batch import CHECK_KEY_BYTES
from services.akms.tables import BATCHES, ERRANDS, GRANT_COUNTS, GRANTS
from tests.services.akms.test_peer_interface import ask, refused, request_of
from tests.services.akms.town import Town, name, until

HUGE = 10**400
"""An integer that no float holds."""


async def asked(town: Town, *, slaves: list[str] | None = None) -> tuple[KeyRequest, asyncio.Task[list[UUID]]]:
    """A request of AKMS A to a maker, which the test plays from here on."""
    seen: list[KeyRequest] = []
    real = town.b.routes.find(PEER_REQUEST.path)
    assert real is not None

    async def take(_peer: Peer, message: KeyRequest) -> Any:
        seen.append(message)
        return await asyncio.sleep(0, msgspec.json.decode(b"{}", type=PEER_REQUEST.reply))

    town.b.routes._routes[PEER_REQUEST.path] = type(real)(real.operation, real.request, cast(Any, take))
    asking = asyncio.create_task(town.ukms["ukms-1"].ask("sae-1a", slaves or ["sae-2a"], seconds=3))
    await until(lambda: seen)
    return seen[0], asking


def transfer_to(request: KeyRequest, **changed: Any) -> Transfer:
    fields: dict[str, Any] = {
        "request": request.request,
        "batch": identifier(),
        "suite": "aead",
        "key_ids": [uuid4()],
        "size": request.size,
        "cn": [CnRange(identifier(), 32, 32)],
        "kem_key_digest": b"",
        "kem_ciphertext": b"",
        "cipher": bytes(32),
        "tag": bytes(16),
        "signature": b"",
        "lifetime_ms": 86_400_000,
    }
    return Transfer(**{**fields, **changed})


async def as_maker(town: Town, transfer: Transfer) -> ErrorCode:
    with pytest.raises(ServiceError) as refusal:
        await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_TRANSFER, transfer)
    return refusal.value.code


async def test_numbers_beyond_all_bounds_are_refused(town: Town) -> None:
    request, asking = await asked(town)
    digest = town.a.service.requesting._open[request.request].key.digest
    assert await as_maker(town, transfer_to(request, kem_key_digest=digest, lifetime_ms=HUGE)) is ErrorCode.MALFORMED
    with pytest.raises(ServiceError):
        await asking


async def test_a_huge_wait_is_not_passed_on_to_users(town: Town) -> None:
    request, asking = await asked(town)
    failed = RequestFailed(request=request.request, reason=cast(Any, "busy"), retry_after_ms=HUGE)
    await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_FAILED, failed)
    with pytest.raises(ServiceError):
        await asking
    told = town.ukms["ukms-1"].failures
    assert [failure.retry_after_ms for failure in told.values()] == [60_000]


async def test_a_huge_remaining_time_is_cut(town: Town) -> None:
    request = request_of(town)
    request.remaining_ms = HUGE
    await ask(town, request)
    await until(lambda: "delivery.push" in town.log)


@pytest.mark.parametrize("batch", ["", "x", "f" * 31, "F" * 32, "f" * 10_000])
async def test_a_batch_has_a_name_that_all_others_take(town: Town, batch: str) -> None:
    request, asking = await asked(town)
    digest = town.a.service.requesting._open[request.request].key.digest
    assert await as_maker(town, transfer_to(request, kem_key_digest=digest, batch=batch)) is ErrorCode.MALFORMED
    with pytest.raises(ServiceError) as refusal:
        await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_VOID, VoidKeys(batch=batch))
    assert refusal.value.code is ErrorCode.MALFORMED
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


def prepared(part: Part, **changed: Any) -> Batch:
    fields: dict[str, Any] = {
        "id": identifier(),
        "part": part,
        "peer": "akms-2",
        "request": identifier(),
        "grant": identifier(),
        "master": "sae-1a",
        "master_ukms": "" if part is Part.MAKER else "ukms-1",
        "slaves": ["sae-2a"],
        "sites": {},
        "service_class": "silver",
        "size": 256,
        "key_ids": [uuid4()],
        "expires": 4e9,
    }
    return Batch(**{**fields, **changed})


@pytest.mark.parametrize("part", list(Part))
async def test_a_transfer_under_the_name_of_another_batch_releases_nothing(town: Town, part: Part) -> None:
    """A maker knows names of batches that this AKMS makes for it."""
    mine = prepared(part)
    await town.a.store.write(lambda c: batches.record(c, mine))
    releases = town.a.service.requesting._receiving._releases
    other = prepared(Part.ASKER, id=mine.id)
    with pytest.raises(batches.BatchConflict):
        await releases.release(other, bytes(32), {})
    found = await town.a.store.read(lambda c: batches.find(c, mine.id))
    assert found is not None
    assert found.state is KeyState.PREPARED


async def test_a_grant_serves_only_all_of_its_slaves_together(town: Town) -> None:
    """Otherwise each maker of a set would count the allowance anew."""
    request = request_of(town)
    granted = town.aaa.grant("sae-1a", ["sae-2a", "sae-22a"])
    request.grant = msgspec.json.encode(sign(granted, town.aaa.key))
    request.slaves = granted.slaves[:1]
    await refused(town, request)


async def test_a_grant_that_is_no_text_is_refused(town: Town) -> None:
    request = request_of(town)
    request.grant = b'{"id":"\xff\xfe","grant":"","signature":""}'
    await refused(town, request)


async def test_a_grant_that_was_revoked_on_its_way_is_not_taken(town: Town) -> None:
    """The news of the end of a right overtakes the grant that AAA gave just before."""
    answer = asyncio.Event()
    real = town.aaa.grant
    given: list[str] = []

    def grant(*arguments: Any, **changed: Any) -> Any:
        granted = real(*arguments, **changed)
        given.append(granted.id)
        return granted

    town.aaa.grant = grant  # type: ignore[method-assign]
    call = town.aaa.call

    async def late(operation: Any, request: Any) -> Any:
        reply = await call(operation, request)
        if operation.name == "aaa.authorise":
            await answer.wait()
        return reply

    town.aaa.call = late  # type: ignore[method-assign]
    asking = asyncio.create_task(town.ukms["ukms-1"].ask("sae-1a", ["sae-11a"], seconds=3))
    await until(lambda: given)
    town.aaa.refused_slaves.add("sae-11a")
    town.aaa.revocations.append(Revocation(serial=1, master="sae-1a", grants=list(given)))
    await until(lambda: town.a.service.authorisation._serial == 1)
    answer.set()
    with pytest.raises(ServiceError):
        await asking
    assert not town.records


async def test_a_grant_that_its_maker_counts_as_used_up_is_replaced(town: Town) -> None:
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    await town.settled("sae-1a", ["sae-2a"])
    await town.b.store.write(lambda c: c.execute(update(GRANT_COUNTS).values(used=10_000)).rowcount)
    for grants in town.a.service.grants._held.values():
        for held in grants:
            held.received -= 3_600
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    assert town.aaa.authorised == 2
    await town.settled("sae-1a", ["sae-2a"])


async def test_grants_that_can_serve_no_more_are_not_kept(town: Town) -> None:
    town.aaa.allowance = 1
    for _ in range(12):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-11a"])
    kept = await town.a.store.read(lambda c: c.execute(select(func.count()).select_from(GRANTS)).scalar_one())
    assert kept <= 9
    await town.settled("sae-1a", ["sae-11a"])


async def test_errors_name_no_service_to_users(town: Town) -> None:
    async def unreachable(_operation: Any, _request: Any) -> Any:
        raise ServiceError(ErrorCode.UNREACHABLE, "aaa-0 cannot be reached: 192.0.2.1", retry_after_ms=7)

    town.aaa.call = unreachable  # type: ignore[method-assign,assignment]
    with pytest.raises(ServiceError) as refusal:
        await town.ukms["ukms-1"].up(ACCESS_DESCRIBE, Describe(master="sae-1a", slaves=["sae-2a"]))
    assert (refusal.value.code, refusal.value.message) == (ErrorCode.UNREACHABLE, "")


def forged(bits: bytes) -> bytes:
    """Other bits with the same Poly1305 tag under their first 32 bytes: whoever has seen the bits can make them."""
    tag = Poly1305.generate_tag(bits[:CHECK_KEY_BYTES], bits[CHECK_KEY_BYTES:])
    others = bytes(byte ^ 0x55 for byte in bits[CHECK_KEY_BYTES:])
    without = Poly1305.generate_tag(bits[:16] + bytes(16), others)
    addend = (int.from_bytes(tag, "little") - int.from_bytes(without, "little")) % (1 << 128)
    made = bits[:16] + addend.to_bytes(16, "little") + others
    assert Poly1305.generate_tag(made[:CHECK_KEY_BYTES], made[CHECK_KEY_BYTES:]) == tag
    return made


async def test_a_relay_cannot_make_bits_that_pass_for_those_it_swapped(town: Town) -> None:
    town.carrier.append(forged)
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], seconds=15)
    assert "cn-bits-differ" in town.b.process.alarms
    assert "transfer-not-authentic" not in town.a.process.alarms
    await town.settled("sae-1a", ["sae-2a"])


async def test_news_of_a_cn_batch_may_come_twice(town: Town) -> None:
    """The answer to an outcome or a confirmation was lost: the same comes again while the bits wait for use."""
    carrier = town.b.service.carrier
    key = ("akms-1", "silver")
    pool = carrier._pool(key)
    batch = pool._draw(512, carrier._clock())
    carrier._made[batch.name] = key
    ckms = name("ckms-2")
    for _ in range(2):
        await town.to_akms(ckms, town.b.certificate, "akms-2", CARRIER_OUTCOME, Outcome(batch=batch.name))
    for _ in range(2):
        confirm = PEER_CONFIRM.request(batch=batch.name, check=batch.check)
        reply = await town.to_akms(name("akms-1"), town.a.certificate, "akms-2", PEER_CONFIRM, confirm)
        assert reply.same
    assert pool.available == 512


@pytest.mark.parametrize(
    "changed", [{"batch": "x"}, {"batch": "f" * 100_000}, {"service_class": "lead"}, {"length": -1}, {"length": HUGE}]
)
async def test_an_announcement_is_well_formed(town: Town, changed: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"batch": identifier(), "length": 544, "service_class": "gold"}
    with pytest.raises(ServiceError) as refusal:
        message = Announce(**{**fields, **changed})
        await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_ANNOUNCE, message)
    assert refusal.value.code is ErrorCode.CONFLICT


async def test_a_stranger_cannot_fill_the_record_with_voids(town: Town) -> None:
    with pytest.raises(ServiceError) as refusal:
        await town.to_akms(name("akms-9"), town.b.certificate, "akms-1", PEER_VOID, VoidKeys(batch=identifier()))
    assert refusal.value.code is ErrorCode.FORBIDDEN


async def test_a_peers_voids_of_unknown_batches_are_bounded(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.akms.voiding.MAXIMUM_VOID", 3, raising=False)
    codes = []
    for _ in range(5):
        try:
            await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_VOID, VoidKeys(batch=identifier()))
        except ServiceError as error:
            codes.append(error.code)
    assert codes == [ErrorCode.BUSY] * 2
    rows = await town.a.store.read(lambda c: c.execute(select(func.count()).select_from(BATCHES)).scalar_one())
    assert rows == 3


async def test_what_a_ukms_repeats_is_written_once(town: Town) -> None:
    ids = await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 3)
    await town.settled("sae-1a", ["sae-2a"])
    batch = next(iter(town.records))
    await town.b.stop()
    for _ in range(20):
        await town.ukms["ukms-1"].up(ACCESS_WITHDRAW, Withdraw(batch=batch, key_ids=ids))
    rows = await town.a.store.read(lambda c: c.execute(select(func.count()).select_from(ERRANDS)).scalar_one())
    assert rows == 1
    await town.b.start()


async def test_a_ukms_has_a_bounded_number_of_requests_under_way(town: Town) -> None:
    town.ukms["ukms-1"].away = True
    codes = []
    for _ in range(1100):
        try:
            await town.ukms["ukms-1"].send(identifier(), "sae-1a", ["nobody"], 1, 256, seconds=30)
        except ServiceError as error:
            codes.append(error.code)
    assert codes == [ErrorCode.BUSY] * (1100 - 4 * 256 // 2)
    codes.clear()
    try:
        await town.ukms["ukms-1"].send(identifier(), "sae-1b", ["nobody"], 1, 256, seconds=30)
    except ServiceError as error:
        codes.append(error.code)
    assert codes == []  # another master's request still finds room


async def test_a_caller_that_gives_up_leaves_nothing_half_done(town: Town) -> None:
    """The maker's void is cut off when its own time is over; the copies beside the master go all the same."""
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a", "sae-11a"], 2)
    await town.settled("sae-1a", ["sae-2a", "sae-11a"])
    batch = next(iter(town.records))
    master = town.ukms["ukms-1"]
    handle, go = master.handle, asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        reply = await handle(*arguments)
        if arguments[0].name == "delivery.void":
            await go.wait()
        return reply

    master.handle = slow  # type: ignore[method-assign,assignment]
    call = asyncio.create_task(
        town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_VOID, VoidKeys(batch=batch))
    )
    await until(lambda: not master.usable("master", "sae-1a"))
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    go.set()
    await until(lambda: not town.ukms["ukms-11"].usable("slave", "sae-11a"))
    await until(lambda: len(town.aaa.void) == 2)


async def test_a_store_lost_before_a_batch_is_settled_stops_the_master(town: Town) -> None:
    """The maker dies when the asker has released; before it hears so, its UKMS comes back with an empty store."""
    town.lose_answer.append("peer.transfer")
    route = town.a.routes.find(PEER_TRANSFER.path)
    assert route is not None
    handler = route.handler

    async def then_die(peer: Peer, message: Any) -> Any:
        reply = await handler(peer, message)
        town.b.died.set()
        return reply

    town.a.routes._routes[PEER_TRANSFER.path] = type(route)(route.operation, route.request, then_die)
    with contextlib.suppress(ServiceError):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 2)
    town.a.routes._routes[PEER_TRANSFER.path] = route
    town.ukms["ukms-2"].new_store()
    await town.b.stop()
    town.ukms["ukms-2"].away = True
    await town.b.start()
    town.ukms["ukms-2"].away = False
    await town.ukms["ukms-2"].report()
    await until(lambda: not town.ukms["ukms-1"].usable("master", "sae-1a"))
    await until(lambda: len(town.aaa.void) == 2)


async def test_a_store_lost_between_held_and_settled_stops_the_master(town: Town) -> None:
    """The report of the new store is worked off while the asker is still releasing."""
    go = asyncio.Event()
    route = town.a.routes.find(PEER_TRANSFER.path)
    assert route is not None
    handler = route.handler

    async def wait(peer: Peer, message: Any) -> Any:
        reply = await handler(peer, message)
        await go.wait()
        return reply

    town.a.routes._routes[PEER_TRANSFER.path] = type(route)(route.operation, route.request, wait)
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 2)
    town.ukms["ukms-2"].new_store()
    await town.ukms["ukms-2"].report()
    await until(lambda: not town.b.service.reconciling._replacing)
    go.set()
    await until(lambda: not town.ukms["ukms-1"].usable("master", "sae-1a"))


async def test_a_store_lost_beside_the_master_before_release_voids_the_batch(town: Town) -> None:
    batch = prepared(Part.LOCAL, peer="", sites={"ukms-11": Site(["sae-11a"])})
    await town.a.store.write(lambda c: batches.record(c, batch))
    town.ukms["ukms-11"].new_store()
    await town.ukms["ukms-11"].report()
    await until(lambda: not town.a.service.reconciling._replacing)
    releases = town.a.service.requesting._receiving._releases
    with pytest.raises(batches.BatchConflict):
        await releases.release(batch, bytes(32), {"ukms-11": "0" * 32})


async def test_a_new_store_of_the_masters_ukms_is_not_asked_what_the_old_one_issued(town: Town) -> None:
    """The maker's void reaches the master's UKMS before its report of a new store reached its AKMS."""
    ids = await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 2)
    await town.settled("sae-1a", ["sae-2a"])
    master = town.ukms["ukms-1"]
    master.issue("sae-1a", ids)
    batch = next(iter(town.records))
    master.new_store()
    with pytest.raises(ServiceError) as refusal:
        await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_VOID, VoidKeys(batch=batch))
    assert refusal.value.code is ErrorCode.BUSY
    await master.report()
    await until(lambda: not town.a.service.reconciling._replacing)
    reply = await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_VOID, VoidKeys(batch=batch))
    assert (reply.voided, set(reply.issued)) == ([], set(ids))
    assert not town.aaa.void


@pytest.mark.parametrize("slaves", [["sae-1a"], ["sae-1b"], ["sae-2a", "sae-1b"]])
async def test_slaves_beside_the_master_keep_their_copies_longer(town: Town, slaves: list[str]) -> None:
    await town.ukms["ukms-1"].ask("sae-1a", slaves)
    push = next(push for push in town.ukms["ukms-1"].pushed if push.for_master)
    assert push.held_for
    guard = 1000 * town.terms.guard
    assert guard - 1_000 <= push.slave_lifetime_ms - push.lifetime_ms <= guard + 1_000


async def test_a_site_is_what_aaa_says(town: Town) -> None:
    request = request_of(town)
    request.slaves = [*request.slaves, SlaveSite("sae-22a", "ukms-22", "akms-2")]
    await refused(town, request)


async def test_a_thief_who_voids_a_foreign_name_first_leaves_nothing_undecided(town: Town) -> None:
    """The maker of a batch that another AKMS had declared void learns that it will never be released."""
    batch = identifier()
    await town.a.store.write(lambda c: batches.tombstone(c, batch, "akms-9", time.time() + 3600))
    reply = await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_VOID, VoidKeys(batch=batch))
    assert reply.issued == []
