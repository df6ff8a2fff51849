"""The asker's side of a request: from a UKMS's message to released keys, or a failure with a closed reason.

`access.request` is answered at once; a task finds the grant, asks the maker (or makes local keys), and waits. The
maker's `peer.transfer` is answered only after the release is committed; a repeated one joins it, or is answered from
the record. What fails is told to the UKMS with nothing but a reason.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

from keyhaul.identity.names import ServiceName
from keyhaul.pressure.gate import FairGate
from keyhaul.randomness import Source, identifier
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls, Peer
from keyhaul.transport.messages.access import DeliveryFailed, Purpose, RequestKeys
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState, FailureReason, KeyRequest, Released, RequestFailed, Transfer
from keyhaul.transport.operations import PEER_REQUEST
from services.akms import batches
from services.akms.credits import Credits, Work
from services.akms.delivery import Delivery
from services.akms.ephemeral import EphemeralKeys
from services.akms.grants import Grants, HeldGrant
from services.akms.local import LocalKeys
from services.akms.metrics import Metrics
from services.akms.permission import Refused, check_amount, check_names, maker_of
from services.akms.rates import BeyondRate, Rates, flow_of
from services.akms.receiving import OpenRequest, Receiving
from services.akms.tasks import Tasks

IDENTIFIER = re.compile(r"[0-9a-f]{32}")
MAXIMUM_REMAINING = 60.0
"""Seconds that a request may take at most, whatever it says."""

MAXIMUM_AT_ONCE = 64
"""Requests to one maker at a time, whatever the credits: what waits here is served in fair order, what is under way
is not."""

LONGEST_RETRY_MS = 60_000
"""A longer wait than this is not passed on, whoever asks for it."""

_REMEMBERED_REQUESTS = 16_384

_LIFE = 12
"""Digits by which all requests of one process to makers begin."""

REASONS: dict[ErrorCode, FailureReason] = {
    ErrorCode.NOT_PERMITTED: FailureReason.NOT_PERMITTED,
    ErrorCode.BUSY: FailureReason.BUSY,
    ErrorCode.UNREACHABLE: FailureReason.UNREACHABLE,
    ErrorCode.DEADLINE: FailureReason.DEADLINE,
}
"""What a UKMS hears of an error; everything else is `no-keys`."""


class Asking:
    """Requests of this AKMS's UKMSs."""

    def __init__(
        self,
        own: ServiceName,
        ckms: str,
        store: Store,
        peers: Mapping[str, Calls],
        grants: Grants,
        keys: EphemeralKeys,
        local: LocalKeys,
        receiving: Receiving,
        delivery: Delivery,
        credit: Credits,
        rates: Rates,
        at_once: int,
        tasks: Tasks,
        metrics: Metrics,
        source: Source,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own
        self._ckms = ckms
        self._store = store
        self._peers = peers
        self._grants = grants
        self._keys = keys
        self._local = local
        self._receiving = receiving
        self._delivery = delivery
        self._credits = credit
        self._rates = rates
        self._at_once = min(at_once, MAXIMUM_AT_ONCE)
        self._gates: dict[str, FairGate] = {}
        self._tasks = tasks
        self._metrics = metrics
        self._source = source
        self._clock = clock
        self._open: dict[str, OpenRequest] = {}
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._life = identifier(source)[:_LIFE]
        self._refused: set[str] = set()

    @property
    def under_way(self) -> dict[str, int]:
        """Requests to makers that have their turn, and that wait for it; for operators."""
        gates = self._gates.values()
        return {"asking": sum(gate.held for gate in gates), "queued": sum(gate.waiting for gate in gates)}

    @property
    def open_requests(self) -> int:
        """Requests to makers that are not closed."""
        return len(self._open)

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

    async def transfer(self, peer: Peer, message: Transfer) -> Released:
        """peer.transfer: keys from the maker; answered after the release is durable.

        Raises:
            ServiceError: not-found (no such request, and the batch is not released: the maker is to void it),
                conflict (it cannot be released), exhausted (the CN bits are not here: others are needed),
                authentication (something was changed).
        """
        opened = self._open.get(message.request)
        if opened is None or opened.maker != peer.name.id or opened.batch not in ("", message.batch):
            known = await self._store.read(lambda connection: batches.find(connection, message.batch))
            if known is not None and known.peer == peer.name.id and known.for_peers is BatchState.RELEASED:
                return Released(batch=message.batch)
            raise ServiceError(ErrorCode.NOT_FOUND, "no such request")
        with self._credits.take(peer.name.id, Work.DELIVERY):
            if opened.taken is None:
                if message.batch in self._refused:
                    raise ServiceError(ErrorCode.CONFLICT, "the batch is being voided")
                opened.batch = message.batch
                opened.taken = asyncio.get_running_loop().create_future()
                self._tasks.start(self._take(opened, opened.taken, peer, message), "transfer")
            await asyncio.shield(opened.taken)
        return Released(batch=message.batch)

    async def failed(self, peer: Peer, message: RequestFailed) -> Accepted:
        """peer.failed: the maker cannot serve a request."""
        opened = self._open.get(message.request)
        if opened is not None and opened.maker == peer.name.id and opened.taken is None and not opened.outcome.done():
            opened.outcome.set_exception(_error_of(message))
        return Accepted()

    def asked(self, request: str) -> bool:
        """Whether this process sent a request to a maker: what came of it is known here for certain."""
        return request.startswith(self._life)

    def taking(self, batch: str) -> bool:
        """Whether a transfer of this batch is being taken."""
        return any(opened.batch == batch and opened.taken is not None for opened in self._open.values())

    @asynccontextmanager
    async def refusing(self, batch: str) -> AsyncIterator[None]:
        """Take no transfer of this batch meanwhile; one that is being taken is released or refused first."""
        if batch in self._refused:
            raise ServiceError(ErrorCode.BUSY, "the batch is being voided")
        self._refused.add(batch)
        try:
            for opened in self._open.values():
                if opened.batch == batch and opened.taken is not None:
                    await asyncio.wait([opened.taken])
                    break
            yield
        finally:
            self._refused.discard(batch)

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
                        await self._ask(ukms, message, held, maker, end)
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

    async def _ask(self, ukms: str, message: RequestKeys, held: HeldGrant, maker: str, end: float) -> None:
        """Ask the maker and wait for its transfer or failure."""
        calls = self._peers.get(maker)
        if calls is None:
            raise ServiceError(ErrorCode.UNREACHABLE, "no way to this AKMS is configured")
        key = self._keys.borrow(maker, self._clock())
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = self._life + identifier(self._source)[_LIFE:]
        opened = OpenRequest(request, ukms, message, held, maker, key, outcome, end)
        self._open[opened.id] = opened
        try:
            await self._await_outcome(calls, opened)
        except ServiceError:
            if opened.taken is not None:
                await asyncio.wait([opened.taken])
            if not outcome.done() or outcome.exception() is not None:
                raise
        finally:
            del self._open[opened.id]
            self._keys.give_back(key)
            outcome.cancel()

    async def _await_outcome(self, calls: Calls, opened: OpenRequest) -> None:
        try:
            async with asyncio.timeout(max(0.0, opened.end - self._clock())):
                await calls.call(PEER_REQUEST, self._message(opened), deadline=opened.end - self._clock())
                with calls.expecting():
                    await asyncio.shield(opened.outcome)
        except TimeoutError:
            raise ServiceError(ErrorCode.DEADLINE, "no keys in time") from None

    def _message(self, opened: OpenRequest) -> KeyRequest:
        """The request to the maker: a fresh id, and less time than the UKMS gives."""
        left = (opened.end - self._clock()) * 1000
        return KeyRequest(
            request=opened.id,
            grant=opened.held.signed,
            number=opened.message.number,
            size=opened.message.size,
            slaves=[site for site in opened.held.grant.slaves if site.sae in opened.message.slaves],
            destination=self._ckms,
            kem_key=opened.key.public,
            kem_signature=opened.key.signature,
            remaining_ms=max(1, int(left - max(20.0, left / 20))),
        )

    async def _take(self, opened: OpenRequest, taken: asyncio.Future[None], peer: Peer, message: Transfer) -> None:
        """Take one transfer; its outcome goes to the maker's call and, where it is final, to the request."""
        try:
            await self._receiving.take(opened, peer, message)
        except ServiceError as error:
            if error.code is ErrorCode.EXHAUSTED:
                opened.batch, opened.taken = "", None
            elif not opened.outcome.done():
                opened.outcome.set_exception(ServiceError(ErrorCode.EXHAUSTED, "the transfer failed"))
            taken.set_exception(error)
            taken.exception()
        else:
            if not opened.outcome.done():
                opened.outcome.set_result(None)
            taken.set_result(None)
        finally:
            if not taken.done():
                taken.cancel()


def _error_of(message: RequestFailed) -> ServiceError:
    codes = {reason: code for code, reason in REASONS.items()}
    code = codes.get(message.reason, ErrorCode.EXHAUSTED)
    retry_after_ms = min(max(0, message.retry_after_ms), LONGEST_RETRY_MS)
    return ServiceError(code, "the maker failed", retry_after_ms=retry_after_ms)
