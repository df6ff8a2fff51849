"""The asyncio driver of `fair`: wait for a turn, hold a place, leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from keyhaul.pressure.fair import FairQueue, Flow, Turn


class FairGate:
    """A number of places that tasks of several flows hold in turn."""

    def __init__(self, limit: int) -> None:
        """Let `limit` in at a time."""
        self._queue = FairQueue(limit)
        self._calls: dict[Turn, asyncio.Future[None]] = {}

    @property
    def waiting(self) -> int:
        """Tasks whose turn has not come."""
        return self._queue.waiting

    @property
    def held(self) -> int:
        """Places that are taken."""
        return self._queue.held

    @asynccontextmanager
    async def enter(
        self, flow: Flow, *, cost: float = 1.0, weight: float = 1.0, urgent: bool = True
    ) -> AsyncIterator[None]:
        """Wait for this flow's turn and hold a place. Who cannot wait for long sets a timeout around it."""
        turn = self._queue.ask(flow, cost=cost, weight=weight, urgent=urgent)
        call = self._calls[turn] = asyncio.get_running_loop().create_future()
        try:
            self._admit()
            await call
            yield
        finally:
            self._calls.pop(turn, None)
            self._queue.leave(turn)
            self._admit()

    def _admit(self) -> None:
        for turn in self._queue.admit():
            call = self._calls.get(turn)
            if call is not None and not call.done():
                call.set_result(None)
