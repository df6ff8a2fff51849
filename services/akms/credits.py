"""Credits: how much of each kind of work one peer may have under way.

Requests, deliveries and acknowledgements are counted apart, so that two AKMSs that ask each other cannot use up
what they need to answer each other. Nobody waits for a credit: without one the answer is `busy`. Of the credits of
one kind with one peer no customer holds more than are left free, so that others always find one.

Requests to a peer wait for their turn before they are sent (`asking`); what they hold meanwhile nobody needs to
finish anything.

Sans-IO.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from keyhaul.pressure.fair import Shares
from keyhaul.transport.messages.base import ErrorCode, ServiceError


class Work(StrEnum):
    """What credits are kept for."""

    MAKING = "making"
    """Requests of the peer that this AKMS serves."""
    SERVING = "serving"
    """Requests of a UKMS, until they are served or it has heard of their failure."""
    DELIVERY = "delivery"
    """Transfers of the peer."""
    ACKNOWLEDGEMENT = "acknowledgement"
    """Announcements, confirmations, failures, void and query of the peer; withdrawals and reports of a UKMS."""


SHARES = {Work.SERVING: 4, Work.MAKING: 2}
"""How many times the credits of one peer a kind of work has, where more than once: a UKMS asks for several peers, and
a maker still settles what its asker has done with."""


class Credits:
    """The credits of one AKMS with all its peers."""

    def __init__(self, per_peer: int) -> None:
        """Allow `per_peer` pieces of each kind of work with each peer."""
        self._per_peer = per_peer
        self._used: dict[tuple[str, Work], Shares] = {}

    @contextmanager
    def take(self, peer: str, work: Work, flow: str | None = None) -> Iterator[None]:
        """Hold one credit, as one of a flow's share where a flow is named.

        Raises:
            ServiceError: busy.
        """
        shares = self._shares(peer, work)
        holder = object() if flow is None else flow
        if not shares.take(holder):
            raise ServiceError(ErrorCode.BUSY, "too much of this is under way", retry_after_ms=200)
        try:
            yield
        finally:
            shares.give_back(holder)

    def used(self) -> dict[str, int]:
        """Pieces of work under way by kind, for operators."""
        total: Counter[str] = Counter()
        for (_, work), shares in self._used.items():
            total[work] += shares.held
        return {work: count for work, count in total.items() if count}

    def _shares(self, peer: str, work: Work) -> Shares:
        """The credits for a kind of work with a peer; peers are those that the configuration names."""
        shares = self._used.get((peer, work))
        if shares is None:
            shares = self._used[peer, work] = Shares(self._per_peer * SHARES.get(work, 1))
        return shares
