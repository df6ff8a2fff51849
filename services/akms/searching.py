"""Who has a batch of which this AKMS has no record: its UKMSs are asked.

A record may be missing because the store was destroyed, or put back to an older copy. The UKMS that has the master's
copies was given them by this AKMS, so that they are released, whatever the record says.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from keyhaul.transport.messages.base import ServiceError
from keyhaul.transport.messages.peer import BatchState
from services.akms.delivery import Delivery


@dataclass(slots=True)
class Found:
    """What the UKMSs of this AKMS say of one batch."""

    masters: list[str] = field(default_factory=list)
    """UKMSs that have the master's copies, or had them until they were issued."""
    holders: list[str] = field(default_factory=list)
    """UKMSs that have slaves' copies alone."""
    sure: bool = True
    """Whether all of them answered."""


class Searching:
    """Questions to all UKMSs of one AKMS."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def find(self, names: Sequence[str], sake: str = "") -> dict[str, Found]:
        """Ask every UKMS for these batches; one that cannot be asked makes what is found unsure.

        Args:
            names: of batches.
            sake: the configured AKMS that asks, empty for this one: for each there is one search at a time.
        """
        found = {name: Found() for name in names}
        if not names:
            return found
        async with self._turns[sake]:
            ukmss = self._delivery.ukmss()
            answers = await asyncio.gather(*(self._states(ukms, names) for ukms in ukmss))
        for ukms, states in zip(ukmss, answers, strict=True):
            for number, name in enumerate(names):
                match states[number] if states is not None else None:
                    case None:
                        found[name].sure = False
                    case BatchState.RELEASED:
                        found[name].masters.append(ukms)
                    case BatchState.HELD:
                        found[name].holders.append(ukms)
        return found

    async def _states(self, ukms: str, names: Sequence[str]) -> list[BatchState] | None:
        try:
            return await self._delivery.states(ukms, names)
        except ServiceError:
            return None
