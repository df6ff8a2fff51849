"""Slaves' copies, and the life of all copies: held once, fetched once, void, expired, withdrawn, purged."""

import asyncio
import uuid
from typing import Any

import msgspec
import pytest

from keyhaul.identity.names import SaeId
from keyhaul.keys.etsi014 import KeyContainer, KeyRequest
from keyhaul.transport.messages.access import Push, Settle
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState, Query, VoidKeys
from keyhaul.transport.operations import DELIVERY_PUSH, DELIVERY_QUERY, DELIVERY_SETTLE, DELIVERY_VOID
from services.ukms import ends
from services.ukms.etsi014 import Refusal

A, B, C, Z = SaeId("a"), SaeId("b"), SaeId("c"), SaeId("z")


def held(*key_ids: uuid.UUID, **changes: Any) -> Push:
    push = Push(
        batch=uuid.uuid4().hex,
        master="a",
        slaves=["b", "c"],
        held_for=["b"],
        key_ids=list(key_ids) or [uuid.uuid4() for _ in range(3)],
        size=256,
        service_class="silver",
        lifetime_ms=3_600_000,
    )
    return msgspec.structs.replace(push, **changes)


@pytest.fixture
def deliver(site: Any, key_bits: Any) -> Any:
    async def call(push: Push) -> Any:
        secret = b"".join(key_bits(one, push.size) for one in push.key_ids)
        return await site.link.deliver(DELIVERY_PUSH, push, secret)

    return call


async def refusal_of(work: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await work
    return caught.value


def ids(container: KeyContainer) -> list[uuid.UUID]:
    return [key.key_ID for key in container.keys]


async def count(site: Any, where: str = "1=1") -> int:
    return int(
        await site.store.read(
            lambda connection: connection.exec_driver_sql(f"select count(*) from copies where {where}").scalar_one()
        )
    )


async def test_a_slave_gets_its_keys_in_the_order_asked_for(site: Any, deliver: Any, key_bits: Any) -> None:
    push = held()
    answer = await deliver(push)
    assert (answer.batch, answer.store) == (push.batch, site.store.store_id)
    wanted = [push.key_ids[2], push.key_ids[0]]
    container = await site.kme.dec_keys(B, "a", wanted)
    assert [(key.key_ID, key.key) for key in container.keys] == [(one, key_bits(one)) for one in wanted]


async def test_a_key_is_fetched_once_and_its_bits_are_gone(site: Any, deliver: Any) -> None:
    push = held()
    await deliver(push)
    await site.kme.dec_keys(B, "a", push.key_ids[:1])
    refusal = await refusal_of(site.kme.dec_keys(B, "a", push.key_ids[:1]))
    assert (refusal.status, refusal.error.message) == (400, "one or more keys specified are not found on KME")
    assert await count(site, "bits is not null") == 2


async def test_many_at_a_time_get_a_key_once(site: Any, deliver: Any) -> None:
    push = held()
    await deliver(push)
    answers = await asyncio.gather(
        *(site.kme.dec_keys(B, "a", push.key_ids[:2]) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, KeyContainer) for answer in answers) == 1
    assert {answer.status for answer in answers if isinstance(answer, Refusal)} == {400}


async def test_dec_keys_is_all_or_nothing(site: Any, deliver: Any) -> None:
    push = held()
    await deliver(push)
    assert (await refusal_of(site.kme.dec_keys(B, "a", [*push.key_ids, uuid.uuid4()]))).status == 400
    assert len((await site.kme.dec_keys(B, "a", push.key_ids)).keys) == 3


async def test_who_was_not_named_gets_401_for_the_whole_request(site: Any, deliver: Any) -> None:
    mine, other = held(), held(slaves=["c"], held_for=["c"])
    await deliver(mine)
    await deliver(other)
    for caller in (Z, A):
        refusal = await refusal_of(site.kme.dec_keys(caller, "a", mine.key_ids))
        assert refusal.status == 401
        assert refusal.error.message
    assert (await refusal_of(site.kme.dec_keys(B, "a", [*mine.key_ids, *other.key_ids, uuid.uuid4()]))).status == 401
    assert len((await site.kme.dec_keys(B, "a", mine.key_ids)).keys) == 3


async def test_a_named_slave_of_another_site_finds_no_keys_here(site: Any, deliver: Any) -> None:
    push = held()
    await deliver(push)
    assert (await refusal_of(site.kme.dec_keys(C, "a", push.key_ids))).status == 400


async def test_the_master_in_the_url_must_be_the_keys_master(site: Any, deliver: Any) -> None:
    push = held()
    await deliver(push)
    for master in ("c", "nobody", "not/possible"):
        assert (await refusal_of(site.kme.dec_keys(B, master, push.key_ids))).status == 400


async def test_every_slave_here_gets_a_copy_of_its_own(site: Any, deliver: Any) -> None:
    push = held(held_for=["b", "c"])
    await deliver(push)
    assert await site.kme.dec_keys(B, "a", push.key_ids) == await site.kme.dec_keys(C, "a", push.key_ids)
    assert (await refusal_of(site.kme.dec_keys(C, "a", push.key_ids))).status == 400


async def test_one_push_serves_master_and_slaves_of_one_site(site: Any) -> None:
    site.link.held_for = ["b", "c"]
    container = await site.kme.enc_keys(A, "b", KeyRequest(number=2, additional_slave_SAE_IDs=["c"]))
    assert await site.kme.dec_keys(B, "a", ids(container)) == container
    assert await site.kme.dec_keys(C, "a", ids(container)) == container


async def test_slaves_copies_may_come_before_the_masters(site: Any, deliver: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(number=2)))
    request = await site.link.wait_for_request()
    push = held(uuid.uuid4(), uuid.uuid4(), slaves=["b"])
    await deliver(push)
    assert not waiting.done()
    await deliver(msgspec.structs.replace(push, held_for=[], for_master=True, request=request.request))
    container = await waiting
    assert ids(container) == push.key_ids
    assert await site.kme.dec_keys(B, "a", push.key_ids) == container


async def test_a_repeated_push_brings_no_key_back(sites: Any, key_bits: Any) -> None:
    async def deliver(push: Push, to: Any) -> None:
        await to.link.deliver(DELIVERY_PUSH, push, b"".join(key_bits(one) for one in push.key_ids))

    site = await sites.make()
    push = held()
    await deliver(push, site)
    await site.kme.dec_keys(B, "a", push.key_ids[:2])
    await sites.made.pop().close()
    again = await sites.make()
    await deliver(push, again)
    assert (await refusal_of(again.kme.dec_keys(B, "a", push.key_ids[:1]))).status == 400
    assert len((await again.kme.dec_keys(B, "a", push.key_ids[2:])).keys) == 1
    again.clock.now += 601.0
    while await again.upkeep.purge():
        pass
    assert await count(again) == 0
    await deliver(push, again)
    assert await count(again) == 0


@pytest.mark.parametrize(
    "changes",
    [{"master": "z"}, {"slaves": ["b"]}, {"size": 128}, {"service_class": "gold"}, {"key_ids": [uuid.uuid4()]}],
)
async def test_a_batch_does_not_change(deliver: Any, changes: dict[str, Any]) -> None:
    push = held()
    await deliver(push)
    with pytest.raises(ServiceError) as caught:
        await deliver(msgspec.structs.replace(push, **changes))
    assert caught.value.code is ErrorCode.CONFLICT


async def test_a_key_belongs_to_one_batch(site: Any, deliver: Any, key_bits: Any) -> None:
    push = held()
    await deliver(push)
    with pytest.raises(ServiceError) as caught:
        await deliver(held(uuid.uuid4(), push.key_ids[0]))
    assert caught.value.code is ErrorCode.CONFLICT
    assert await count(site) == 3


async def test_a_void_key_is_not_fetched_and_a_fetched_one_is_told(site: Any, deliver: Any) -> None:
    push = held()
    await deliver(push)
    await site.kme.dec_keys(B, "a", push.key_ids[:1])
    part = await site.link.deliver(DELIVERY_VOID, VoidKeys(batch=push.batch, key_ids=push.key_ids[:2]))
    assert (part.voided, part.issued) == (push.key_ids[1:2], push.key_ids[:1])
    assert (await refusal_of(site.kme.dec_keys(B, "a", push.key_ids[1:2]))).status == 400
    assert len((await site.kme.dec_keys(B, "a", push.key_ids[2:])).keys) == 1


async def test_what_the_master_got_stays_with_its_slaves(site: Any) -> None:
    site.link.held_for = ["b"]
    container = await site.kme.enc_keys(A, "b", KeyRequest(number=2))
    batch = await site.store.read(lambda connection: connection.exec_driver_sql("select batch from batches").scalar())
    answer = await site.link.deliver(DELIVERY_VOID, VoidKeys(batch=batch))
    assert (answer.voided, sorted(answer.issued)) == ([], sorted(ids(container)))
    assert await site.kme.dec_keys(B, "a", ids(container)) == container


async def test_a_void_that_overtakes_its_push_holds(site: Any, deliver: Any) -> None:
    push = held()
    for _ in range(2):
        answer = await site.link.deliver(DELIVERY_VOID, VoidKeys(batch=push.batch, key_ids=push.key_ids))
        assert answer.voided == push.key_ids
    with pytest.raises(ServiceError) as caught:
        await deliver(push)
    assert caught.value.code is ErrorCode.CONFLICT
    assert await count(site) == 0


async def test_the_state_of_batches_is_told(site: Any, deliver: Any) -> None:
    one, two = held(), held()
    await deliver(one)
    await deliver(two)
    await site.link.deliver(DELIVERY_VOID, VoidKeys(batch=two.batch))
    await site.link.deliver(DELIVERY_VOID, VoidKeys(batch="never"))
    await site.kme.enc_keys(A, "b", KeyRequest())
    released = await site.store.read(
        lambda connection: connection.exec_driver_sql("select batch from batches where for_master").scalar()
    )
    names = [two.batch, "nobody", one.batch, "never", released]
    states = await site.link.deliver(DELIVERY_QUERY, Query(batches=names))
    assert states.states == [
        BatchState.VOID,
        BatchState.UNKNOWN,
        BatchState.HELD,
        BatchState.VOID,
        BatchState.RELEASED,
    ]


async def test_after_a_session_what_is_held_unsettled_is_reported(site: Any, deliver: Any) -> None:
    batches = [held() for _ in range(3)]
    for push in batches:
        await deliver(push)
    await site.link.deliver(DELIVERY_SETTLE, Settle(batches=[batches[0].batch]))
    await site.upkeep.report()
    (report,) = site.link.reported
    assert report.store == site.store.store_id
    assert sorted(report.unsettled) == sorted(push.batch for push in batches[1:])


async def test_a_report_goes_out_even_if_nothing_is_held(site: Any) -> None:
    await site.upkeep.report()
    assert site.link.reported[0].unsettled == []


async def test_an_expired_copy_cannot_be_fetched_and_loses_its_bits(site: Any, deliver: Any) -> None:
    push = held(lifetime_ms=10_000)
    await deliver(push)
    site.clock.now += 10.0
    assert (await refusal_of(site.kme.dec_keys(B, "a", push.key_ids))).status == 400
    await site.upkeep.expire()
    assert await count(site, "bits is null and state = 'expired'") == 3


async def test_master_copies_that_expire_unissued_are_withdrawn_until_the_akms_knows(site: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(number=3)))
    request = await site.link.wait_for_request()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    push, _ = await site.link.push(request, lifetime_ms=10_000)
    issued = ids(await site.kme.enc_keys(A, "b", KeyRequest()))
    site.clock.now += 10.0
    await site.upkeep.expire()
    site.link.away = ErrorCode.UNREACHABLE
    with pytest.raises(ServiceError):
        await site.upkeep.withdraw()
    site.link.away = None
    assert await site.upkeep.withdraw()
    assert not await site.upkeep.withdraw()
    (message,) = site.link.withdrawn
    assert message.batch == push.batch
    assert sorted(message.key_ids) == sorted(set(push.key_ids) - set(issued))
    site.clock.now += 7300.0
    while await site.upkeep.purge():
        pass
    assert await count(site) == 0
    left = await site.store.read(lambda c: c.exec_driver_sql("select count(*) from batches").scalar())
    assert left == 0


async def test_rows_go_in_small_pieces(site: Any, deliver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "CHUNK", 2)
    push = held()
    await deliver(push)
    await site.kme.dec_keys(B, "a", push.key_ids)
    assert await site.vault.purge() == 0
    site.clock.now += 600.0
    assert [await site.vault.purge() for _ in range(3)] == [2, 1, 0]


async def test_no_key_bits_are_readable_in_the_store(site: Any, deliver: Any, key_bits: Any) -> None:
    push = held()
    await deliver(push)
    rows = await site.store.read(lambda connection: connection.exec_driver_sql("select bits from copies").all())
    assert len(rows) == 3
    for key_id in push.key_ids:
        assert all(key_bits(key_id) not in row.bits for row in rows)


async def test_an_unequal_push_is_refused_whole(site: Any) -> None:
    push = held()
    with pytest.raises(ServiceError) as caught:
        await site.link.deliver(DELIVERY_PUSH, push, bytes(95))
    assert caught.value.code is ErrorCode.MALFORMED
    assert await count(site) == 0


async def test_slaves_beside_the_master_have_their_own_lifetime(site: Any, deliver: Any, clock: Any) -> None:
    site.link.permit("a", "b", "c")
    site.link.held_for = ["b", "c"]
    site.link.serving = False
    asking = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(number=1, additional_slave_SAE_IDs=["c"])))
    asked = await site.link.wait_for_request()
    push, _ = await site.link.push(asked, lifetime_ms=1_000_000, slave_lifetime_ms=1_600_000)
    (one,) = ids(await asking)
    clock.now += 1_500
    await site.upkeep.expire()
    await site.vault.purge()
    assert ids(await site.kme.dec_keys(B, "a", [one])) == [one]
    clock.now += 101
    assert (await refusal_of(site.kme.dec_keys(C, "a", [one]))).status == 400
    assert push.key_ids == [one]


@pytest.mark.parametrize("lifetime", [-1, 1, 3_599_999, 31 * 86_400_000, 10**400])
async def test_a_slaves_lifetime_is_no_shorter_than_the_masters(deliver: Any, lifetime: int) -> None:
    with pytest.raises(ServiceError) as refused:
        await deliver(held(slave_lifetime_ms=lifetime))
    assert refused.value.code is ErrorCode.MALFORMED


async def test_a_void_tells_whose_store_answers(site: Any, deliver: Any) -> None:
    push = held()
    await deliver(push)
    for batch in (push.batch, uuid.uuid4().hex):
        answer = await site.link.deliver(DELIVERY_VOID, VoidKeys(batch=batch))
        assert answer.store == site.store.store_id
