"""Tells the AKMS of this node which CN bits are exposed: what the leading controller says, again and again.

Nothing of it is kept here. The AKMS knows what it has acted upon, and whatever store or process of its own, of this
CKMS or of a controller is another one by now, what holds is told until there is nothing to tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from keyhaul.randomness import Source, fraction
from keyhaul.transport.interface import Calls
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.path import AskExposures, Exposures, PathRefusal
from keyhaul.transport.messages.relay import MOST_EXPOSURES, Exposed, Exposure
from keyhaul.transport.operations import CARRIER_EXPOSED, PATH_EXPOSURES

LOOK = 5.0
"""Seconds between questions, on the average; drawn at random, so that nodes do not ask in step."""

ASK_DEADLINE = 2.0
"""Seconds for one controller to answer."""

TELL_DEADLINE = 30.0
"""Seconds for the AKMS to act: it may have many batches on record."""

_AWAY = frozenset({ErrorCode.UNREACHABLE, ErrorCode.DEADLINE, ErrorCode.BUSY})


class Alarms(Protocol):
    """Where alarms go (`keyhaul.runtime.interface.Runtime`)."""

    def alarm(self, name: str, **facts: Any) -> None:
        """Count and log an alarm."""
        ...


class Exposing:
    """Asks and tells; `run` must be running.

    Args:
        controllers: calls to each.
        akms: calls to the AKMS of this node.
        alarms: where they go.
        source: draws pauses.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        controllers: Sequence[Calls],
        akms: Calls,
        alarms: Alarms,
        source: Source,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._controllers = list(controllers)
        self._akms = akms
        self._alarms = alarms
        self._source = source
        self._pause = pause
        self._mark = ""
        self._exposures: Sequence[Exposure] = ()
        self._refused = False

    async def run(self) -> None:
        """Ask and tell, until cancelled."""
        while True:
            await self._ask()
            await self._tell()
            await self._pause(LOOK * (0.5 + fraction(self._source)))

    async def _ask(self) -> None:
        """Learn what the leader says; where it cannot be asked, what it said last holds."""
        for controller in tuple(self._controllers):
            with suppress(ServiceError):
                reply = await controller.call(PATH_EXPOSURES, AskExposures(known=self._mark), deadline=ASK_DEADLINE)
                if reply.refusal is not PathRefusal.NOT_LEADER:
                    self._controllers.remove(controller)
                    self._controllers.insert(0, controller)
                    self._learn(reply)
                    return

    def _learn(self, reply: Exposures) -> None:
        if reply.exposures is not None:
            self._mark, self._exposures = reply.mark, reply.exposures

    async def _tell(self) -> None:
        """Tell all of it; what the AKMS has not taken is told again."""
        try:
            for start in range(0, len(self._exposures), MOST_EXPOSURES):
                message = Exposed(exposures=list(self._exposures[start : start + MOST_EXPOSURES]))
                await self._akms.call(CARRIER_EXPOSED, message, deadline=TELL_DEADLINE)
        except ServiceError as error:
            if error.code not in _AWAY and not self._refused:
                self._refused = True
                self._alarms.alarm("exposures-not-taken", code=error.code, exposures=len(self._exposures))
        else:
            self._refused = False
