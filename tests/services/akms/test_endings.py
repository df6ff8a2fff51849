"""The end of records whose push nobody answered: nothing is booked but what the master's UKMS says."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from keyhaul.keys.states import KeyState
from keyhaul.randomness import identifier
from keyhaul.transport.messages.access import Push
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import Withdraw
from keyhaul.transport.operations import ACCESS_WITHDRAW, DELIVERY_PUSH, DELIVERY_QUERY, DELIVERY_VOID
from services.akms.tables import BATCHES
from tests.services.akms.town import Town, Ukms, until

OVER = 86_000.0
"""Seconds after which the master's copies have ended, and the slaves' have not."""

PURGED = 87_100.0
FORGOTTEN = 90_000.0


class Silent:
    """A master's UKMS that answers no push, whether or not it takes the keys."""

    def __init__(self, ukms: Ukms, takes: bool = True) -> None:
        self.takes = takes
        self.pushed: dict[str, tuple[Push, bytes]] = {}
        self.states: Any = None
        self._handle: Any = ukms.handle
        ukms.handle = self._answer  # type: ignore[method-assign]

    async def _answer(self, operation: Any, request: Any, secret: bytes) -> Any:
        if operation is DELIVERY_PUSH and request.for_master:
            if request.batch not in self.pushed and self.takes:
                await self._handle(operation, request, secret)
            self.pushed.setdefault(request.batch, (request, secret))
            raise ServiceError(ErrorCode.UNREACHABLE)
        answer = await self._handle(operation, request, secret)
        if operation is DELIVERY_QUERY and self.states is not None:
            answer.states = self.states
        return answer

    async def late(self, batch: str) -> Any:
        """A push that was on its way comes after all."""
        return await self._handle(DELIVERY_PUSH, *self.pushed[batch])


async def states(town: Town) -> dict[str, KeyState]:
    """The asker's records."""
    rows = await town.a.store.real.read(lambda c: c.execute(select(BATCHES.c.batch, BATCHES.c.state)).all())
    return {batch: KeyState(state) for batch, state in rows}


async def released(town: Town, silent: Silent, ukms: str = "ukms-1", slave: str = "sae-2a") -> tuple[str, list[UUID]]:
    """A batch of three keys, of which no answer reaches the AKMS."""
    before = set(town.records)
    request = identifier()
    town.ukms[ukms].requests[request] = asyncio.get_running_loop().create_future()
    await town.ukms[ukms].send(request, f"sae-{ukms[5:]}a", [slave], 3, 256)
    await until(lambda: set(town.records) - before)
    (batch,) = set(town.records) - before
    await until(lambda: batch in silent.pushed)
    return batch, sorted(town.records[batch][1])


async def test_what_an_sae_took_is_not_booked_as_expired(town: Town) -> None:
    """The UKMS has the keys, and reports itself which of them nobody fetched."""
    batch, ids = await released(town, Silent(town.ukms["ukms-1"]))
    town.ukms["ukms-1"].issue("sae-1a", ids[:1])
    town.a.ahead = OVER
    await town.a.service.endings.purge()
    assert await states(town) == {batch: KeyState.ISSUED}
    town.a.ahead = PURGED
    await town.a.service.endings.purge()
    assert await states(town) == {}
    assert await town.a.service.accounting.flush()
    assert not town.aaa.expired
    await town.ukms["ukms-1"].up(ACCESS_WITHDRAW, Withdraw(batch=batch, key_ids=ids[1:]))
    await until(lambda: town.aaa.expired == set(ids[1:]))
    assert not town.aaa.void


async def test_what_never_arrived_is_booked_withdrawn_and_never_taken(town: Town) -> None:
    silent = Silent(town.ukms["ukms-1"], takes=False)
    batch, ids = await released(town, silent)
    town.a.ahead = OVER
    await town.a.service.endings.purge()
    await until(lambda: town.aaa.expired == set(ids))
    assert await states(town) == {batch: KeyState.EXPIRED}
    with pytest.raises(ServiceError) as refused:
        await silent.late(batch)
    assert refused.value.code is ErrorCode.CONFLICT
    await until(lambda: not town.ukms["ukms-2"].usable("slave", "sae-2a"))
    assert not town.aaa.void, "its count stands"


async def test_while_it_cannot_be_asked_nothing_is_booked_and_at_last_it_is_told(town: Town) -> None:
    batch, ids = await released(town, Silent(town.ukms["ukms-1"]))
    town.ukms["ukms-1"].issue("sae-1a", ids)
    town.ukms["ukms-1"].away = True
    for town.a.ahead in (OVER, PURGED):
        await town.a.service.endings.purge()
        assert await states(town) == {batch: KeyState.RELEASED}
    assert "usage-undecided" not in town.a.process.alarms
    town.a.ahead = FORGOTTEN
    await town.a.service.endings.purge()
    assert await states(town) == {}
    assert town.a.process.alarms.count("usage-undecided") == 1
    assert await town.a.service.accounting.flush()
    assert not town.aaa.expired


async def test_a_ukms_that_may_have_forgotten_decides_nothing_by_not_knowing(town: Town) -> None:
    """The AKMS was stopped for long: that the UKMS does not know the batch any more does not tell."""
    batch, ids = await released(town, Silent(town.ukms["ukms-1"]))
    town.ukms["ukms-1"].issue("sae-1a", ids)
    town.ukms["ukms-1"].copies.clear()
    town.a.ahead = FORGOTTEN
    await town.a.service.endings.purge()
    assert await states(town) == {}
    assert await town.a.service.accounting.flush()
    assert not town.aaa.expired
    assert batch not in town.ukms["ukms-1"].void


@pytest.mark.parametrize("answer", [[], ["unknown", "unknown"]])
async def test_an_answer_that_is_not_whole_decides_nothing(town: Town, answer: list[str]) -> None:
    silent = Silent(town.ukms["ukms-1"])
    batch, _ = await released(town, silent)
    silent.states = answer
    town.a.ahead = OVER
    await town.a.service.endings.purge()
    assert await states(town) == {batch: KeyState.RELEASED}
    silent.states = None
    await town.a.service.endings.purge()
    assert await states(town) == {batch: KeyState.ISSUED}


async def test_a_store_that_has_not_reported_decides_nothing(town: Town) -> None:
    """A UKMS of the release before, with a new store, answers before it reports."""
    batch, ids = await released(town, Silent(town.ukms["ukms-1"]))
    town.ukms["ukms-1"].issue("sae-1a", ids)
    town.ukms["ukms-1"].new_store()
    town.a.ahead = OVER
    await town.a.service.endings.purge()
    assert await states(town) == {batch: KeyState.RELEASED}
    assert DELIVERY_VOID.name in town.log
    assert await town.a.service.accounting.flush()
    assert not town.aaa.expired


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_was_lost_no_key_that_was_taken_is_expired_and_none_that_never_came_is_not(
    town: Town, seed: int
) -> None:
    """Many batches of two UKMSs, taken or lost, partly issued; UKMSs away and back; the AKMS starts again between."""
    chance = Random(seed)
    silent = {ukms: Silent(town.ukms[ukms]) for ukms in ("ukms-1", "ukms-11")}
    issued: set[UUID] = set()
    never: set[UUID] = set()
    for _ in range(8):
        ukms = chance.choice(sorted(silent))
        silent[ukms].takes = chance.random() < 0.5
        _, ids = await released(town, silent[ukms], ukms, chance.choice(["sae-2a", "sae-22a"]))
        if silent[ukms].takes:
            taken = chance.sample(ids, chance.randrange(4))
            town.ukms[ukms].issue(f"sae-{ukms[5:]}a", taken)
            issued |= set(taken)
        else:
            never |= set(ids)
    town.a.ahead = OVER
    for _ in range(3):
        for ukms in silent:
            town.ukms[ukms].away = chance.random() < 0.5
        await town.a.service.endings.purge()
        if chance.random() < 0.3:
            for ukms in silent:
                town.ukms[ukms].away = False
            await town.a.restart()
    for ukms in silent:
        town.ukms[ukms].away = False
    await town.a.service.endings.purge()
    await until(lambda: town.aaa.expired == never)
    assert not issued & town.aaa.expired
    town.a.ahead = PURGED
    await town.a.service.endings.purge()
    assert await states(town) == {}
    assert "usage-undecided" not in town.a.process.alarms
