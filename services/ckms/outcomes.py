"""Outcomes of submitted batches on their way to this node's AKMS: each offered for a while, then lost and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from keyhaul.transport.interface import Calls
from keyhaul.transport.messages.base import ServiceError
from keyhaul.transport.messages.relay import Outcome
from keyhaul.transport.operations import CARRIER_OUTCOME
from services.ckms.effects import FAILURES, TellOutcome
from services.ckms.returning import CALL_DEADLINE, FIRST_PAUSE, LONGEST_PAUSE

OUTCOMES = 4_096
"""Outcomes that wait for this node's AKMS at a time; more are lost, and counted."""

OUTCOME_PATIENCE = 30.0
"""Seconds for which an outcome is offered to an AKMS that cannot be reached."""


class Outcomes:
    """What waits for the AKMS.

    Args:
        akms: calls to it.
        begin: runs work in the background; None, and the work is not begun, where nothing more is taken on.
        clock: seconds, monotonic.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        akms: Calls,
        begin: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None] | None],
        *,
        clock: Callable[[], float],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self.lost = 0
        """Outcomes that never reached the AKMS."""
        self.draining = False
        """Whether each is tried once only: the service is stopping."""
        self._akms = akms
        self._begin = begin
        self._clock = clock
        self._pause = pause
        self._waiting = 0

    def add(self, effect: TellOutcome) -> None:
        """Tell the AKMS."""
        if self._waiting < OUTCOMES and self._begin(self._tell(effect), "carrier-outcome") is not None:
            self._waiting += 1
        else:
            self.lost += 1

    async def _tell(self, effect: TellOutcome) -> None:
        given_up = self._clock() + OUTCOME_PATIENCE
        pause = FIRST_PAUSE
        try:
            while True:
                try:
                    message = Outcome(batch=effect.batch, failure=effect.failure)
                    await self._akms.call(CARRIER_OUTCOME, message, deadline=CALL_DEADLINE)
                    return
                except ServiceError as error:
                    if self.draining or error.code not in FAILURES or self._clock() + pause >= given_up:
                        self.lost += 1
                        return
                await self._pause(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            self._waiting -= 1
