"""Release and hand-over: the one transaction that makes keys deliverable, and the push to the master's UKMS.

Keys, usage record and reduced allowance are written together; from then on the batch is pushed until the master's
UKMS holds it, through restarts. Then the bits go from here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

from sqlalchemy import Connection

from keyhaul.keys.states import IllegalTransition, KeyEvent, KeyState
from keyhaul.runtime.interface import Runtime
from keyhaul.store.interface import Store
from keyhaul.transport.messages.access import Push
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.akms import batches, errands
from services.akms.accounting import Accounting, note_release
from services.akms.allowance import spend
from services.akms.batches import Batch, BatchConflict, Part, encode_sites
from services.akms.delivery import Delivery
from services.akms.errands import Errand, ErrandKind, Errands
from services.akms.metrics import Metrics
from services.akms.tasks import Tasks

_NOBODY_KNOWS = b""
"""In the place of a UKMS's process: whichever a push may have reached."""


class Releases:
    """Batches of an asker, or of local keys, on their way to the master's UKMS."""

    def __init__(
        self,
        store: Store,
        delivery: Delivery,
        accounting: Accounting,
        errands: Errands,
        runtime: Runtime,
        tasks: Tasks,
        metrics: Metrics,
        guard: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._delivery = delivery
        self._accounting = accounting
        self._errands = errands
        self._runtime = runtime
        self._tasks = tasks
        self._metrics = metrics
        self._guard = guard
        self._wall = wall
        self._open: dict[str, set[bytes]] = {}
        """The processes of the master's UKMS that each may have reached; an empty name where nobody can tell."""

    async def release(
        self, batch: Batch, bits: bytes, stores: Mapping[str, str], sound: Callable[[], bool] = lambda: True
    ) -> None:
        """Release a batch durably and start to hand it over.

        The caller has made sure that every slave's UKMS holds it (a site at the master's own UKMS excepted: the
        same push serves it); `stores` are the identities of the stores that do. `sound` is asked within the transaction
        whether the CN bits under which the batch came are not exposed.

        Raises:
            AllowanceGone: the grant does not cover it (any more); nothing was written.
            BatchConflict: the batch was voided, is known or exposed, or slaves' copies are lost; nothing was written.
        """
        sealed = self._store.fields.seal(bits, batch.id.encode())
        new = batch.id not in self._open
        self._open.setdefault(batch.id, set())
        try:
            await self._store.write(lambda connection: self._write(connection, batch, sealed, stores, sound))
        except BaseException:
            if new:
                self._open.pop(batch.id, None)
            raise
        self._accounting.wake()
        self._metrics.batches.labels(batch.part, "released").inc()
        self._metrics.keys.inc(len(batch.key_ids))
        self.hand_over(batch, bits)
        for ukms in batch.sites:
            if ukms != batch.master_ukms:
                self._delivery.settle(ukms, batch.id)

    def hand_over(self, batch: Batch, bits: bytes) -> None:
        """Push a released batch to its master's UKMS until it is held there."""
        self._open.setdefault(batch.id, set())
        self._tasks.start(self._hand_over(batch, bits), "hand-over")

    def recalled(self, batch: str) -> None:
        """The batch is void, or its master's UKMS spoke of it: no further attempt to push it."""
        self._open.pop(batch, None)

    def kept_from_others(self, ukms: str) -> frozenset[str]:
        """The batches on their way that can have reached no process of a UKMS but the present one, if any."""
        present = {self._delivery.process(ukms)} - {_NOBODY_KNOWS}
        return frozenset(batch for batch, reached in self._open.items() if reached <= present)

    async def resume(self) -> None:
        """After a start: hand over what was released and not held yet."""
        for part in (Part.ASKER, Part.LOCAL):
            released = await self._store.read(partial(batches.in_state, part=part, state=KeyState.RELEASED))
            for batch in released:
                sealed = await self._store.read(partial(batches.sealed_bits, batch=batch.id))
                if sealed is not None and batch.expires > self._wall():
                    self._open[batch.id] = {_NOBODY_KNOWS}
                    self.hand_over(batch, self._store.fields.open(sealed, batch.id.encode()))

    def _write(
        self,
        connection: Connection,
        batch: Batch,
        sealed: bytes,
        stores: Mapping[str, str],
        sound: Callable[[], bool],
    ) -> None:
        known = batches.find(connection, batch.id)
        if not sound():
            raise BatchConflict("the CN bits of the batch are exposed")
        if known is None:
            batches.record(connection, batch)
        elif known.state is not KeyState.PREPARED or _origin(known) != _origin(batch):
            raise BatchConflict("the batch is void or known")
        elif batches.is_lost(known, stores):
            raise BatchConflict("slaves' copies of the batch are lost")
        sites = encode_sites(batch.sites, stores)
        batches.move(connection, batch.id, KeyEvent.RELEASE, bits=sealed, sites=sites)
        spend(connection, batch.grant, len(batch.key_ids))
        note_release(connection, batch, self._wall())

    async def _hand_over(self, batch: Batch, bits: bytes) -> None:
        until = batch.expires - self._guard - self._wall()

        def attempt() -> Push:
            self._open[batch.id].add(self._delivery.process(batch.master_ukms))
            return self._message(batch)

        try:
            await self._delivery.push(batch.master_ukms, attempt, bits, until, lambda: batch.id in self._open)
        except ServiceError as error:
            if error.code is not ErrorCode.DEADLINE and batch.id in self._open:
                self._runtime.alarm("delivery-refused", ukms=batch.master_ukms, code=error.code)
                recall = Errand(ErrandKind.RECALL, batch.master_ukms, batch.id, expires=batch.expires)
                self._errands.wake(await self._store.write(lambda c: errands.add(c, recall)))
            return
        finally:
            self._open.pop(batch.id, None)
        try:
            await self._store.write(lambda c: batches.move(c, batch.id, KeyEvent.ISSUE))
        except (BatchConflict, IllegalTransition):
            return

    def _message(self, batch: Batch) -> Push:
        beside = batch.sites.get(batch.master_ukms)
        left = batch.expires - self._wall()
        return Push(
            batch=batch.id,
            request=batch.request,
            master=batch.master,
            slaves=batch.slaves,
            held_for=[] if beside is None else beside.slaves,
            for_master=True,
            key_ids=batch.key_ids,
            size=batch.size,
            service_class=batch.service_class,
            lifetime_ms=max(0, int((left - self._guard) * 1000)),
            slave_lifetime_ms=0 if beside is None else max(0, int(left * 1000)),
        )


def _origin(batch: Batch) -> tuple[object, ...]:
    """What a batch that was prepared and the one that is to be released have in common if they are the same."""
    return batch.part, batch.peer, batch.request, batch.key_ids
