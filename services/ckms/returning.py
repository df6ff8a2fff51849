"""Acknowledgements on their way back to the neighbours that batches came from: as many as wait in one message."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from keyhaul.link.interface import LinkCalls, SealedHandler
from keyhaul.transport.messages.base import ServiceError
from keyhaul.transport.messages.relay import Acknowledge
from keyhaul.transport.operations import RELAY_ACKNOWLEDGE, Operation, Reply, Request
from services.ckms.effects import SendAcknowledge

ACKNOWLEDGEMENTS_WAITING = 8_192
"""Per neighbour; the oldest of more are lost, and counted."""

ACKNOWLEDGEMENTS_PER_MESSAGE = 512
CALL_DEADLINE = 5.0
"""Seconds for one attempt at an acknowledgement or outcome."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
"""Seconds between attempts."""


class RelayLinks(Protocol):
    """The links of this service, as the carrier uses them (`keyhaul.link.links.Links`)."""

    def serve(self, operation: Operation[Request, Reply], handler: SealedHandler[Request, Reply]) -> None:
        """Serve a sealed operation on all links."""
        ...

    def to(self, service_id: str) -> LinkCalls:
        """The link to that neighbour; raises KeyError where there is none."""
        ...


class Returning:
    """What waits for each neighbour.

    Args:
        links: the links to the neighbours.
        begin: runs work in the background; False, and the work is not begun, where nothing more is taken on.
        clock: seconds, monotonic.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        links: RelayLinks,
        begin: Callable[[Coroutine[Any, Any, None]], bool],
        *,
        clock: Callable[[], float],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self.lost = 0
        """Acknowledgements that never reached their neighbour."""
        self.draining = False
        """Whether each is tried once only: the service is stopping."""
        self._links = links
        self._begin = begin
        self._clock = clock
        self._pause = pause
        self._waiting: dict[str, deque[SendAcknowledge]] = {}
        self._flushing: set[str] = set()

    def add(self, effect: SendAcknowledge) -> None:
        """Send an acknowledgement, as soon as those before it are sent."""
        waiting = self._waiting.setdefault(effect.neighbour, deque())
        if len(waiting) >= ACKNOWLEDGEMENTS_WAITING:
            waiting.popleft()
            self.lost += 1
        waiting.append(effect)
        if effect.neighbour not in self._flushing and self._begin(self._flush(effect.neighbour, waiting)):
            self._flushing.add(effect.neighbour)

    async def _flush(self, neighbour: str, waiting: deque[SendAcknowledge]) -> None:
        """Send what waits; what gathers while one message is under way goes together in the next."""
        link = self._links.to(neighbour)
        pause = FIRST_PAUSE
        try:
            while waiting:
                taken = [waiting.popleft() for _ in range(min(len(waiting), ACKNOWLEDGEMENTS_PER_MESSAGE))]
                try:
                    message = Acknowledge(outcomes=[one.outcome for one in taken])
                    await link.send(RELAY_ACKNOWLEDGE, message, deadline=CALL_DEADLINE)
                    pause = FIRST_PAUSE
                except ServiceError:
                    useful = math.inf if self.draining else self._clock() + pause
                    again = [one for one in taken if one.deadline > useful]
                    self.lost += len(taken) - len(again)
                    waiting.extendleft(reversed(again))
                    await self._pause(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            self._flushing.discard(neighbour)
