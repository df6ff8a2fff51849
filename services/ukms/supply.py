"""Keys for SAEs: from the buffers where they have them, else from the AKMS, whose pushes come in here.

The asyncio driver around `buffers.py` and `vault.py`. A busy buffer has keys set aside (`leasing.py`): they are handed
out with no transaction, and the next ones are set aside meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog

from keyhaul.identity.names import SaeId
from keyhaul.keys.material import KeyId, KeyMaterial
from keyhaul.pressure.gate import FairGate
from keyhaul.randomness import Source
from keyhaul.store.interface import StoreError
from keyhaul.transport.messages.access import DeliveryFailed, Description, Held, Purpose, Push, RequestKeys
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import FailureReason, Voided, VoidKeys
from services.ukms.buffers import Allotment, Ask, Buffer, BufferFull, BufferKey, Buffers, Policy, Taken, Waiting
from services.ukms.copies import MissingCopies
from services.ukms.etsi014 import Refusal, exhausted, slave_refused, unavailable
from services.ukms.leases import Stored
from services.ukms.leasing import Leasing
from services.ukms.metrics import Metrics
from services.ukms.outlook import QUEUE
from services.ukms.pushes import material_of
from services.ukms.terms import REFUSALS, TRANSIENT
from services.ukms.vault import Keys, Vault

log = structlog.get_logger(__name__)

ASK_DEADLINE = 5.0
"""Seconds for the AKMS to take a request on."""

MAXIMUM_ASKS = 256
"""Calls to the AKMS at a time; masters take turns."""

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
        expecting: Callable[[], AbstractContextManager[None]] = nullcontext,
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
            expecting: entered while somebody waits for a push of the AKMS (`LinkCalls.expecting`).
        """
        self._expecting = expecting
        self._vault = vault
        self._request = request
        self._doubt = doubt
        self._metrics = metrics
        self._source = source
        self._clock = clock
        self.buffers = Buffers(policy)
        self._asked: dict[str, tuple[Buffer, float]] = {}
        self._answers: dict[Waiting, asyncio.Future[Keys]] = {}
        self._asking = FairGate(MAXIMUM_ASKS)
        self._group: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()
        self._revocations = 0
        self._leasing = Leasing(vault, self.buffers, spawn=self._spawn, at_hand=self._serve, clock=clock)

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

    async def give_back(self) -> None:
        """After `close`: have what is set aside at hand again, durably, so that the next process can issue it."""
        await self._leasing.give_back()

    async def keys(
        self, key: BufferKey, slaves: tuple[SaeId, ...], number: int, terms: Description, deadline: float
    ) -> Keys:
        """Hand out keys of a buffer once; wait for them until `deadline` (seconds of the clock).

        Raises:
            Refusal: 503 if there are none in time, 400 if the AKMS refuses.
            StoreError: the store failed; what was taken out counts as burned.
        """
        now = self._clock()
        try:
            buffer = self.buffers.buffer(key, slaves, now)
        except BufferFull:
            raise exhausted() from None
        buffer.stored_limit = terms.maximum_stored_keys
        buffer.demand.count(number, now)
        buffer.lease.asked(number, now)
        if retry_after := buffer.refused(number, now):
            raise exhausted(retry_after)
        revocations = self._revocations
        while (taken := buffer.take(number, self._clock())) is not None:
            if not taken.stored:
                if buffer.lease.wanted(now):
                    self._ahead(buffer)
                return self._vault.opened(key.master, taken.leased)
            try:
                issued = await self._issue(buffer, taken)
            except MissingCopies as lost:
                buffer.put_back(stored for stored in taken.stored if stored.key_id not in lost.missing)
                if revocations != self._revocations:
                    raise unavailable() from None
                continue
            self._ahead(buffer)
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
        self._failed(failure.request, failure.reason, _pause_of(failure.retry_after_ms), failure.keys_per_second)

    async def void(self, request: VoidKeys) -> Voided:
        """Withdraw what of a batch has not been issued."""
        named = frozenset(request.key_ids)

        def chosen(stored: Stored) -> bool:
            return stored.batch == request.batch and (not named or stored.key_id in named)

        taken_out = [(buffer, buffer.discard(chosen)) for buffer in self.buffers]
        voided: frozenset[KeyId] = frozenset()
        try:
            withheld = await self._leasing.withhold(chosen)
            answer = await self._vault.void(request.batch, request.key_ids, withheld)
            voided = frozenset(answer.voided)
        finally:
            for buffer, found in taken_out:
                buffer.put_back(stored for stored in found if stored.key_id not in voided)
        self._metrics.voided.inc(len(voided))
        return answer

    def revoked(self, master: SaeId, slaves: frozenset[SaeId]) -> None:
        """Answer those who wait for keys of a right that ended, and fetch no more ahead."""
        self._revocations += 1
        for buffer in self.buffers.of(master, slaves):
            buffer.stored_limit = 0
            self._fail(buffer.fail_all(), slave_refused())
            self._leasing.unused(buffer, all_of_it=True)

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
            self._leasing.unused(buffer)
            self.fill(buffer)

    def fill(self, buffer: Buffer) -> None:
        """Ask the AKMS for what a buffer lacks now; who would wait for too long is told to come back."""
        self._send_away(buffer, buffer.overlong(self._clock()))
        for ask in buffer.plan(self._clock(), self._source):
            self._asked[ask.request] = (buffer, ask.until)
            self._spawn(self._ask(buffer, ask))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> bool:
        if self._group is None or self._closing.is_set():
            work.close()
            return False
        self._group.create_task(work)
        return True

    async def _issue(self, buffer: Buffer, taken: Taken) -> Keys:
        try:
            issued = await self._vault.set_aside(buffer.key.master, taken.stored)
        except BaseException as error:
            buffer.lease.put_back(taken.leased)
            if isinstance(error, asyncio.CancelledError):
                buffer.put_back(taken.stored)
            raise
        buffer.lease.gave(taken.leased)
        return self._vault.opened(buffer.key.master, (*taken.leased, *issued))

    def _ahead(self, buffer: Buffer) -> None:
        self._leasing.ahead(buffer)
        self.fill(buffer)

    async def _serve(self, buffer: Buffer) -> None:
        """Hand what is at hand to those who wait."""
        while allotments := buffer.allot((), self._clock())[0]:
            revocations = self._revocations
            keys = [stored for allotment in allotments for stored in allotment.keys]
            try:
                issued = iter(await self._vault.set_aside(buffer.key.master, keys) if keys else ())
            except MissingCopies as lost:
                self._undo(buffer, allotments, lost.missing, revocations)
                continue
            except StoreError as error:
                log.error("waiting requests were not served: the store failed", error=str(error))
                self._give_up(buffer, allotments)
                break
            for allotment in allotments:
                new = [next(issued) for _ in allotment.keys]
                self._hand_over(buffer, allotment, self._vault.opened(buffer.key.master, new))
        self.fill(buffer)

    async def _wait(self, buffer: Buffer, number: int, deadline: float) -> Keys:
        try:
            waiting = buffer.wait(number, deadline, self._clock())
        except BufferFull:
            raise exhausted(buffer.come_back(number, self._clock())) from None
        answer: asyncio.Future[Keys] = asyncio.get_running_loop().create_future()
        self._answers[waiting] = answer
        try:
            self.fill(buffer)
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                with self._expecting():
                    return await answer
        except TimeoutError:
            buffer.forget(waiting)
            raise exhausted(buffer.come_back(number, self._clock())) from None
        finally:
            buffer.forget(waiting)
            del self._answers[waiting]

    async def _ask(self, buffer: Buffer, ask: Ask) -> None:
        urgent = ask.purpose is Purpose.DEMAND
        async with self._asking.enter(buffer.key.master, cost=ask.number, urgent=urgent):
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

    def _failed(self, request: str, reason: FailureReason, retry_after: float, rate: float = 0.0) -> None:
        buffer, _ = self._asked.pop(request, (None, 0.0))
        if buffer is None:
            return
        pause = buffer.failed(request, retry_after, self._clock(), rate)
        if pause is None:
            return
        self._metrics.requests_failed.labels(reason.value).inc()
        if reason is FailureReason.NOT_PERMITTED:
            self._doubt(buffer.key.master, buffer.key.slaves)
            buffer.stored_limit = 0
            self._fail(buffer.fail_all(), slave_refused())
        elif rate > 0:
            self._send_away(buffer, buffer.overlong(self._clock()))
        elif reason in (FailureReason.NO_KEYS, FailureReason.DEADLINE) and not 0 < retry_after <= QUEUE:
            self._send_away(buffer, buffer.fail_unserved(), retry_after)
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
        arriving = [Stored(key_id, until, push.batch, position) for position, key_id in enumerate(push.key_ids)]
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
                self._give_up(buffer, allotments)
                raise
            break
        if not new:
            self._undo(buffer, allotments, set(material), revocations)
            return
        self._metrics.pushed.inc(len(material))
        buffer.put(rest)
        self._arrived(push, buffer)
        for allotment, found in zip(allotments, keys, strict=True):
            self._hand_over(buffer, allotment, [(key_id, KeyMaterial(bits.reveal())) for key_id, bits in found])
        self.fill(buffer)

    def _hand_over(self, buffer: Buffer, allotment: Allotment, keys: Keys) -> None:
        """Answer a request that waited; where it was given up, what was set aside for long stays so."""
        answer = self._answers.get(allotment.waiting)
        if answer is None or answer.done():
            buffer.lease.put_back(allotment.leased)
            return
        buffer.lease.gave(allotment.leased)
        answer.set_result(self._vault.opened(buffer.key.master, allotment.leased) + keys)

    def _give_up(self, buffer: Buffer, allotments: list[Allotment]) -> None:
        """Nobody knows whether the store has issued what was allotted: it counts as burned."""
        for allotment in reversed(allotments):
            buffer.lease.put_back(allotment.leased)
        self._fail([allotment.waiting for allotment in allotments], unavailable())

    def _arrived(self, push: Push, buffer: Buffer) -> None:
        asking, _ = self._asked.get(push.request, (None, 0.0))
        if asking is None:
            return
        asking.arrived(push.request, len(push.key_ids), self._clock())
        if asking is not buffer:
            self._doubt(asking.key.master, asking.key.slaves)
            self._fail(asking.fail_unserved(), exhausted())

    def _undo(self, buffer: Buffer, allotments: list[Allotment], gone: set[KeyId], revocations: int) -> None:
        buffer.put_back(stored for allotment in allotments for stored in allotment.keys if stored.key_id not in gone)
        for allotment in reversed(allotments):
            buffer.lease.put_back(allotment.leased)
        waiting = [allotment.waiting for allotment in allotments if allotment.waiting in self._answers]
        if revocations == self._revocations:
            buffer.wait_again(waiting)
        else:
            self._fail(waiting, unavailable())

    def _send_away(self, buffer: Buffer, waiting: list[Waiting], at_least: float = 0.0) -> None:
        """Tell those who waited when to come back; the first who came comes first."""
        for one in reversed(waiting):
            self._fail([one], exhausted(buffer.come_back(one.number, self._clock(), at_least)))

    def _fail(self, waiting: list[Waiting], refusal: Refusal) -> None:
        for one in waiting:
            answer = self._answers.get(one)
            if answer is not None and not answer.done():
                answer.set_exception(refusal)


def _pause_of(retry_after_ms: int) -> float:
    """Seconds that the AKMS asks for, within reason."""
    return min(max(0, retry_after_ms), LONGEST_RETRY_MS) / 1000
