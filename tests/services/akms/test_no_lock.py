"""Two AKMSs that ask each other as fast as they can, with the smallest credits and with lost messages, never lock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from keyhaul.pressure.gate import FairGate
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.akms.credits import Credits, Work
from services.akms.service import Terms
from tests.services.akms.town import COLD, Town

DIRECTIONS = (("ukms-1", "sae-1a", "sae-2a"), ("ukms-2", "sae-2a", "sae-1a"))
ASKERS = 6
"""Requests of each direction that are always wanted: far more than there are credits."""


class Wire:
    """Loses a share of all messages, or of their answers, at random; at most so many of one operation in a row."""

    def __init__(self, town: Town, seed: int, share: float) -> None:
        self._random = random.Random(seed)
        self._share = share
        self._carry = town.travel
        self.lost: set[str] = set()

    async def __call__(self, operation: Any, work: Any, deadline: float) -> Any:
        fate = self._random.random()
        if fate < self._share / 2:
            work.close()
            self.lost.add(operation.name)
            raise ServiceError(ErrorCode.UNREACHABLE, "lost")
        reply = await self._carry(operation, work, deadline)
        if fate < self._share:
            self.lost.add(operation.name)
            raise ServiceError(ErrorCode.UNREACHABLE, "its answer was lost")
        return reply


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    town = Town(tmp_path, Terms(requests_per_peer=1, pool=COLD))
    await town.open()
    yield town
    await town.close()


async def saturate(town: Town, keys: int, seconds: float) -> list[int]:
    """Ask in both directions at once until each has so many keys, or the time is over; return how many each has."""
    done = [0, 0]

    async def ask(direction: int) -> None:
        ukms, master, slave = DIRECTIONS[direction]
        while min(done) < keys and not over.is_set():
            try:
                await town.ukms[ukms].ask(master, [slave], seconds=2.0)
            except ServiceError:
                await asyncio.sleep(0.002)
            else:
                done[direction] += 1

    over = asyncio.Event()
    tasks = [asyncio.create_task(ask(direction)) for direction in (0, 1) for _ in range(ASKERS)]
    await asyncio.wait(tasks, timeout=seconds)
    over.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return done


async def test_both_directions_go_on_with_one_credit_of_each_kind(town: Town) -> None:
    assert min(await saturate(town, 15, 60.0)) >= 15


@pytest.mark.parametrize("seed", range(3))
async def test_no_message_that_is_lost_locks_them(town: Town, seed: int) -> None:
    town.travel = wire = Wire(town, seed, 0.1)  # type: ignore[method-assign]
    assert min(await saturate(town, 10, 60.0)) >= 10
    assert {"peer.request", "peer.transfer"} & wire.lost
    town.travel = wire._carry  # type: ignore[method-assign]
    assert min(await saturate(town, 3, 60.0)) >= 3
    assert town.a.process.failures == town.b.process.failures == []


class OneAccount(Credits):
    """What must not be: one account for whatever is under way with another AKMS."""

    @contextmanager
    def take(self, peer: str, work: Work, flow: str | None = None) -> Iterator[None]:
        with super().take(peer, Work.DELIVERY if peer.startswith("akms") else work, flow):
            yield


class OneAccountGate(FairGate):
    """And the turn of a request to another AKMS is one of the same account."""

    def __init__(self, account: OneAccount, peer: str) -> None:
        super().__init__(1)
        self._account = account
        self._peer = peer

    @asynccontextmanager
    async def enter(
        self, flow: Hashable, *, cost: float = 1.0, weight: float = 1.0, urgent: bool = True
    ) -> AsyncIterator[None]:
        async with super().enter(flow, cost=cost, weight=weight, urgent=urgent):
            with ExitStack() as credit:
                while True:
                    try:
                        credit.enter_context(self._account.take(self._peer, Work.DELIVERY))
                    except ServiceError:
                        await asyncio.sleep(0.002)
                    else:
                        break
                yield


async def test_with_one_account_for_all_kinds_they_lock(town: Town) -> None:
    """What the separate credits are for: each holds the credit that the other's answer needs."""
    for node in (town.a, town.b):
        account = OneAccount(1)
        for part in (node.service.serving, node.service.asking, node.service.requesting, node.service.making):
            part._credits = account
        other = "akms-2" if node is town.a else "akms-1"
        node.service.asking._gates = {other: OneAccountGate(account, other)}
    assert min(await saturate(town, 15, 6.0)) <= 1
