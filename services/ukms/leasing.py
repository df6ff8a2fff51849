"""Sets keys aside for busy buffers, ahead of need, and has the store take back what is not used.

The asyncio driver around `leases.py`: its transactions run in the background, one at a time for each buffer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from keyhaul.identity.names import SaeId
from keyhaul.store.interface import StoreError
from services.ukms.buffer import Buffer
from services.ukms.buffers import Buffers
from services.ukms.copies import MissingCopies
from services.ukms.leases import Leased, Stored
from services.ukms.vault import Vault

log = structlog.get_logger(__name__)


class Leasing:
    """The leases of all buffers of a UKMS."""

    def __init__(
        self,
        vault: Vault,
        buffers: Buffers,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], bool],
        at_hand: Callable[[Buffer], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            vault: the durable keys.
            buffers: whose leases these are.
            spawn: runs work in the background; False, and the work is not begun, where nothing more is taken on.
            at_hand: called when keys of a buffer have become available to those who wait.
            clock: seconds of this node's clock.
        """
        self._vault = vault
        self._buffers = buffers
        self._spawn = spawn
        self._at_hand = at_hand
        self._clock = clock
        self._landing: set[asyncio.Future[None]] = set()

    def ahead(self, buffer: Buffer) -> None:
        """Set aside what the demand asks for, in the background."""
        if chosen := buffer.set_aside(self._clock()):
            landing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._landing.add(landing)
            if not self._spawn(self._lease(buffer, chosen, landing)):
                buffer.put_back(chosen)
                self._land(buffer, [], landing)

    def unused(self, buffer: Buffer, *, all_of_it: bool = False) -> None:
        """Have the store take back, in the background, what has expired or nobody asks for (or all)."""
        leased = buffer.lease.surplus(self._clock(), all_of_it=all_of_it)
        if leased and not self._spawn(self._take_back(buffer, leased)):
            buffer.lease.put_back(leased)

    async def give_back(self) -> None:
        """At a stop: have all that is set aside at hand again, durably, so that the next process can issue it."""
        while self._landing:
            await asyncio.wait(tuple(self._landing))
        now = self._clock()
        async with asyncio.TaskGroup() as group:
            for buffer in self._buffers:
                if leased := buffer.lease.surplus(now, all_of_it=True):
                    group.create_task(self._take_back(buffer, leased))

    async def withhold(self, chosen: Callable[[Stored], bool]) -> list[tuple[SaeId, list[Leased]]]:
        """Take out, for good, what is set aside of the chosen keys, by master; the last that can be had of them.

        The buffers' indexes hold none of them any more. Nothing else runs between the end of this and the caller's
        next step.
        """
        while self._landing and any(chosen(stored) for buffer in self._buffers for stored in buffer.lease.coming):
            await asyncio.wait(tuple(self._landing))
        found = [(buffer.key.master, buffer.lease.withhold(chosen)) for buffer in self._buffers]
        return [(master, leased) for master, leased in found if leased]

    async def _lease(self, buffer: Buffer, chosen: tuple[Stored, ...], landing: asyncio.Future[None]) -> None:
        leased: list[Leased] = []
        try:
            leased = await self._vault.set_aside(buffer.key.master, chosen)
        except MissingCopies as lost:
            buffer.put_back(stored for stored in chosen if stored.key_id not in lost.missing)
        except StoreError as error:
            log.error("keys were not set aside, and count as burned: the store failed", error=str(error))
        finally:
            self._land(buffer, leased, landing)
        await self._at_hand(buffer)

    def _land(self, buffer: Buffer, leased: list[Leased], landing: asyncio.Future[None]) -> None:
        buffer.lease.land(leased)
        self._landing.discard(landing)
        landing.set_result(None)

    async def _take_back(self, buffer: Buffer, leased: list[Leased]) -> None:
        try:
            await self._vault.take_back(buffer.key.master, leased)
        except StoreError as error:
            log.error("keys set aside were not taken back, and count as burned: the store failed", error=str(error))
            return
        buffer.put_back(one.stored for one in leased)
        await self._at_hand(buffer)
