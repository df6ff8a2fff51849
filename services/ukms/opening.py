"""The first words of a process with its AKMS: whether the store is the latest of its kind, and what is done if not.

What an older copy holds may have been issued since, and what came since is missing. So all of it is given up and the
store gets a new identity, by which the AKMS sees that what other sites hold for it is lost, and has it withdrawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from keyhaul.store.interface import Store
from services.ukms import reconcile
from services.ukms.access import CALL_DEADLINE, Akms
from services.ukms.metrics import Metrics
from services.ukms.standing import Standing, is_older
from services.ukms.supply import Supply
from services.ukms.terms import Terms

log = structlog.get_logger(__name__)


class Opening:
    """Opens a process's standing."""

    def __init__(
        self,
        store: Store,
        akms: Akms,
        standing: Standing,
        supply: Supply,
        terms: Terms,
        metrics: Metrics,
        alarm: Callable[[str], None],
    ) -> None:
        self._store = store
        self._akms = akms
        self._standing = standing
        self._supply = supply
        self._terms = terms
        self._metrics = metrics
        self._alarm = alarm
        self._giving_up = asyncio.Lock()

    async def open(self) -> None:
        """Ask the AKMS what it knows, give up an older copy, then open. It may be tried again.

        An AKMS that knows nothing of this UKMS's store (its own was lost, or it is of a release that does not tell)
        is no reason to stay closed.

        Raises:
            ServiceError: the AKMS did not answer.
            StoreError: the store failed.
        """
        known = await self._akms.known()
        if is_older(self._store.store_id, self._store.opened_generation, known):
            await self._give_up("akms")
        if known.store not in ("", self._store.store_id):
            await self._akms.report([], CALL_DEADLINE)
        await self._supply.load()
        self._standing.open()
        self._metrics.open.set(1)
        log.info("keys are handed out: the AKMS has told what it knows of the store")

    async def found_older(self) -> None:
        """The AKMS's record of the link shows that the store is an older copy.

        Raises:
            StoreError: the store failed.
        """
        if not self._standing.is_open:
            await self._give_up("link")

    async def _give_up(self, found_by: str) -> None:
        async with self._giving_up:
            if not self._store.opened_generation:
                return
            former = self._store.store_id
            keys = await self._store.renew(reconcile.give_up)
            self._terms.forget()
        self._metrics.given_up.inc(keys)
        self._alarm("store-restored")
        log.error(
            "the store is an older copy: all keys that it held are given up",
            keys=keys,
            found_by=found_by,
            former=former,
            store=self._store.store_id,
        )
