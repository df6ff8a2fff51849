"""What one AKMS may ask of another: grants that are not its own, forged keys, other makers' batches."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from sqlalchemy import select

from keyhaul.keys.grants import encode, sign
from keyhaul.randomness import identifier
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState, KeyRequest, Query, SlaveSite, Transfer, VoidKeys
from keyhaul.transport.messages.relay import Deliver
from keyhaul.transport.operations import CARRIER_DELIVER, PEER_QUERY, PEER_REQUEST, PEER_TRANSFER, PEER_VOID
from services.akms.ephemeral import EphemeralKeys
from services.akms.tables import GRANT_COUNTS
from tests.services.akms.town import Town, name, until


def request_of(town: Town, *, number: int = 1, key: MLDSA65PrivateKey | None = None, **grant: Any) -> KeyRequest:
    ephemeral = EphemeralKeys("akms-1", town.a.key).borrow("akms-2", 0.0)
    granted = town.aaa.grant("sae-1a", ["sae-2a"], **grant)
    return KeyRequest(
        request=identifier(),
        grant=encode(sign(granted, key or town.aaa.key)),
        number=number,
        size=256,
        slaves=granted.slaves,
        destination="ckms-1",
        kem_key=ephemeral.public,
        kem_signature=ephemeral.signature,
        remaining_ms=500,
    )


async def ask(town: Town, request: KeyRequest, caller: str = "akms-1") -> None:
    await town.to_akms(name(caller), town.a.certificate, "akms-2", PEER_REQUEST, request)


async def refused(town: Town, request: KeyRequest) -> None:
    with pytest.raises(ServiceError) as refusal:
        await ask(town, request)
    assert refusal.value.code is ErrorCode.NOT_PERMITTED
    assert "delivery.push" not in town.log


@pytest.mark.parametrize(
    "changed",
    [
        {"master_akms": "akms-2"},
        {"domain": "other.example"},
        {"slaves": [SlaveSite("sae-2a", "ukms-2", "akms-3")]},
        {"slaves": [SlaveSite("sae-1b", "ukms-1", "akms-1")]},
        {"sizes": [128]},
        {"maximum_size": 128},
        {"allowance": 0},
    ],
)
async def test_a_grant_that_does_not_cover_the_request(town: Town, changed: dict[str, Any]) -> None:
    await refused(town, request_of(town, **changed))


async def test_a_grant_that_aaa_did_not_sign(town: Town) -> None:
    await refused(town, request_of(town, key=MLDSA65PrivateKey.generate()))


async def test_a_grant_too_many_epochs_old(town: Town) -> None:
    town.aaa.epoch = 40
    await until(lambda: town.b.service.authorisation.epoch == 40)
    await ask(town, request_of(town, epoch=15))
    await until(lambda: "delivery.push" in town.log)
    town.log.clear()
    await refused(town, request_of(town, epoch=14))


async def test_a_slave_site_that_the_grant_does_not_name(town: Town) -> None:
    request = request_of(town)
    request.slaves = [SlaveSite("sae-2a", "ukms-22", "akms-2")]
    await refused(town, request)


async def test_a_kem_key_signed_by_somebody_else(town: Town) -> None:
    request = request_of(town)
    ephemeral = EphemeralKeys("akms-1", MLDSA65PrivateKey.generate()).borrow("akms-2", 0.0)
    request.kem_signature = ephemeral.signature
    await refused(town, request)


async def test_a_kem_key_offered_to_another_maker(town: Town) -> None:
    request = request_of(town)
    ephemeral = EphemeralKeys("akms-1", town.a.key).borrow("akms-3", 0.0)
    request.kem_key, request.kem_signature = ephemeral.public, ephemeral.signature
    await refused(town, request)


async def test_keys_for_another_node_than_the_askers(town: Town) -> None:
    request = request_of(town)
    request.destination = "ckms-3"
    await refused(town, request)


async def test_the_makers_own_count_stops_at_the_allowance(town: Town) -> None:
    request = request_of(town, number=3, allowance=5)
    request.remaining_ms = 8_000  # of one whose time is over nothing is told
    for _ in range(2):
        request.request = identifier()
        await ask(town, request)
    await until(lambda: town.log.count("peer.failed") >= 1)
    pushed = {copy.batch for copies in town.ukms["ukms-2"].copies.values() for copy in copies.values()}
    assert len(pushed) == 1


@pytest.mark.parametrize("took", [0, 2])
async def test_keys_that_an_asker_had_leave_the_count_by_the_word_of_the_slaves_ukms_alone(
    town: Town, took: int
) -> None:
    """The asker takes a transfer, hands the keys on, and says that nothing of it was ever released."""
    slave, held = town.ukms["ukms-2"], ("slave", "sae-2a")
    transferred: list[Transfer] = []
    route = town.a.routes.find(PEER_TRANSFER.path)
    assert route is not None

    async def keep(_peer: Any, message: Any) -> Any:
        for key_id in message.key_ids[:took]:
            slave.copies[held][key_id].state = "issued"
        slave.away = True
        transferred.append(message)
        raise ServiceError(ErrorCode.CONFLICT)

    async def used() -> list[int]:
        return list(await town.b.store.real.read(lambda c: c.execute(select(GRANT_COUNTS.c.used)).scalars()))

    town.a.routes._routes[PEER_TRANSFER.path] = type(route)(route.operation, route.request, keep)
    request = request_of(town, number=3)
    await ask(town, request)
    await until(lambda: transferred and "peer.void" in town.log)
    assert slave.usable(*held)
    assert await used() == [3]
    slave.away = False
    await slave.report()
    async with asyncio.timeout(10):
        while await used() != [took]:
            await asyncio.sleep(0.01)
    assert len(slave.usable(*held)) == took


async def test_a_transfer_that_nobody_asked_for(town: Town) -> None:
    transfer = Transfer(
        request=identifier(),
        batch=identifier(),
        suite="aead",
        key_ids=[uuid4()],
        size=256,
        cn=[],
        kem_key_digest=b"",
        kem_ciphertext=b"",
        cipher=bytes(32),
        tag=bytes(16),
        signature=b"",
        lifetime_ms=86_400_000,
    )
    with pytest.raises(ServiceError) as refusal:
        await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_TRANSFER, transfer)
    assert refusal.value.code is ErrorCode.NOT_FOUND


async def test_other_makers_learn_and_void_nothing(town: Town) -> None:
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    await town.settled("sae-1a", ["sae-2a"])
    batch = next(iter(town.records))
    stranger = name("akms-9")
    reply = await town.to_akms(stranger, town.b.certificate, "akms-1", PEER_QUERY, Query(batches=[batch]))
    assert reply.states == [BatchState.UNKNOWN]
    with pytest.raises(ServiceError):
        await town.to_akms(stranger, town.b.certificate, "akms-1", PEER_VOID, VoidKeys(batch=batch))
    await town.settled("sae-1a", ["sae-2a"])


async def test_a_void_of_an_unknown_batch_is_remembered(town: Town) -> None:
    batch = identifier()
    for _ in range(2):
        await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_VOID, VoidKeys(batch=batch))
    reply = await town.to_akms(name("akms-2"), town.b.certificate, "akms-1", PEER_QUERY, Query(batches=[batch]))
    assert reply.states == [BatchState.VOID]


async def test_cn_bits_only_from_the_own_ckms(town: Town) -> None:
    with pytest.raises(ServiceError) as refusal:
        await town.to_akms(
            name("ckms-2"), town.b.certificate, "akms-1", CARRIER_DELIVER, Deliver(batch=identifier(), bits=bytes(64))
        )
    assert refusal.value.code is ErrorCode.FORBIDDEN
