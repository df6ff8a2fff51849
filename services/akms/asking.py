"""The asker's side of a request: from a UKMS's message to released keys, or a failure with a closed reason.

`access.request` is answered at once; a task finds the grant, has the maker asked (`requesting`) or makes local keys,
and waits. What fails is told to the UKMS with nothing but a reason.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

from keyhaul.identity.names import ServiceName
from keyhaul.pressure.gate import FairGate
from keyhaul.transport.messages.access import DeliveryFailed, Purpose, RequestKeys
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import FailureReason
from services.akms.allowance import HeldGrant
from services.akms.credits import Credits, Work
from services.akms.delivery import Delivery
from services.akms.grants import Grants
from services.akms.local import LocalKeys
from services.akms.metrics import Metrics
from services.akms.permission import Refused, check_amount, check_names, maker_of
from services.akms.rates import BeyondRate, Rates, flow_of
from services.akms.requesting import LONGEST_RETRY_MS, REASONS, Requesting
from services.akms.tasks import Tasks

IDENTIFIER = re.compile(r"[0-9a-f]{32}")
MAXIMUM_REMAINING = 60.0
"""Seconds that a request may take at most, whatever it says."""

MAXIMUM_AT_ONCE = 64
"""Requests to one maker at a time, whatever the credits: what waits here is served in fair order, what is under way
is not."""

_REMEMBERED_REQUESTS = 16_384


class Asking:
    """Requests of this AKMS's UKMSs."""

    def __init__(
        self,
        own: ServiceName,
        grants: Grants,
        local: LocalKeys,
        requesting: Requesting,
        delivery: Delivery,
        credit: Credits,
        rates: Rates,
        at_once: int,
        tasks: Tasks,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own
        self._grants = grants
        self._local = local
        self._requesting = requesting
        self._delivery = delivery
        self._credits = credit
        self._rates = rates
        self._at_once = min(at_once, MAXIMUM_AT_ONCE)
        self._gates: dict[str, FairGate] = {}
        self._tasks = tasks
        self._metrics = metrics
        self._clock = clock
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    @property
    def under_way(self) -> dict[str, int]:
        """Requests to makers that have their turn, and that wait for it; for operators."""
        gates = self._gates.values()
        return {"asking": sum(gate.held for gate in gates), "queued": sum(gate.waiting for gate in gates)}

    def remember(self, ukms: str, request: str) -> None:
        """A request that was answered before a restart: repeated, it is not made again."""
        self._seen[ukms, request] = None
        while len(self._seen) > _REMEMBERED_REQUESTS:
            self._seen.popitem(last=False)

    async def request(self, neighbour: ServiceName, message: RequestKeys) -> Accepted:
        """access.request: take on a request of a UKMS for the master that it verified."""
        if not IDENTIFIER.fullmatch(message.request) or message.remaining_ms <= 0:
            raise ServiceError(ErrorCode.MALFORMED, "a request has an identifier and a remaining time")
        if (neighbour.id, message.request) not in self._seen:
            credit = ExitStack()
            credit.enter_context(self._credits.take(neighbour.id, Work.SERVING, message.master))
            self.remember(neighbour.id, message.request)
            end = self._clock() + min(message.remaining_ms, round(1000 * MAXIMUM_REMAINING)) / 1000
            self._tasks.start(self._serve(neighbour.id, message, end, credit), "request")
        return Accepted()

    async def _serve(self, ukms: str, message: RequestKeys, end: float, credit: ExitStack) -> None:
        with credit:
            try:
                await self._answer(ukms, message, end)
            except ServiceError as error:
                reason = REASONS.get(error.code, FailureReason.NO_KEYS)
                self._metrics.failures.labels(reason).inc()
                retry_after_ms = min(max(0, error.retry_after_ms), LONGEST_RETRY_MS)
                failure = DeliveryFailed(
                    request=message.request,
                    reason=reason,
                    retry_after_ms=retry_after_ms,
                    keys_per_second=error.rate if isinstance(error, BeyondRate) else 0.0,
                )
                await self._delivery.fail(ukms, failure, max(1.0, end - self._clock()))

    async def _answer(self, ukms: str, message: RequestKeys, end: float) -> None:
        """Serve a request; a grant of some age that its maker refuses (by its own count, say) is replaced once."""
        held, maker = await self._permitted(ukms, message)
        try:
            await self._under(held, maker, ukms, message, end)
        except ServiceError as error:
            refused_by_maker = error.code is ErrorCode.NOT_PERMITTED and maker != self._own.id
            if not (refused_by_maker and self._grants.distrust(held) and self._clock() < end):
                raise
        else:
            return
        held, maker = await self._permitted(ukms, message)
        await self._under(held, maker, ukms, message, end)

    async def _permitted(self, ukms: str, message: RequestKeys) -> tuple[HeldGrant, str]:
        """The grant that covers a request, and the AKMS that makes keys under it."""
        try:
            check_names(message.master, message.slaves)
            held = await self._grants.obtain(ukms, message.master, message.slaves, message.number)
            check_amount(held.grant, message.number, message.size)
            chosen = [site for site in held.grant.slaves if site.sae in message.slaves]
            return held, maker_of(chosen, self._own.id)
        except Refused:
            raise ServiceError(ErrorCode.NOT_PERMITTED, "not permitted") from None

    async def _under(self, held: HeldGrant, maker: str, ukms: str, message: RequestKeys, end: float) -> None:
        """Serve a request within its contract's rate and allowance, when its contract's turn has come."""
        self._rates.take(held.grant, message.number, self._clock())
        spent = False
        try:
            self._grants.reserve(held, message.number)
            try:
                async with self._turn(maker, held, message, end):
                    if maker == self._own.id:
                        await self._local.make(ukms, message, held.grant, end)
                    else:
                        await self._requesting.ask(ukms, message, held, maker, end)
                spent = True
            finally:
                self._grants.free(held, message.number, spent=spent)
        finally:
            if not spent:
                self._rates.give_back(held.grant, message.number)

    @asynccontextmanager
    async def _turn(self, maker: str, held: HeldGrant, message: RequestKeys, end: float) -> AsyncIterator[None]:
        """Wait for a place among the requests to a maker: contracts in fair order, prefetch after demand."""
        gate = self._gates.get(maker)
        if gate is None:
            gate = self._gates[maker] = FairGate(self._at_once)
        async with AsyncExitStack() as place:
            turn = gate.enter(
                flow_of(held.grant),
                cost=message.number * message.size / 8,
                weight=held.grant.weight,
                urgent=message.purpose is Purpose.DEMAND,
            )
            try:
                async with asyncio.timeout(max(0.0, end - self._clock())):
                    await place.enter_async_context(turn)
            except TimeoutError:
                raise ServiceError(ErrorCode.DEADLINE, "no turn in time") from None
            yield
