"""Keys for masters: from buffers and from the AKMS, each once, with the answers that users get."""

import asyncio
import uuid
from typing import Any

import msgspec
import pytest

from keyhaul.identity.names import SaeId
from keyhaul.keys.etsi014 import KeyContainer, KeyRequest
from keyhaul.transport.messages.access import DeliveryFailed, Purpose, Push, Revoke
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import FailureReason, VoidKeys
from keyhaul.transport.operations import DELIVERY_FAILED, DELIVERY_PUSH, DELIVERY_REVOKE, DELIVERY_VOID
from services.ukms.buffer import Policy
from services.ukms.etsi014 import Refusal, slave_refused

A, B = SaeId("a"), SaeId("b")
AHEAD = Policy(minimum=8, maximum=64, horizon=4.0)


async def refusal_of(work: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await work
    return caught.value


def ids(container: KeyContainer) -> list[uuid.UUID]:
    return [key.key_ID for key in container.keys]


async def test_a_request_without_a_buffer_is_asked_of_the_akms(site: Any, key_bits: Any) -> None:
    container = await site.kme.enc_keys(A, "b", KeyRequest(number=3, size=128))
    assert [key.key for key in container.keys] == [key_bits(key.key_ID, 128) for key in container.keys]
    assert len(container.keys) == 3
    (request,) = site.link.requested
    assert (request.master, request.slaves, request.number, request.size) == ("a", ["b"], 3, 128)
    assert request.purpose is Purpose.DEMAND
    assert 0 < request.remaining_ms <= 5000


async def test_the_akms_is_watched_while_somebody_waits_for_its_push(site: Any) -> None:
    site.link.permit("a", "b")
    site.link.serving = False
    waiting = [asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest())) for _ in range(2)]
    request = await site.link.wait_for_request()
    async with asyncio.timeout(5):
        while site.link.expected < 2:
            await asyncio.sleep(0)
    waiting.pop().cancel()
    await site.link.push(request)
    await waiting[0]
    assert site.link.expected == 0


async def test_nothing_of_an_issued_key_stays(site: Any, tmp_path: Any) -> None:
    container = await site.kme.enc_keys(A, "b", KeyRequest())
    rows = await site.store.read(lambda connection: connection.exec_driver_sql("select state, bits from copies").all())
    assert [tuple(row) for row in rows] == [("issued", None)]
    assert await site.vault.at_hand() == []
    assert len(container.keys) == 1


async def test_prefetched_keys_are_issued_without_asking(sites: Any, key_bits: Any) -> None:
    site = await sites.make(policy=AHEAD)
    site.link.permit("a", "b")
    first = await site.kme.enc_keys(A, "b", KeyRequest())
    while sum(buffer.stored for buffer in site.supply.buffers) < 8:
        await asyncio.sleep(0.001)
    site.link.serving = False
    second = await site.kme.enc_keys(A, "b", KeyRequest(number=8))
    assert [key.key for key in second.keys] == [key_bits(key.key_ID) for key in second.keys]
    assert not set(ids(first)) & set(ids(second))
    assert [request.purpose for request in site.link.requested[:2]] == [Purpose.DEMAND, Purpose.PREFETCH]


async def test_a_buffer_survives_a_restart_and_stays_with_its_size_and_set(sites: Any) -> None:
    site = await sites.make()
    site.link.permit("a", "b")
    site.link.permit("a", "b", "c")
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(number=2)))
    request = await site.link.wait_for_request()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    push, _ = await site.link.push(request)
    await sites.made.pop().close()
    again = await sites.make(link=site.link, patience=0.05)
    first = ids(await again.kme.enc_keys(A, "b", KeyRequest(number=1)))
    assert (await refusal_of(again.kme.enc_keys(A, "b", KeyRequest(size=128)))).status == 503
    several = KeyRequest(additional_slave_SAE_IDs=["c"])
    assert (await refusal_of(again.kme.enc_keys(A, "b", several))).status == 503
    second = ids(await again.kme.enc_keys(A, "b", KeyRequest()))
    assert sorted(first + second) == sorted(push.key_ids)


async def test_a_request_made_before_a_restart_is_still_answered_after_it(sites: Any) -> None:
    site = await sites.make()
    site.link.permit("a", "b")
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    request = await site.link.wait_for_request()
    site.supply.close()
    assert (await refusal_of(waiting)).status == 503
    await sites.made.pop().close()
    again = await sites.make(link=site.link)
    push, held = await site.link.push(request)
    assert held.store == again.store.store_id
    assert ids(await again.kme.enc_keys(A, "b", KeyRequest())) == push.key_ids


async def test_keys_nobody_asked_for_are_refused(site: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(number=2)))
    request = await site.link.wait_for_request()
    wrong: list[dict[str, Any]] = [
        {"request": "0" * 32},
        {"master": "z"},
        {"slaves": ["c"]},
        {"size": 128},
        {"key_ids": [uuid.uuid4() for _ in range(3)]},
    ]
    for changes in wrong:
        with pytest.raises(ServiceError) as caught:
            await site.link.push(request, **changes)
        assert caught.value.code is ErrorCode.NOT_FOUND
    await site.link.push(request)
    assert len((await waiting).keys) == 2
    with pytest.raises(ServiceError):
        await site.link.push(request)


async def test_a_repeated_push_changes_nothing(site: Any, key_bits: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    request = await site.link.wait_for_request()
    push, held = await site.link.push(request)
    issued = await waiting
    other_waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    await site.link.wait_for_request()
    secret = b"".join(key_bits(one) for one in push.key_ids)
    again = await asyncio.gather(*(site.link.deliver(DELIVERY_PUSH, push, secret) for _ in range(5)))
    assert [(one.batch, one.store) for one in again] == [(held.batch, held.store)] * 5
    assert not other_waiting.done()
    with pytest.raises(ServiceError) as caught:
        await site.link.push(request, batch=push.batch)
    assert caught.value.code is ErrorCode.CONFLICT
    await site.link.push(site.link.requested[-1])
    assert ids(await other_waiting) != ids(issued)


async def test_keys_that_come_beside_a_repeated_push_reach_who_waits(site: Any, key_bits: Any) -> None:
    """While the repeated push is looked up, who waits is allotted keys that it will turn out to have brought before."""
    site.link.serving = False
    first = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    push, _ = await site.link.push(await site.link.wait_for_request())
    await first
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    request = await site.link.wait_for_request()
    secret = b"".join(key_bits(one) for one in push.key_ids)
    repeated = asyncio.create_task(site.link.deliver(DELIVERY_PUSH, push, secret))
    (buffer,) = site.supply.buffers
    while buffer.waiting:
        await asyncio.sleep(0)
    fresh, _ = await site.link.push(request)
    await repeated
    assert ids(await waiting) == fresh.key_ids


async def test_a_push_at_the_same_time_twice_is_taken_once(site: Any, key_bits: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    request = await site.link.wait_for_request()
    one = uuid.uuid4()
    push = Push(
        batch="1" * 32,
        request=request.request,
        master="a",
        slaves=["b"],
        for_master=True,
        key_ids=[one],
        size=256,
        service_class="silver",
        lifetime_ms=1000,
    )
    await asyncio.gather(*(site.link.deliver(DELIVERY_PUSH, push, key_bits(one)) for _ in range(8)))
    assert ids(await waiting) == [one]
    assert await site.vault.at_hand() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 12},
        {"size": 0},
        {"size": 264},
        {"key_ids": []},
        {"key_ids": [uuid.UUID(int=1)] * 2},
        {"key_ids": [uuid.uuid4()]},
        {"held_for": ["c"]},
        {"held_for": ["b", "b"]},
        {"slaves": []},
        {"slaves": ["b", "b"]},
        {"master": "a/b"},
        {"for_master": False},
        {"lifetime_ms": 0},
        {"lifetime_ms": 10**15},
        {"batch": ""},
        {"batch": "x" * 65},
    ],
)
async def test_a_push_that_contradicts_itself_is_refused(site: Any, changes: dict[str, Any]) -> None:
    push = Push(
        batch="1" * 32,
        request="",
        master="a",
        slaves=["b"],
        for_master=True,
        key_ids=[uuid.uuid4(), uuid.uuid4()],
        size=256,
        service_class="silver",
        lifetime_ms=1000,
    )
    with pytest.raises(ServiceError) as caught:
        await site.link.deliver(DELIVERY_PUSH, msgspec.structs.replace(push, **changes), bytes(64))
    assert caught.value.code is ErrorCode.MALFORMED


async def test_waiting_requests_are_served_in_order(site: Any) -> None:
    site.link.serving = False
    tasks = []
    for number in (2, 1):
        tasks.append(asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(number=number))))
        await site.link.wait_for_request()
    first, second = site.link.requested
    push, _ = await site.link.push(second)
    assert not tasks[0].done()
    assert not tasks[1].done()
    other, _ = await site.link.push(first)
    assert ids(await tasks[0]) == [*push.key_ids, other.key_ids[0]]
    assert ids(await tasks[1]) == other.key_ids[1:]


async def test_no_keys_in_time_is_503(sites: Any) -> None:
    site = await sites.make(patience=0.02)
    site.link.permit("a", "b")
    site.link.serving = False
    refusal = await refusal_of(site.kme.enc_keys(A, "b", KeyRequest()))
    assert (refusal.status, refusal.retry_after) == (503, 1)


async def test_a_late_push_goes_to_the_next_who_asks(site: Any) -> None:
    site.link.serving = False
    gone = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    request = await site.link.wait_for_request()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    push, _ = await site.link.push(request)
    assert ids(await site.kme.enc_keys(A, "b", KeyRequest())) == push.key_ids


async def test_what_the_akms_cannot_serve_is_503_with_its_delay(site: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    request = await site.link.wait_for_request()
    failure = DeliveryFailed(request=request.request, reason=FailureReason.NO_KEYS, retry_after_ms=7000)
    await site.link.deliver(DELIVERY_FAILED, failure)
    refusal = await refusal_of(waiting)
    assert (refusal.status, refusal.retry_after) == (503, 7)
    with pytest.raises(ServiceError):
        await site.link.push(request)


async def test_beyond_a_rate_each_who_waits_is_told_a_time_of_his_own(site: Any) -> None:
    site.link.serving = False
    waiting = [asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(number=5))) for _ in range(3)]
    while len(site.link.requested) < 3:
        await site.link.wait_for_request()
    for request in tuple(site.link.requested):
        failure = DeliveryFailed(
            request=request.request, reason=FailureReason.NO_KEYS, retry_after_ms=5000, keys_per_second=1.0
        )
        await site.link.deliver(DELIVERY_FAILED, failure)
    refusals = [await refusal_of(task) for task in waiting]
    assert {refusal.status for refusal in refusals} == {503}
    assert {refusal.retry_after for refusal in refusals} == {5, 10, 15}


async def test_a_transient_failure_is_tried_again(site: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    request = await site.link.wait_for_request()
    await site.link.deliver(DELIVERY_FAILED, DeliveryFailed(request=request.request, reason=FailureReason.UNREACHABLE))
    again = await site.link.wait_for_request()
    assert again.request != request.request
    await site.link.push(again)
    assert len((await waiting).keys) == 1


async def test_a_new_session_repeats_what_is_wanted(site: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    await site.link.wait_for_request()
    site.upkeep.new_session()
    await site.link.push(await site.link.wait_for_request())
    assert len((await waiting).keys) == 1


async def test_an_exhausted_allowance_is_told_at_once(site: Any) -> None:
    site.link.refuses = ServiceError(ErrorCode.EXHAUSTED, retry_after_ms=5000)
    refusal = await refusal_of(site.kme.enc_keys(A, "b", KeyRequest()))
    assert (refusal.status, refusal.retry_after) == (503, 5)


async def test_a_refused_request_looks_like_an_unknown_slave(site: Any) -> None:
    site.link.refuses = ServiceError(ErrorCode.NOT_PERMITTED)
    refusal = await refusal_of(site.kme.enc_keys(A, "b", KeyRequest()))
    assert (refusal.status, refusal.error) == (400, slave_refused().error)


async def test_unknown_slave_forbidden_slave_and_unknown_caller_look_alike(site: Any) -> None:
    site.link.permit("b", "a")
    refusals = [
        await refusal_of(work)
        for work in (
            site.kme.enc_keys(A, "nobody", KeyRequest()),
            site.kme.enc_keys(A, "c", KeyRequest()),
            site.kme.enc_keys(SaeId("stranger"), "b", KeyRequest()),
            site.kme.enc_keys(A, "b", KeyRequest(additional_slave_SAE_IDs=["nobody"])),
            site.kme.enc_keys(A, "a", KeyRequest()),
            site.kme.status(A, "nobody"),
            site.kme.status(SaeId("stranger"), "b"),
            site.kme.status(A, "not/possible"),
        )
    ]
    assert {(refusal.status, msgspec.json.encode(refusal.error)) for refusal in refusals} == {
        (400, msgspec.json.encode(slave_refused().error))
    }


async def test_master_and_slave_are_the_same_only_where_the_contract_says_loopback(site: Any) -> None:
    site.link.permit("a", "a")
    assert (await refusal_of(site.kme.enc_keys(A, "a", KeyRequest()))).error == slave_refused().error
    site.link.permit("z", "z", loopback=True)
    site.link.held_for = ["z"]
    container = await site.kme.enc_keys(SaeId("z"), "z", KeyRequest(number=2))
    fetched = await site.kme.dec_keys(SaeId("z"), "z", ids(container))
    assert fetched == container


async def test_status_tells_the_contract_and_what_is_at_hand(sites: Any) -> None:
    site = await sites.make(policy=AHEAD)
    site.link.permit("a", "b")
    status = await site.kme.status(A, "b")
    assert msgspec.to_builtins(status) == {
        "source_KME_ID": "kme-a",
        "target_KME_ID": "kme-b",
        "master_SAE_ID": "a",
        "slave_SAE_ID": "b",
        "key_size": 256,
        "stored_key_count": 0,
        "max_key_count": 1000,
        "max_key_per_request": 128,
        "max_key_size": 1024,
        "min_key_size": 64,
        "max_SAE_ID_count": 2,
    }
    await site.kme.enc_keys(A, "b", KeyRequest())
    while (await site.kme.status(A, "b")).stored_key_count < 8:
        await asyncio.sleep(0.001)


async def test_expired_keys_are_not_issued(site: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    request = await site.link.wait_for_request()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    old, _ = await site.link.push(request, lifetime_ms=10_000)
    site.clock.now += 10.0
    site.link.serving = True
    assert ids(await site.kme.enc_keys(A, "b", KeyRequest())) != old.key_ids


async def test_a_voided_key_is_not_issued_and_an_issued_one_not_voided(site: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(number=3)))
    request = await site.link.wait_for_request()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    push, _ = await site.link.push(request)
    issued = ids(await site.kme.enc_keys(A, "b", KeyRequest()))
    for _ in range(2):
        answer = await site.link.deliver(DELIVERY_VOID, VoidKeys(batch=push.batch))
        assert sorted(answer.voided) == sorted(set(push.key_ids) - set(issued))
        assert answer.issued == issued
    site.link.serving = True
    assert not set(ids(await site.kme.enc_keys(A, "b", KeyRequest(number=2)))) & set(push.key_ids)


async def test_keys_voided_behind_the_buffers_back_are_replaced(site: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(number=3)))
    request = await site.link.wait_for_request()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    push, _ = await site.link.push(request)
    await site.vault.void(push.batch, push.key_ids[:2])
    assert ids(await site.kme.enc_keys(A, "b", KeyRequest())) == push.key_ids[2:]


async def test_a_revocation_stops_issuing_until_the_contract_is_asked_anew(site: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(number=2)))
    request = await site.link.wait_for_request()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    push, _ = await site.link.push(request)
    both = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(additional_slave_SAE_IDs=["c"])))
    await site.link.wait_for_request()
    permitted = dict(site.link.permitted)
    site.link.permitted.clear()
    await site.link.deliver(DELIVERY_REVOKE, Revoke(master="a", slaves=["b"]))
    assert (await refusal_of(both)).error == slave_refused().error
    assert (await refusal_of(site.kme.enc_keys(A, "b", KeyRequest()))).status == 400
    site.clock.now += 2.0
    site.link.permitted = permitted
    assert ids(await site.kme.enc_keys(A, "b", KeyRequest())) == push.key_ids[:1]


async def test_a_revocation_outruns_a_description_on_its_way(site: Any) -> None:
    async def revoke() -> None:
        site.link.before_description = None
        site.link.permitted.clear()
        await site.link.deliver(DELIVERY_REVOKE, Revoke(master="a"))

    site.link.before_description = revoke
    assert (await refusal_of(site.kme.enc_keys(A, "b", KeyRequest()))).error == slave_refused().error
    assert len(site.link.described) == 2


async def test_keys_at_hand_are_issued_while_the_akms_is_away_even_after_a_restart(sites: Any) -> None:
    site = await sites.make()
    site.link.permit("a", "b")
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(number=3)))
    request = await site.link.wait_for_request()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    push, _ = await site.link.push(request)
    site.link.away = ErrorCode.UNREACHABLE
    site.clock.now += 120.0
    assert ids(await site.kme.enc_keys(A, "b", KeyRequest())) == push.key_ids[:1]
    await sites.made.pop().close()
    site.link.away = None
    again = await sites.make(link=site.link)
    site.link.away = ErrorCode.UNREACHABLE
    assert ids(await again.kme.enc_keys(A, "b", KeyRequest()))[0] in push.key_ids[1:]
    again.clock.now += 3600.0
    again.kme._patience = 0.05
    assert (await refusal_of(again.kme.enc_keys(A, "b", KeyRequest()))).status == 503


async def test_after_a_revocation_nothing_is_issued_while_the_akms_is_away(sites: Any) -> None:
    site = await sites.make()
    site.link.permit("a", "b")
    await site.kme.enc_keys(A, "b", KeyRequest())
    await site.link.deliver(DELIVERY_REVOKE, Revoke(master="a"))
    await sites.made.pop().close()
    again = await sites.make(link=site.link, patience=0.05)
    site.link.away = ErrorCode.UNREACHABLE
    assert (await refusal_of(again.kme.enc_keys(A, "b", KeyRequest()))).status == 503


async def test_a_request_outlives_a_short_absence_of_the_akms(site: Any) -> None:
    site.link.away = ErrorCode.UNREACHABLE
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    await asyncio.sleep(0)
    site.link.away = None
    assert len((await waiting).keys) == 1


async def test_a_description_is_asked_for_once_while_it_is_valid(site: Any) -> None:
    await asyncio.gather(*(site.kme.status(A, "b") for _ in range(10)))
    assert len(site.link.described) == 1
    site.clock.now += 61.0
    await site.kme.status(A, "b")
    assert len(site.link.described) == 2


async def test_keys_of_another_class_than_described_are_not_handed_out(site: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    request = await site.link.wait_for_request()
    await site.link.push(request, service_class="gold")
    assert (await refusal_of(waiting)).status == 503
    site.link.permit("a", "b", service_class="gold")
    assert len((await site.kme.enc_keys(A, "b", KeyRequest())).keys) == 1
    assert len(site.link.described) == 2


async def test_a_wait_beyond_all_bounds_is_cut(site: Any) -> None:
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    request = await site.link.wait_for_request()
    failure = DeliveryFailed(request=request.request, reason=FailureReason.NO_KEYS, retry_after_ms=10**400)
    await site.link.deliver(DELIVERY_FAILED, failure)
    refusal = await refusal_of(waiting)
    assert (refusal.status, refusal.retry_after) == (503, 60)


async def test_while_it_ends_pushes_are_refused(sites: Any) -> None:
    """Its tasks are being cancelled, and the link still brings messages: none begins, and none fails by surprise."""
    site = await sites.make()
    site.link.permit("a", "b")
    site.link.serving = False
    waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest()))
    request = await site.link.wait_for_request()
    site.running.cancel()
    refusals: list[Any] = []
    while not site.running.done():
        await asyncio.sleep(0)
        pushing = asyncio.create_task(site.link.push(request))
        await asyncio.wait([pushing], timeout=0.05)
        pushing.cancel()
        refusals += await asyncio.gather(pushing, return_exceptions=True)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert refusals
    assert all(isinstance(refusal, ServiceError | asyncio.CancelledError) for refusal in refusals), refusals
    with pytest.raises(ServiceError) as refused:
        await site.link.push(request)
    assert refused.value.code is ErrorCode.UNREACHABLE
