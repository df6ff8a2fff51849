"""The rate of each contract, held at the asker's AKMS: what exceeds it is refused with the time to come back.

A contract's SAEs share its rate at each access node, whichever UKMS they are at. Sans-IO.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from keyhaul.pressure.bucket import Meter
from keyhaul.transport.messages.aaa import Grant
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.akms.metrics import Metrics

_REMEMBERED = 8192
"""Contracts; one that was not used for longer than all others starts with a full burst again."""


class BeyondRate(ServiceError):
    """A request that its contract's rate does not cover now."""

    def __init__(self, wait: float, rate: float) -> None:
        """`wait`: seconds until it does; `rate`: keys a second."""
        retry_after_ms = math.ceil(1000 * wait)
        super().__init__(ErrorCode.EXHAUSTED, "beyond the contract's rate", retry_after_ms=retry_after_ms)
        self.rate = rate


def flow_of(grant: Grant) -> str:
    """Whose rate and fair share a grant counts to: its contract, of its master where the grant names none."""
    return f"contract {grant.contract}" if grant.contract else f"master {grant.master}"


@dataclass(slots=True)
class _Metered:
    meter: Meter
    epoch: int


class Rates:
    """The contracts that have a rate."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._contracts: OrderedDict[str, _Metered] = OrderedDict()

    def take(self, grant: Grant, number: int, now: float) -> None:
        """Count keys that a request wants.

        Who comes back are the UKMS, master and slaves of its grant: nobody else takes what is kept for them.

        Raises:
            BeyondRate: with the time after which as many will be there, and are kept for a while.
        """
        if not grant.rate:
            return
        wait = self._metered(grant, now).take(_holder(grant), number, now)
        if wait:
            self._metrics.beyond_rate.inc(number)
            raise BeyondRate(wait, grant.rate)

    def give_back(self, grant: Grant, number: int) -> None:
        """The request failed: its keys were not delivered."""
        if (known := self._contracts.get(flow_of(grant))) is not None:
            known.meter.give_back(number)

    def _metered(self, grant: Grant, now: float) -> Meter:
        """The contract's meter, at the terms of its newest grant."""
        flow = flow_of(grant)
        known = self._contracts.get(flow)
        if known is None:
            known = self._contracts[flow] = _Metered(Meter(grant.rate, grant.burst, now), grant.epoch)
            while len(self._contracts) > _REMEMBERED:
                self._contracts.popitem(last=False)
        elif grant.epoch >= known.epoch:
            known.meter.agree(grant.rate, grant.burst, now)
            known.epoch = grant.epoch
        self._contracts.move_to_end(flow)
        return known.meter


def _holder(grant: Grant) -> tuple[str, ...]:
    """AAA has signed, and `permission` checked against the link, which UKMS speaks for this master."""
    return grant.master_ukms, grant.master, *sorted(site.sae for site in grant.slaves)
