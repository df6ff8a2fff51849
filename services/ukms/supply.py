"""Keys for SAEs: from the buffers where they have them, else from the AKMS, whose pushes come in here.

What keeps buffers filled is in `filling`, what takes pushes in is in `intake`, who waits is in `answering`. A busy
buffer has keys set aside (`leasing`): they are handed out with no transaction, and the next ones are set aside
meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog

from keyhaul.identity.names import SaeId
from keyhaul.keys.material import KeyId
from keyhaul.randomness import Source
from keyhaul.runtime.group import Group
from keyhaul.store.interface import StoreError
from keyhaul.transport.messages.access import DeliveryFailed, Description, Held, Push
from keyhaul.transport.messages.peer import Voided, VoidKeys
from services.ukms.answering import Answering
from services.ukms.buffer import Buffer, BufferKey, Policy, Taken
from services.ukms.buffers import Buffers
from services.ukms.copies import MissingCopies
from services.ukms.etsi014 import exhausted, unavailable
from services.ukms.filling import Doubt, Filling, Request
from services.ukms.intake import Intake
from services.ukms.leases import Stored
from services.ukms.leasing import Leasing
from services.ukms.metrics import Metrics
from services.ukms.vault import Keys, Vault
from services.ukms.waiting import BufferFull

log = structlog.get_logger(__name__)


class Supply:
    """The buffers of one UKMS and what goes in and out of them."""

    def __init__(
        self,
        vault: Vault,
        request: Request,
        doubt: Doubt,
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
            doubt: told of answers that do not fit the terms.
            policy: how far to fetch ahead.
            metrics: what is counted.
            source: draws request names.
            clock: seconds of this node's clock.
            expecting: entered while somebody waits for a push of the AKMS (`LinkCalls.expecting`).
        """
        self._vault = vault
        self._metrics = metrics
        self._clock = clock
        self._group = Group()
        self._closing = asyncio.Event()
        self.buffers = buffers = Buffers(policy)
        self._answering = answering = Answering(vault, expecting=expecting, clock=clock)
        self._filling = Filling(
            buffers,
            vault,
            answering,
            request,
            doubt,
            metrics,
            source=source,
            clock=clock,
            spawn=self._spawn,
            closing=self._closing,
        )
        self._intake = Intake(
            buffers,
            vault,
            answering,
            self._filling,
            metrics,
            clock=clock,
            spawn=self._spawn,
            serve_again=self._serve_again,
        )
        self._leasing = Leasing(vault, buffers, spawn=self._spawn, at_hand=self._serve, clock=clock)

    async def load(self) -> None:
        """Index what is at hand after a restart."""
        for key, slaves, stored in await self._vault.at_hand():
            self.buffers.buffer(key, slaves, self._clock()).put([stored])

    async def run(self) -> None:
        """Own the tasks of the supply until `close`; a failure that nothing expects ends it with an error."""
        async with self._group:
            await self._closing.wait()

    def close(self) -> None:
        """Take nothing more on: whoever waits is answered 503."""
        self._closing.set()
        self._group.close()
        for buffer in self.buffers:
            self._answering.fail(buffer.fail_all(), unavailable())

    async def give_back(self) -> None:
        """After `close`: have what is set aside at hand again, durably, so that the next process can issue it."""
        await self._leasing.give_back()

    async def keys(
        self,
        key: BufferKey,
        slaves: tuple[SaeId, ...],
        number: int,
        terms: Description,
        deadline: float,
        asker: Hashable = "",
    ) -> Keys:
        """Hand out keys of a buffer once; wait for them until `deadline` (seconds of the clock).

        `asker`: who it is, where he is told to come back: what is kept for him then is nobody else's.

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
        promised = buffer.redeem(asker, number, now)
        if not promised and (retry_after := buffer.refused(asker, number, now)):
            raise exhausted(retry_after)
        revocations = self._answering.revocations
        while (taken := buffer.take(number, self._clock(), promised=promised)) is not None:
            if not taken.stored:
                if buffer.lease.wanted(now):
                    self._ahead(buffer)
                return self._vault.opened(key.master, taken.leased)
            try:
                issued = await self._issue(buffer, taken)
            except MissingCopies as lost:
                buffer.put_back(stored for stored in taken.stored if stored.key_id not in lost.missing)
                if revocations != self._answering.revocations:
                    raise unavailable() from None
                continue
            self._ahead(buffer)
            return issued
        return await self._answering.wait(buffer, number, deadline, asker, promised=promised, fill=self._filling.fill)

    async def push(self, push: Push, secret: bytes) -> Held:
        """Take in a push: durable when this returns. It may be repeated.

        Raises:
            ServiceError: malformed; conflict; not-found (this UKMS did not ask for it); busy; internal.
        """
        return await self._intake.push(push, secret)

    async def failed(self, failure: DeliveryFailed) -> None:
        """The AKMS will not serve a request."""
        await self._filling.failed(failure)

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
                self._serve_again(buffer)
        self._metrics.voided.inc(len(voided))
        return answer

    def revoked(self, master: SaeId, slaves: frozenset[SaeId]) -> None:
        """Answer those who wait for keys of a right that ended, and fetch no more ahead."""
        self._answering.revocations += 1
        for buffer in self.buffers.of(master, slaves):
            self._answering.forbid(buffer)
            self._leasing.unused(buffer, all_of_it=True)

    def ask_again(self) -> None:
        """A new session with the AKMS stands: ask for what is still wanted."""
        self._filling.ask_again()

    def refresh(self) -> None:
        """Once in a while: forget what is over, and fill what has fallen low."""
        self._filling.forget()
        self.buffers.drop_idle(self._clock())
        for buffer in self.buffers:
            self._leasing.unused(buffer)
            self._serve_again(buffer)
            self._filling.fill(buffer)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> bool:
        return self._group.begin(work) is not None

    async def _issue(self, buffer: Buffer, taken: Taken) -> Keys:
        try:
            issued = await self._vault.set_aside(buffer.key.master, taken.stored)
        except BaseException as error:
            buffer.lease.put_back(taken.leased)
            if isinstance(error, asyncio.CancelledError):
                buffer.put_back(taken.stored)
            raise
        if self._answering.too_late((*taken.stored, *(one.stored for one in taken.leased))):
            buffer.lease.put_back(taken.leased)
            raise unavailable()
        buffer.lease.gave(taken.leased)
        return self._vault.opened(buffer.key.master, (*taken.leased, *issued))

    def _ahead(self, buffer: Buffer) -> None:
        self._leasing.ahead(buffer)
        self._filling.fill(buffer)

    def _serve_again(self, buffer: Buffer) -> None:
        """Who waits may have been passed over while what he waits for, or he himself, was taken out for a moment."""
        if buffer.waiting:
            self._spawn(self._serve(buffer))

    async def _serve(self, buffer: Buffer) -> None:
        """Hand what is at hand to those who wait."""
        while allotments := buffer.allot((), self._clock())[0]:
            revocations = self._answering.revocations
            keys = [stored for allotment in allotments for stored in allotment.keys]
            try:
                issued = iter(await self._vault.set_aside(buffer.key.master, keys) if keys else ())
            except MissingCopies as lost:
                self._answering.undo(buffer, allotments, set(lost.missing), revocations)
                continue
            except StoreError as error:
                log.error("waiting requests were not served: the store failed", error=str(error))
                self._answering.give_up(buffer, allotments)
                break
            for allotment in allotments:
                new = [next(issued) for _ in allotment.keys]
                self._answering.hand_over(buffer, allotment, self._vault.opened(buffer.key.master, new))
        self._filling.fill(buffer)
