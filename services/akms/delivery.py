"""Messages to UKMSs over the access links: pushes repeated while a UKMS is away, failures, settlements.

A push that was repeated is the same push to the UKMS: it knows the batch.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from keyhaul.link.interface import LinkCalls
from keyhaul.transport.messages.access import DeliveryFailed, Held, Push, Settle, States
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState, Query, QueryReply, Voided
from keyhaul.transport.operations import (
    DELIVERY_FAILED,
    DELIVERY_PUSH,
    DELIVERY_QUERY,
    DELIVERY_SETTLE,
    Operation,
    Reply,
    Request,
)
from services.akms.errands import TRANSIENT
from services.akms.pace import Pace
from services.akms.stores import UkmsStores
from services.akms.tasks import Tasks

_SETTLED_AT_ONCE = 256


class AccessLinks(Protocol):
    """The links to this AKMS's UKMSs."""

    def to(self, service_id: str) -> LinkCalls:
        """The link to a UKMS; KeyError where there is none."""
        ...

    def all(self) -> Sequence[LinkCalls]:
        """The links to all UKMSs."""
        ...


class Delivery:
    """What an AKMS sends to its UKMSs."""

    def __init__(
        self,
        links: AccessLinks,
        tasks: Tasks,
        pace: Pace,
        stores: UkmsStores,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._links = links
        self._tasks = tasks
        self._pace = pace
        self._stores = stores
        self._clock = clock
        self._returned: dict[str, asyncio.Event] = {}
        self._settled: defaultdict[str, list[str]] = defaultdict(list)

    def ukmss(self) -> list[str]:
        """Service ids of this AKMS's UKMSs."""
        return [link.neighbour.id for link in self._links.all()]

    def process(self, ukms: str) -> bytes:
        """What names a UKMS's process; empty while it is not known which one a message would reach."""
        return self._link(ukms).process

    async def call(self, ukms: str, operation: Operation[Request, Reply], request: Request) -> Reply:
        """Call a UKMS once.

        Raises:
            ServiceError: as the link; not-permitted for a UKMS that is not this AKMS's.
        """
        reply, _ = await self._link(ukms).call(operation, request, deadline=self._pace.call)
        if isinstance(reply, Voided):
            self._stores.told(ukms, reply.generation, reply.store)
        return reply

    async def states(self, ukms: str, names: Sequence[str]) -> list[BatchState]:
        """Ask a UKMS once what it has of batches; one state for each, in order.

        Raises:
            ServiceError: as `call`; busy where it does not answer for every batch.
        """
        return await states_of(self.call(ukms, DELIVERY_QUERY, Query(batches=list(names))), names)

    async def push(
        self, ukms: str, build: Callable[[], Push], bits: bytes, deadline: float, wanted: Callable[[], bool]
    ) -> Held:
        """Push keys until the UKMS has them durably.

        Args:
            ukms: service id.
            build: makes the message anew for each attempt, since remaining lifetimes travel.
            bits: the keys, one after the other.
            deadline: seconds from now.
            wanted: asked before each attempt; when false the push ends with conflict.

        Raises:
            ServiceError: deadline, or the UKMS's refusal.
        """
        link = self._link(ukms)
        end = self._clock() + deadline
        backoff = self._pace.backoff
        while wanted():
            left = end - self._clock()
            if left <= 0:
                raise ServiceError(ErrorCode.DEADLINE, "the UKMS did not take the keys in time")
            returned = self._returned.setdefault(ukms, asyncio.Event())
            try:
                held, _ = await link.call(DELIVERY_PUSH, build(), bits, deadline=min(left, self._pace.call))
            except ServiceError as error:
                if error.code not in TRANSIENT:
                    raise
                await _wait(returned, min(backoff, max(0.0, end - self._clock())))
                backoff = min(2 * backoff, self._pace.backoff_limit)
            else:
                self._stores.told(ukms, held.generation, held.store)
                return held
        raise ServiceError(ErrorCode.CONFLICT, "the keys are not to be delivered any more")

    async def fail(self, ukms: str, message: DeliveryFailed, deadline: float) -> None:
        """Tell a UKMS that a request will not be served, as long as somebody may wait for it."""
        end = self._clock() + deadline
        backoff = self._pace.backoff
        while (left := end - self._clock()) > 0:
            returned = self._returned.setdefault(ukms, asyncio.Event())
            try:
                await self._link(ukms).call(DELIVERY_FAILED, message, deadline=min(left, self._pace.call))
            except ServiceError as error:
                if error.code not in TRANSIENT:
                    return
                await _wait(returned, min(backoff, max(0.0, end - self._clock())))
                backoff = min(2 * backoff, self._pace.backoff_limit)
            else:
                return

    def returned(self, ukms: str) -> None:
        """A UKMS has a new session: what waits for it is tried at once."""
        event = self._returned.pop(ukms, None)
        if event is not None:
            event.set()

    def settle(self, ukms: str, *batches: str) -> None:
        """Tell a UKMS, soon and together with others, that batches need no reconciling.

        A settlement that is lost is made up for when the UKMS reports.
        """
        waiting = self._settled[ukms]
        waiting.extend(batches)
        if batches and len(waiting) == len(batches):
            self._tasks.start(self._send_settled(ukms), "settle")

    async def _send_settled(self, ukms: str) -> None:
        await asyncio.sleep(self._pace.settle)
        waiting = self._settled.pop(ukms, [])
        for start in range(0, len(waiting), _SETTLED_AT_ONCE):
            try:
                await self.call(ukms, DELIVERY_SETTLE, Settle(batches=waiting[start : start + _SETTLED_AT_ONCE]))
            except ServiceError:
                return

    def _link(self, ukms: str) -> LinkCalls:
        try:
            return self._links.to(ukms)
        except KeyError:
            raise ServiceError(ErrorCode.NOT_PERMITTED, "not a UKMS of this AKMS") from None


async def states_of(asked: Awaitable[States] | Awaitable[QueryReply], names: Sequence[str]) -> list[BatchState]:
    """What a UKMS, or another AKMS, answers when it is asked for batches: one state for each, in order.

    Raises:
        ServiceError: as the call; busy where there is not one state for each, so that nothing can be told.
    """
    states = (await asked).states
    if len(states) != len(names):
        raise ServiceError(ErrorCode.BUSY, "not every batch was answered for")
    return states


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
