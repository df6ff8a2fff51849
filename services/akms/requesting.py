"""Requests to makers, from the asker's message to released keys or the maker's failure.

The maker's `peer.transfer` is answered only after the release is committed; a repeated one joins it, or is answered
from the record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from keyhaul.randomness import Source, identifier
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls, Peer
from keyhaul.transport.messages.access import RequestKeys
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState, FailureReason, KeyRequest, Released, RequestFailed, Transfer
from keyhaul.transport.operations import PEER_REQUEST
from services.akms import batches
from services.akms.allowance import HeldGrant
from services.akms.credits import Credits, Work
from services.akms.ephemeral import EphemeralKeys
from services.akms.receiving import OpenRequest, Receiving
from services.akms.tasks import Tasks

LONGEST_RETRY_MS = 60_000
"""A longer wait than this is not passed on, whoever asks for it."""

_LIFE = 12
"""Digits by which all requests of one process to makers begin."""

REASONS: dict[ErrorCode, FailureReason] = {
    ErrorCode.NOT_PERMITTED: FailureReason.NOT_PERMITTED,
    ErrorCode.BUSY: FailureReason.BUSY,
    ErrorCode.UNREACHABLE: FailureReason.UNREACHABLE,
    ErrorCode.DEADLINE: FailureReason.DEADLINE,
}
"""What a UKMS hears of an error; everything else is `no-keys`."""


class Requesting:
    """Requests of this AKMS to others."""

    def __init__(
        self,
        ckms: str,
        store: Store,
        peers: Mapping[str, Calls],
        keys: EphemeralKeys,
        receiving: Receiving,
        credit: Credits,
        tasks: Tasks,
        source: Source,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ckms = ckms
        self._store = store
        self._peers = peers
        self._keys = keys
        self._receiving = receiving
        self._credits = credit
        self._tasks = tasks
        self._source = source
        self._clock = clock
        self._open: dict[str, OpenRequest] = {}
        self._life = identifier(source)[:_LIFE]
        self._refused: set[str] = set()

    def __len__(self) -> int:
        """Requests to makers that are not closed."""
        return len(self._open)

    async def ask(self, ukms: str, message: RequestKeys, held: HeldGrant, maker: str, end: float) -> None:
        """Ask the maker and wait for its transfer or failure, until `end` by the monotonic clock.

        Raises:
            ServiceError: what the maker said, unreachable, deadline, exhausted.
        """
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

    async def _await_outcome(self, calls: Calls, opened: OpenRequest) -> None:
        """Ask, again whenever the connection was lost: the maker may have ended, and its next process knows nothing."""
        try:
            async with asyncio.timeout(max(0.0, opened.end - self._clock())):
                while True:
                    await calls.call(PEER_REQUEST, self._message(opened), deadline=opened.end - self._clock())
                    if await _outcome_first(opened, calls):
                        return
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


async def _outcome_first(opened: OpenRequest, calls: Calls) -> bool:
    """Whether the outcome of a request that the maker took on came before the connection to it was lost.

    Raises:
        ServiceError: the outcome.
    """
    lost = asyncio.ensure_future(calls.lost())
    try:
        with calls.expecting():
            await asyncio.wait([opened.outcome, lost], return_when=asyncio.FIRST_COMPLETED)
            if opened.taken is not None:
                # A transfer that came is taken to its end; one with bits that are not here comes again, or not.
                await asyncio.wait([opened.taken])
    finally:
        lost.cancel()
    if opened.outcome.done():
        opened.outcome.result()
    return opened.outcome.done()


def _error_of(message: RequestFailed) -> ServiceError:
    codes = {reason: code for code, reason in REASONS.items()}
    code = codes.get(message.reason, ErrorCode.EXHAUSTED)
    retry_after_ms = min(max(0, message.retry_after_ms), LONGEST_RETRY_MS)
    return ServiceError(code, "the maker failed", retry_after_ms=retry_after_ms)
