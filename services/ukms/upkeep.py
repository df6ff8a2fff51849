"""What a UKMS does by itself: open, end expired copies, withdraw and purge them, report to the AKMS.

It reports after each new session, and while keys are handed out without another message that tells the AKMS how far
the store is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from keyhaul.store.interface import StoreError
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.ukms.access import CALL_DEADLINE, Akms
from services.ukms.metrics import Metrics
from services.ukms.opening import Opening
from services.ukms.standing import Standing
from services.ukms.supply import Supply
from services.ukms.vault import Vault

log = structlog.get_logger(__name__)

PERIOD = 1.0
"""Seconds between looks at what is due."""

BREATH = 0.02
"""Seconds between two pieces of a long piece of work: other writers come in between."""

TELLING = 5.0
"""Seconds between reports while keys are handed out."""

PAGE = 1_024
"""Batches in one report."""

LONGEST_PAUSE = 30.0

DEFINITE = frozenset({ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.MALFORMED, ErrorCode.NOT_PERMITTED})
"""Refusals of a withdrawal that another attempt would not change."""


class Upkeep:
    """Runs beside the service. A store that fails is logged and tried again."""

    def __init__(
        self,
        vault: Vault,
        akms: Akms,
        supply: Supply,
        standing: Standing,
        opening: Opening,
        metrics: Metrics,
        alarm: Callable[[str], None],
    ) -> None:
        self._vault = vault
        self._akms = akms
        self._supply = supply
        self._standing = standing
        self._opening = opening
        self._metrics = metrics
        self._alarm = alarm
        self._session = asyncio.Event()

    def new_session(self) -> None:
        """A new session with the AKMS stands: report, and ask again for what is wanted."""
        self._session.set()
        if self._standing.is_open:
            self._supply.ask_again()

    async def run(self) -> None:
        """Work until cancelled."""
        log.info("no keys are handed out before the AKMS has told what it knows of the store")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report())
            await self._standing.opened()
            group.create_task(self._often(self.expire))
            group.create_task(self._often(self.withdraw))
            group.create_task(self._often(self.purge))
            group.create_task(self._often(self.tell, TELLING))

    async def expire(self) -> bool:
        """End some expired copies, refresh the buffers; return whether there may be more."""
        count = await self._vault.expire()
        self._metrics.expired.inc(count)
        self._supply.refresh()
        self._metrics.observe(self._supply.buffers)
        return count > 0

    async def withdraw(self) -> bool:
        """Tell the AKMS of some master copies that expired unissued; return whether there may be more.

        Raises:
            ServiceError: the AKMS did not take it; it is repeated.
        """
        batches = await self._vault.unfetched()
        for batch, key_ids in batches.items():
            try:
                await self._akms.withdraw(batch, key_ids, CALL_DEADLINE)
            except ServiceError as error:
                if error.code not in DEFINITE:
                    raise
                self._alarm("withdrawal-refused")
            await self._vault.withdrawn(batch, key_ids)
            self._metrics.withdrawn.inc(len(key_ids))
        return bool(batches)

    async def purge(self) -> bool:
        """Delete some rows; return whether there may be more."""
        return await self._vault.purge() > 0

    async def tell(self) -> bool:
        """Tell the AKMS how far the store is, if keys were handed out of which it has not heard; return False.

        Raises:
            ServiceError: it did not take the report.
        """
        if self._standing.untold:
            await self._akms.report([], CALL_DEADLINE)
        return False

    async def report(self) -> None:
        """Report to the AKMS.

        Raises:
            ServiceError: it did not take the report.
            StoreError: the store failed.
        """
        beyond = ""
        while True:
            names = await self._vault.unsettled(beyond, PAGE)
            await self._akms.report(names, CALL_DEADLINE)
            if len(names) < PAGE:
                return
            beyond = names[-1]

    async def _often(self, work: Callable[[], Awaitable[bool]], period: float = PERIOD) -> None:
        pause = period
        while True:
            try:
                more = await work()
                pause = BREATH if more else period
            except ServiceError:
                pause = min(LONGEST_PAUSE, 2 * max(pause, period))
            except StoreError as error:
                log.error("upkeep waits: the store failed", error=str(error))
                pause = min(LONGEST_PAUSE, 2 * max(pause, period))
            await asyncio.sleep(pause)

    async def _report(self) -> None:
        pause = PERIOD
        while True:
            await self._session.wait()
            self._session.clear()
            try:
                if not self._standing.is_open:
                    await self._opening.open()
                await self.report()
                pause = PERIOD
            except (ServiceError, StoreError) as error:
                log.warning("the AKMS did not take the report", error=str(error))
                self._session.set()
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)
