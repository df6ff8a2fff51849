"""Credits: how much of each kind of work one peer may have under way.

Requests, deliveries and acknowledgements are counted apart, so that two AKMSs that ask each other cannot use up
what they need to answer each other. Nobody waits for a credit: without one the answer is `busy`.

Sans-IO.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from keyhaul.transport.messages.access import Purpose
from keyhaul.transport.messages.base import ErrorCode, ServiceError


class Work(StrEnum):
    """What credits are kept for."""

    ASKING = "asking"
    """Requests that this AKMS has sent to the peer."""
    MAKING = "making"
    """Requests of the peer that this AKMS serves."""
    SERVING = "serving"
    """Requests of a UKMS, until they are served or it has heard of their failure."""
    DELIVERY = "delivery"
    """Transfers of the peer."""
    ACKNOWLEDGEMENT = "acknowledgement"
    """Announcements, confirmations, failures, void and query of the peer; withdrawals and reports of a UKMS."""


SHARES = {Work.SERVING: 4}
"""How many times the credits of one peer a kind of work has, where more than once: a UKMS asks for several peers."""


class Credits:
    """The credits of one AKMS with all its peers."""

    def __init__(self, per_peer: int) -> None:
        """Allow `per_peer` pieces of each kind of work with each peer."""
        self._per_peer = per_peer
        self._used: Counter[tuple[str, Work]] = Counter()

    @contextmanager
    def take(self, peer: str, work: Work, purpose: Purpose = Purpose.DEMAND) -> Iterator[None]:
        """Hold one credit; prefetch gets no more than half of them, so that demand always finds some.

        Raises:
            ServiceError: busy.
        """
        limit = self._per_peer * SHARES.get(work, 1)
        if purpose is not Purpose.DEMAND:
            limit = max(1, limit // 2)
        if self._used[peer, work] >= limit:
            raise ServiceError(ErrorCode.BUSY, "too much of this is under way", retry_after_ms=200)
        self._used[peer, work] += 1
        try:
            yield
        finally:
            self._used[peer, work] -= 1
            if not self._used[peer, work]:
                del self._used[peer, work]

    def used(self) -> dict[str, int]:
        """Pieces of work under way by kind, for operators."""
        total: Counter[str] = Counter()
        for (_, work), count in self._used.items():
            total[work] += count
        return dict(total)
