"""Getting a batch held at slaves' UKMSs before anybody may get it, and taking it back where that fails.

Shared by the maker, by the asker (slaves beside the master) and by local keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from uuid import UUID

from sqlalchemy import Connection

from keyhaul.keys.states import KeyEvent, KeyState
from keyhaul.store.interface import Store
from keyhaul.transport.messages.access import Push
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import SlaveSite
from services.akms import batches, errands
from services.akms.batches import Batch, Part, Site
from services.akms.delivery import Delivery
from services.akms.errands import Errand, ErrandKind, Errands, Facts

MAXIMUM_ERRANDS = 16_384
"""Voids that may wait for one UKMS because of its reports."""


def sites_under(slaves: Iterable[SlaveSite], akms: str) -> dict[str, Site]:
    """The slaves under one AKMS by their UKMSs."""
    sites: dict[str, Site] = {}
    for slave in slaves:
        if slave.akms == akms:
            sites.setdefault(slave.ukms, Site([])).slaves.append(slave.sae)
    return sites


def void_copies(
    connection: Connection, batch: Batch, key_ids: Sequence[UUID] | None = None, counted: str = ""
) -> list[str]:
    """Write errands that withdraw slaves' copies at all sites of a batch.

    Args:
        connection: of the transaction.
        batch: whose.
        key_ids: of the copies; None: all of the batch.
        counted: the grant from whose count the keys go that no slave had got; only where there is a single site.
    """
    if key_ids is not None and not key_ids:
        return []  # an errand that names no keys is one for the whole batch
    facts = Facts(key_ids=[str(key_id) for key_id in key_ids or ()], counted=counted)
    return [
        errands.add(connection, Errand(ErrandKind.VOID_COPIES, ukms, batch.id, facts, batch.expires))
        for ukms in batch.sites
    ]


def withdraw_everywhere(connection: Connection, batch: Batch, key_ids: Sequence[UUID]) -> list[str]:
    """Write errands that withdraw given-up keys at the maker and at the slaves on this side."""
    if not key_ids:
        return []
    targets = void_copies(connection, batch, key_ids)
    if batch.part is Part.ASKER:
        facts = Facts(key_ids=[str(key_id) for key_id in key_ids])
        withdraw = Errand(ErrandKind.WITHDRAW, batch.peer, batch.id, facts, batch.expires)
        targets.append(errands.add(connection, withdraw))
    return targets


def void_at(connection: Connection, ukms: str, names: Iterable[str]) -> None:
    """Write errands to void whole batches at a UKMS that reported them; those that wait already stay as they are.

    Raises:
        ServiceError: busy; nothing was written.
    """
    waiting = errands.waiting(connection, ErrandKind.VOID_COPIES, ukms)
    new = [name for name in names if name not in waiting]
    if len(waiting) + len(new) > MAXIMUM_ERRANDS:
        raise ServiceError(ErrorCode.BUSY, "too much waits for this UKMS", retry_after_ms=5000)
    for name in new:
        errands.add(connection, Errand(ErrandKind.VOID_COPIES, ukms, name))


class Holding:
    """Slaves' copies of one AKMS's batches."""

    def __init__(
        self, store: Store, delivery: Delivery, errands: Errands, wall: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._delivery = delivery
        self._errands = errands
        self._wall = wall

    async def hold(self, batch: Batch, bits: bytes, ukmss: Collection[str], deadline: float) -> dict[str, str]:
        """Push a batch to some of its sites, side by side; returns the identities of the stores that hold it.

        Raises:
            ServiceError: one of them did not take it in time, or refused.
        """
        failures: list[ServiceError] = []
        pushes: dict[str, asyncio.Task[str]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for ukms in ukmss:
                    pushes[ukms] = group.create_task(self._push(batch, bits, ukms, deadline))
        except* ServiceError as group_of_failures:
            failures += [error for error in group_of_failures.exceptions if isinstance(error, ServiceError)]
        if failures:
            raise failures[0]
        return {ukms: push.result() for ukms, push in pushes.items()}

    async def discard(self, batch: Batch, also: Callable[[Connection], object] = lambda connection: None) -> None:
        """Void a batch that was prepared and never released, and withdraw what UKMSs may hold of it.

        Nothing is done where it is not on record as prepared.
        """

        def change(connection: Connection) -> list[str]:
            present = batches.find(connection, batch.id)
            if present is None or present.state is not KeyState.PREPARED:
                return []
            batches.move(connection, batch.id, KeyEvent.VOID)
            also(connection)
            return void_copies(connection, batch)

        self._errands.wake(*await self._store.write(change))

    async def _push(self, batch: Batch, bits: bytes, ukms: str, deadline: float) -> str:
        held = await self._delivery.push(ukms, lambda: self._message(batch, ukms), bits, deadline, lambda: True)
        return held.store

    def _message(self, batch: Batch, ukms: str) -> Push:
        return Push(
            batch=batch.id,
            master=batch.master,
            slaves=batch.slaves,
            held_for=batch.sites[ukms].slaves,
            key_ids=batch.key_ids,
            size=batch.size,
            service_class=batch.service_class,
            lifetime_ms=max(0, int((batch.expires - self._wall()) * 1000)),
        )
