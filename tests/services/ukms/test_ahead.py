"""Keys set aside for a busy buffer, on a real store: through a crash, a stop, a void and a revocation."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from keyhaul.identity.names import SaeId
from keyhaul.keys.etsi014 import KeyContainer, KeyRequest
from keyhaul.store.interface import StoreUnavailable
from keyhaul.transport.messages.access import Push, Revoke
from keyhaul.transport.messages.peer import VoidKeys
from keyhaul.transport.operations import DELIVERY_PUSH, DELIVERY_REVOKE, DELIVERY_VOID
from services.ukms.buffer import Buffer
from services.ukms.etsi014 import Refusal

A, B = SaeId("a"), SaeId("b")
KEYS = 60


def ids(container: KeyContainer) -> list[uuid.UUID]:
    return [key.key_ID for key in container.keys]


def buffer_of(site: Any) -> Buffer:
    buffers: list[Buffer] = list(site.supply.buffers)
    assert len(buffers) == 1
    return buffers[0]


async def settled(site: Any) -> None:
    """Wait until nothing is being set aside."""
    async with asyncio.timeout(5):
        while buffer_of(site).lease.coming:
            await asyncio.sleep(0.001)


async def states(site: Any) -> dict[uuid.UUID, str]:
    rows = await site.store.read(
        lambda connection: connection.exec_driver_sql("select key_id, state from copies where side = 'master'").all()
    )
    return {uuid.UUID(bytes=key_id): state for key_id, state in rows}


@pytest.fixture
def busy(key_bits: Any) -> Any:
    """Fills a site's buffer and asks until keys are set aside; returns the push and what was handed out."""

    async def make(site: Any, **changes: Any) -> tuple[Push, list[uuid.UUID]]:
        site.link.permit("a", "b")
        site.link.serving = False
        waiting = asyncio.create_task(site.kme.enc_keys(A, "b", KeyRequest(number=KEYS)))
        request = await site.link.wait_for_request()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        push, _ = await site.link.push(request, held_for=["b"], **changes)
        site.clock.now += 2.0
        given = []
        for _ in range(6):
            given += ids(await site.kme.enc_keys(A, "b", KeyRequest()))
            await settled(site)
        assert len(buffer_of(site).lease) > 5
        site.kme._patience = 0.05
        return push, given

    return make


async def test_keys_set_aside_are_handed_out_without_a_transaction(
    sites: Any, busy: Any, key_bits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await sites.make()
    push, given = await busy(site)
    aside = len(buffer_of(site).lease)

    async def refuse(_change: Any) -> Any:
        raise StoreUnavailable("not now")

    monkeypatch.setattr(site.store, "write", refuse)
    container = await site.kme.enc_keys(A, "b", KeyRequest(number=aside))
    assert [(key.key_ID, key.key) for key in container.keys] == [(one, key_bits(one)) for one in ids(container)]
    assert given + ids(container) == push.key_ids[: len(given) + aside]


async def test_more_than_is_set_aside_comes_whole_and_in_order(sites: Any, busy: Any) -> None:
    site = await sites.make()
    push, _given = await busy(site)
    aside = len(buffer_of(site).lease)
    assert ids(await site.kme.enc_keys(A, "b", KeyRequest(number=aside + 3))) == push.key_ids[6 : 6 + aside + 3]


async def test_after_a_crash_what_was_set_aside_counts_as_issued_and_stays_with_its_slave(
    sites: Any, busy: Any
) -> None:
    site = await sites.make()
    push, given = await busy(site)
    aside = {one.stored.key_id for one in buffer_of(site).lease._ready}
    await sites.made.pop().close()
    again = await sites.make(link=site.link, patience=0.05)
    later = []
    with pytest.raises(Refusal):
        while True:
            later += ids(await again.kme.enc_keys(A, "b", KeyRequest()))
    assert sorted(later) == sorted(set(push.key_ids) - set(given) - aside)
    answer = await again.link.deliver(DELIVERY_VOID, VoidKeys(batch=push.batch))
    assert aside <= set(answer.issued)
    assert sorted(ids(await again.kme.dec_keys(B, "a", sorted(aside)))) == sorted(aside)


async def test_a_stop_loses_no_key(sites: Any, busy: Any) -> None:
    site = await sites.make()
    push, given = await busy(site)
    site.supply.close()
    await site.supply.give_back()
    await sites.made.pop().close()
    again = await sites.make(link=site.link)
    rest = ids(await again.kme.enc_keys(A, "b", KeyRequest(number=KEYS - len(given))))
    assert sorted(given + rest) == sorted(push.key_ids)


async def test_a_void_takes_back_what_is_set_aside_and_not_what_was_handed_out(sites: Any, busy: Any) -> None:
    site = await sites.make()
    push, given = await busy(site)
    answer = await site.link.deliver(DELIVERY_VOID, VoidKeys(batch=push.batch))
    assert sorted(answer.issued) == sorted(given)
    assert sorted(answer.voided) == sorted(set(push.key_ids) - set(given))
    assert set((await states(site)).values()) == {"issued", "void"}
    with pytest.raises(Refusal):
        await site.kme.enc_keys(A, "b", KeyRequest())


async def test_a_void_waits_for_what_is_being_set_aside(sites: Any, busy: Any) -> None:
    site = await sites.make()
    push, given = await busy(site)
    buffer = buffer_of(site)
    buffer.lease.asked(KEYS, site.clock())
    site.supply._leasing.ahead(buffer)
    assert buffer.lease.coming
    answer = await site.link.deliver(DELIVERY_VOID, VoidKeys(batch=push.batch, key_ids=push.key_ids))
    assert sorted(answer.issued) == sorted(given)
    with pytest.raises(Refusal):
        await site.kme.enc_keys(A, "b", KeyRequest())


async def test_a_revocation_gives_back_what_is_set_aside(sites: Any, busy: Any) -> None:
    site = await sites.make()
    _push, given = await busy(site)
    await site.link.deliver(DELIVERY_REVOKE, Revoke(master="a", slaves=["b"]))
    async with asyncio.timeout(5):
        while list((await states(site)).values()).count("released") < KEYS - len(given):
            await asyncio.sleep(0.001)
    assert not len(buffer_of(site).lease)


async def test_keys_set_aside_that_expire_are_withdrawn(sites: Any, busy: Any) -> None:
    site = await sites.make()
    push, given = await busy(site, lifetime_ms=10_000)
    site.clock.now += 11.0
    async with asyncio.timeout(5):
        while sum(len(message.key_ids) for message in site.link.withdrawn) < KEYS - len(given):
            await site.upkeep.expire()
            await site.upkeep.withdraw()
    told = [one for message in site.link.withdrawn for one in message.key_ids]
    assert sorted(told) == sorted(set(push.key_ids) - set(given))


async def test_what_a_failed_store_may_have_set_aside_is_burned(
    sites: Any, busy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await sites.make()
    _push, _given = await busy(site)
    honest = site.store.write

    async def unsure(change: Any) -> Any:
        await honest(change)
        raise StoreUnavailable("nobody knows")

    monkeypatch.setattr(site.store, "write", unsure)
    buffer = buffer_of(site)
    aside = [one.stored.key_id for one in buffer.lease._ready]
    buffer.lease.asked(KEYS, site.clock())
    site.supply._leasing.ahead(buffer)
    await settled(site)
    monkeypatch.setattr(site.store, "write", honest)
    later = ids(await site.kme.enc_keys(A, "b", KeyRequest(number=len(aside))))
    assert later == aside
    with pytest.raises(Refusal):
        await site.kme.enc_keys(A, "b", KeyRequest())


async def test_a_repeated_push_of_a_batch_set_aside_changes_nothing(sites: Any, busy: Any, key_bits: Any) -> None:
    site = await sites.make()
    push, _given = await busy(site)
    before = await states(site)
    await site.link.deliver(DELIVERY_PUSH, push, b"".join(key_bits(one) for one in push.key_ids))
    assert await states(site) == before
