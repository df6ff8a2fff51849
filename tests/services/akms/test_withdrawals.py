"""Keys that expire unfetched are told to AAA, whatever the AKMS itself still knows of them by then."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from keyhaul.keys.states import KeyState
from keyhaul.randomness import identifier
from keyhaul.transport.messages.aaa import Revocation
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import Withdraw
from keyhaul.transport.operations import ACCESS_WITHDRAW, DELIVERY_PUSH
from services.akms.accounting import MAXIMUM_UNKNOWN
from services.akms.tables import BATCHES, USAGE
from tests.services.akms.town import Town, until


async def withdraw(town: Town, batch: str, key_ids: list[UUID], ukms: str = "ukms-1") -> None:
    """A UKMS, as a rule the master's, says that keys expired."""
    await town.ukms[ukms].up(ACCESS_WITHDRAW, Withdraw(batch=batch, key_ids=key_ids))


async def rows(town: Town, table: str) -> int:
    """Rows of the asker's store."""
    of = {"batches": BATCHES, "usage": USAGE}[table]
    return await town.a.store.real.read(lambda c: c.execute(select(func.count()).select_from(of)).scalar_one())


async def issued(town: Town) -> bool:
    """Whether the asker has noted that all batches are handed over."""
    states = await town.a.store.real.read(lambda c: set(c.execute(select(BATCHES.c.state)).scalars()))
    return states == {KeyState.ISSUED}


@pytest.mark.parametrize("ahead", [0.0, 200_000.0])
async def test_keys_that_expire_are_told_to_aaa_once(town: Town, ahead: float) -> None:
    """Also where the wall clock of the AKMS jumped beyond the end of its record."""
    ids = await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 4)
    await until(lambda: town.records)
    (batch,) = town.records
    town.a.ahead = ahead
    while not await issued(town):
        await asyncio.sleep(0)
    if ahead:
        await town.a.service.endings.purge()
        assert await rows(town, "batches") == 0
    for _ in range(2):
        await withdraw(town, batch, ids[:3])
    await until(lambda: town.aaa.expired == set(ids[:3]))
    assert len(town.records) == 1
    assert not town.aaa.void


async def test_a_withdrawal_while_aaa_is_away_comes_after_the_record(town: Town) -> None:
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    await until(lambda: town.records)
    town.aaa.away = True
    ids = await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 2)
    batch = town.ukms["ukms-1"].pushed[-1].batch
    town.a.ahead = 200_000.0
    await town.a.service.endings.purge()
    await withdraw(town, batch, ids)
    await town.a.restart()
    town.aaa.away = False
    await until(lambda: town.aaa.expired == set(ids))
    assert town.records[batch][1] == set(ids)


@pytest.mark.parametrize("word", ["recall", "withdrawal"])
async def test_what_a_ukms_says_of_keys_tells_that_it_got_them(town: Town, word: str) -> None:
    """No answer to the push came: what was handed out is not taken for expired when the record ends."""
    master = town.ukms["ukms-1"]
    handle = master.handle

    async def silent(operation: Any, request: Any, secret: bytes) -> Any:
        answer = await handle(operation, request, secret)
        if operation is DELIVERY_PUSH:
            raise ServiceError(ErrorCode.UNREACHABLE)
        return answer

    master.handle = silent  # type: ignore[method-assign]
    ids = await master.ask("sae-1a", ["sae-2a"], 3)
    await until(lambda: town.records)
    (batch,) = town.records
    assert not await issued(town)
    master.issue("sae-1a", ids[:1])
    if word == "recall":
        town.aaa.revocations.append(Revocation(serial=1, master="sae-1a"))
        await until(lambda: town.aaa.void == set(ids[1:]))
    else:
        await withdraw(town, batch, ids[1:])
        await until(lambda: town.aaa.expired == set(ids[1:]))
    assert await issued(town)
    town.a.ahead = 200_000.0
    await town.a.service.endings.purge()
    assert await rows(town, "batches") == 0
    await town.a.service.accounting.flush()
    assert ids[0] not in town.aaa.expired


async def test_a_withdrawal_of_what_never_was_is_refused_by_aaa_and_holds_up_nothing(town: Town) -> None:
    await withdraw(town, identifier(), [uuid4()])
    await until(lambda: "usage-refused" in town.a.process.alarms)
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"])
    await until(lambda: town.records)
    assert not town.aaa.expired


async def test_a_ukms_has_no_say_about_keys_of_another(town: Town) -> None:
    """It knows the batch's name and its keys' IDs, and waits until the AKMS has no record of it any more."""
    ids = await town.ukms["ukms-1"].ask("sae-1a", ["sae-11a", "sae-2a"], 3)
    await until(lambda: town.records)
    (batch,) = town.records
    while not await issued(town):
        await asyncio.sleep(0)
    town.a.ahead = 200_000.0
    await town.a.service.endings.purge()
    await withdraw(town, batch, ids, "ukms-11")
    await until(lambda: "usage-refused" in town.a.process.alarms)
    assert not town.aaa.expired
    await withdraw(town, batch, ids[:1])
    await until(lambda: town.aaa.expired == set(ids[:1]))


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_ukms_fills_no_more_than_its_own_share_with_withdrawals(town: Town, waiting: bool) -> None:
    """What waits for AAA has no more come beside it; what AAA has refused gives way, the oldest first."""
    liar = "ukms-11"
    for batch, key_ids in (("x", [uuid4()]), (identifier(), []), (identifier(), [uuid4()] * 1025)):
        with pytest.raises(ServiceError) as malformed:
            await withdraw(town, batch, key_ids, liar)
        assert malformed.value.code is ErrorCode.MALFORMED
    town.aaa.away = True
    line = {"kind": "expired", "grant": "", "ukms": liar, "size": 0, "key_ids": uuid4().bytes, "at": 0.0}
    many = [{**line, "batch": f"{number:032x}", "refused": not waiting} for number in range(MAXIMUM_UNKNOWN)]
    await town.a.store.real.write(lambda c: c.execute(USAGE.insert(), many))
    if waiting:
        with pytest.raises(ServiceError) as busy:
            await withdraw(town, identifier(), [uuid4()], liar)
        assert busy.value.code is ErrorCode.BUSY
    else:
        await withdraw(town, identifier(), [uuid4()], liar)
        oldest = select(func.min(USAGE.c.batch)).where(USAGE.c.ukms == liar, USAGE.c.refused)
        assert await town.a.store.real.read(lambda c: c.execute(oldest).scalar_one()) == f"{1:032x}"
    assert "withdrawals-waiting" in town.a.process.alarms
    assert await rows(town, "usage") == MAXIMUM_UNKNOWN
    await withdraw(town, identifier(), [uuid4()], "ukms-1")
    assert await rows(town, "usage") == MAXIMUM_UNKNOWN + 1
