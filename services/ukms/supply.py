"""Keys for SAEs: from the buffers where they have them, else from the AKMS, whose pushes come in here.

The asyncio driver around `buffers.py` and `vault.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from keyhaul.identity.names import SaeId
from keyhaul.keys.material import KeyId, KeyMaterial
from keyhaul.randomness import Source
from keyhaul.store.interface import StoreError
from keyhaul.transport.messages.access import DeliveryFailed, Description, Held, Push, RequestKeys
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import FailureReason, Voided, VoidKeys
from services.ukms.buffers import Allotment, Ask, Buffer, BufferFull, BufferKey, Buffers, Policy, Stored, Waiting
from services.ukms.copies import MissingCopies
from services.ukms.etsi014 import Refusal, exhausted, slave_refused, unavailable
from services.ukms.metrics import Metrics
from services.ukms.pushes import material_of
from services.ukms.terms import REFUSALS, TRANSIENT
from services.ukms.vault import Keys, Vault

log = structlog.get_logger(__name__)

ASK_DEADLINE = 5.0
"""Seconds for the AKMS to take a request on."""

MAXIMUM_ASKS = 256
"""Calls to the AKMS at a time."""

LONGEST_RETRY_MS = 60_000
"""A longer wait than this is not kept, whoever asks for it."""

Request = Callable[[RequestKeys, float], Awaitable[None]]
"""Sends a request to the AKMS, within so many seconds; raises ServiceError."""


class Supply:
    """The buffers of one UKMS and what fills them."""

    def __init__(
        self,
        vault: Vault,
        request: Request,
        doubt: Callable[[SaeId, frozenset[SaeId]], None],
        policy: Policy,
        metrics: Metrics,
        *,
        source: Source,
        clock: Callable[[], float],
    ) -> None:
        """Prepare; `load` comes next, then `run`.

        Args:
            vault: the durable keys.
            request: sends to the AKMS.
            doubt: called when an answer does not fit the terms of this master and these slaves.
            policy: how far to fetch ahead.
            metrics: what is counted.
            source: draws request names.
            clock: seconds of this node's clock.
        """
        self._vault = vault
        self._request = request
        self._doubt = doubt
        self._metrics = metrics
        self._source = source
        self._clock = clock
        self.buffers = Buffers(policy)
        self._asked: dict[str, tuple[Buffer, float]] = {}
        self._answers: dict[Waiting, asyncio.Future[Keys]] = {}
        self._asking = asyncio.Semaphore(MAXIMUM_ASKS)
        self._group: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()
        self._revocations = 0

    async def load(self) -> None:
        """Index what is at hand after a restart."""
        for key, slaves, stored in await self._vault.at_hand():
            self.buffers.buffer(key, slaves, self._clock()).put([stored])

    async def run(self) -> None:
        """Own the tasks of the supply until `close`; a failure that nothing expects ends it with an error."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._closing.wait()
            self._group = None

    def close(self) -> None:
        """Take nothing more on: whoever waits is answered 503."""
        self._closing.set()
        for buffer in self.buffers:
            self._fail(buffer.fail_all(), unavailable())

    async def keys(
        self, key: BufferKey, slaves: tuple[SaeId, ...], number: int, terms: Description, deadline: float
    ) -> Keys:
        """Hand out keys of a buffer once; wait for them until `deadline` (seconds of the clock).

        Raises:
            Refusal: 503 if there are none in time, 400 if the AKMS refuses.
            StoreError: the store failed; what was taken out counts as burned.
        """
        try:
            buffer = self.buffers.buffer(key, slaves, self._clock())
        except BufferFull:
            raise exhausted() from None
        buffer.stored_limit = terms.maximum_stored_keys
        buffer.demand.count(number, self._clock())
        revocations = self._revocations
        while (taken := buffer.take(number, self._clock())) is not None:
            try:
                issued = await self._issue(buffer, taken)
            except MissingCopies as lost:
                buffer.put_back(stored for stored in taken if stored.key_id not in lost.missing)
                if revocations != self._revocations:
                    raise unavailable() from None
                continue
            self.fill(buffer)
            return issued
        return await self._wait(buffer, number, deadline)

    async def push(self, push: Push, secret: bytes) -> Held:
        """Take in a push: durable when this returns. It may be repeated.

        Raises:
            ServiceError: malformed; conflict; not-found (this UKMS did not ask for it); busy; internal.
        """
        material = material_of(push, secret)
        done: asyncio.Future[Held] = asyncio.get_running_loop().create_future()
        if not self._spawn(self._take_in(push, material, done)):
            raise ServiceError(ErrorCode.UNREACHABLE, "the service is stopping")
        return await done

    async def failed(self, failure: DeliveryFailed) -> None:
        """The AKMS will not serve a request."""
        await self._vault.request_ended(failure.request)
        self._failed(failure.request, failure.reason, _pause_of(failure.retry_after_ms))

    async def void(self, request: VoidKeys) -> Voided:
        """Withdraw what of a batch has not been issued."""
        answer = await self._vault.void(request.batch, request.key_ids)
        ended = set(answer.voided)
        if ended:
            for buffer in self.buffers:
                buffer.discard(ended)
            self._metrics.voided.inc(len(ended))
        return answer

    def revoked(self, master: SaeId, slaves: frozenset[SaeId]) -> None:
        """Answer those who wait for keys of a right that ended, and fetch no more ahead."""
        self._revocations += 1
        for buffer in self.buffers.of(master, slaves):
            buffer.stored_limit = 0
            self._fail(buffer.fail_all(), slave_refused())

    def ask_again(self) -> None:
        """A new session with the AKMS stands: ask for what is still wanted."""
        self._asked.clear()
        for buffer in self.buffers:
            buffer.ask_again()
            self.fill(buffer)

    def refresh(self) -> None:
        """Once in a while: forget what is over, and fill what has fallen low."""
        now = self._clock()
        self._asked = {request: asked for request, asked in self._asked.items() if asked[1] > now}
        self.buffers.drop_idle(now)
        for buffer in self.buffers:
            self.fill(buffer)

    def fill(self, buffer: Buffer) -> None:
        """Ask the AKMS for what a buffer lacks now."""
        for ask in buffer.plan(self._clock(), self._source):
            self._asked[ask.request] = (buffer, ask.until)
            self._spawn(self._ask(buffer, ask))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> bool:
        if self._group is None or self._closing.is_set():
            work.close()
            return False
        self._group.create_task(work)
        return True

    async def _issue(self, buffer: Buffer, taken: tuple[Stored, ...]) -> Keys:
        try:
            return await self._vault.issue(buffer.key.master, [stored.key_id for stored in taken])
        except asyncio.CancelledError:
            buffer.put_back(taken)
            raise

    async def _wait(self, buffer: Buffer, number: int, deadline: float) -> Keys:
        try:
            waiting = buffer.wait(number, deadline)
        except BufferFull:
            raise exhausted() from None
        answer: asyncio.Future[Keys] = asyncio.get_running_loop().create_future()
        self._answers[waiting] = answer
        try:
            self.fill(buffer)
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                return await answer
        except TimeoutError:
            raise exhausted() from None
        finally:
            buffer.forget(waiting)
            del self._answers[waiting]

    async def _ask(self, buffer: Buffer, ask: Ask) -> None:
        async with self._asking:
            remaining = ask.until - self._clock()
            if remaining <= 0:
                return
            message = RequestKeys(
                request=ask.request,
                master=buffer.key.master,
                slaves=list(buffer.slaves),
                number=ask.number,
                size=buffer.key.size,
                purpose=ask.purpose,
                remaining_ms=max(1, round(1000 * remaining)),
            )
            try:
                await self._vault.request_made(ask.request, buffer.key, ask.number)
                await self._request(message, min(remaining, ASK_DEADLINE))
            except ServiceError as error:
                await self._not_asked(ask.request, error)
            except StoreError as error:
                log.error("a request was not sent: the store failed", error=str(error))
                self._failed(ask.request, FailureReason.BUSY, 0.0)

    async def _not_asked(self, request: str, error: ServiceError) -> None:
        gone = error.code is ErrorCode.EXHAUSTED and error.retry_after_ms > 0
        if error.code in TRANSIENT and not gone:
            self._failed(request, FailureReason.BUSY, _pause_of(error.retry_after_ms))
            return
        if error.code not in REFUSALS and not gone:
            log.error("the AKMS did not take a request", code=error.code, reason=error.message)
        reason = FailureReason.NOT_PERMITTED if error.code in REFUSALS else FailureReason.NO_KEYS
        self._failed(request, reason, _pause_of(error.retry_after_ms))

    def _failed(self, request: str, reason: FailureReason, retry_after: float) -> None:
        buffer, _ = self._asked.pop(request, (None, 0.0))
        if buffer is None:
            return
        pause = buffer.failed(request, retry_after, self._clock())
        if pause is None:
            return
        self._metrics.requests_failed.labels(reason.value).inc()
        if reason is FailureReason.NOT_PERMITTED:
            self._doubt(buffer.key.master, buffer.key.slaves)
            buffer.stored_limit = 0
            self._fail(buffer.fail_all(), slave_refused())
        elif reason in (FailureReason.NO_KEYS, FailureReason.DEADLINE):
            self._fail(buffer.fail_unserved(), exhausted(round(retry_after)))
        self._spawn(self._fill_later(buffer, pause))

    async def _fill_later(self, buffer: Buffer, pause: float) -> None:
        try:
            async with asyncio.timeout(pause):
                await self._closing.wait()
        except TimeoutError:
            buffer.resume()
            self.fill(buffer)

    async def _take_in(self, push: Push, material: dict[KeyId, KeyMaterial], done: asyncio.Future[Held]) -> None:
        try:
            await self._store_push(push, material)
        except ServiceError as error:
            self._settle(done, error)
        except (StoreError, BufferFull) as error:
            log.error("a push was not taken in", error=str(error))
            self._settle(done, ServiceError(ErrorCode.BUSY))
        else:
            if not done.done():
                done.set_result(Held(batch=push.batch, store=self._vault.store_id))
        finally:
            for bits in material.values():
                bits.wipe()

    @staticmethod
    def _settle(done: asyncio.Future[Held], error: ServiceError) -> None:
        if not done.done():
            done.set_exception(error)

    async def _store_push(self, push: Push, material: dict[KeyId, KeyMaterial]) -> None:
        now = self._clock()
        until = now + push.lifetime_ms / 1000
        slaves_until = now + max(push.lifetime_ms, push.slave_lifetime_ms) / 1000
        if not push.for_master:
            await self._vault.arrive(push, material, until, slaves_until, ())
            self._metrics.pushed.inc(len(material))
            return
        slaves = tuple(SaeId(name) for name in push.slaves)
        key = BufferKey(SaeId(push.master), frozenset(slaves), push.size, push.service_class)
        buffer = self.buffers.buffer(key, slaves, self._clock())
        arriving = [Stored(key_id, until) for key_id in push.key_ids]
        while True:
            allotments, rest = buffer.allot(arriving, self._clock())
            revocations = self._revocations
            try:
                new, keys = await self._vault.arrive(push, material, until, slaves_until, allotments)
            except MissingCopies as lost:
                self._undo(buffer, allotments, {*material, *lost.missing}, revocations)
                continue
            except ServiceError:
                self._undo(buffer, allotments, set(material), revocations)
                raise
            except StoreError:
                self._fail([allotment.waiting for allotment in allotments], unavailable())
                raise
            break
        if not new:
            self._undo(buffer, allotments, set(material), revocations)
            return
        self._metrics.pushed.inc(len(material))
        buffer.put(rest)
        self._arrived(push, buffer)
        for allotment, found in zip(allotments, keys, strict=True):
            answer = self._answers.get(allotment.waiting)
            if answer is not None and not answer.done():
                answer.set_result([(key_id, KeyMaterial(bits.reveal())) for key_id, bits in found])
        self.fill(buffer)

    def _arrived(self, push: Push, buffer: Buffer) -> None:
        asking, _ = self._asked.get(push.request, (None, 0.0))
        if asking is None:
            return
        asking.arrived(push.request, len(push.key_ids))
        if asking is not buffer:
            self._doubt(asking.key.master, asking.key.slaves)
            self._fail(asking.fail_unserved(), exhausted())

    def _undo(self, buffer: Buffer, allotments: list[Allotment], gone: set[KeyId], revocations: int) -> None:
        buffer.put_back(stored for allotment in allotments for stored in allotment.keys if stored.key_id not in gone)
        waiting = [allotment.waiting for allotment in allotments if allotment.waiting in self._answers]
        if revocations == self._revocations:
            buffer.wait_again(waiting)
        else:
            self._fail(waiting, unavailable())

    def _fail(self, waiting: list[Waiting], refusal: Refusal) -> None:
        for one in waiting:
            answer = self._answers.get(one)
            if answer is not None and not answer.done():
                answer.set_exception(refusal)


def _pause_of(retry_after_ms: int) -> float:
    """Seconds that the AKMS asks for, within reason."""
    return min(max(0, retry_after_ms), LONGEST_RETRY_MS) / 1000
