"""Ends standing connections whose peer would not be accepted any more: expired, revoked, or of a trust withdrawn."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Iterable

from OpenSSL import SSL

from keyhaul.transport.tls import TlsContext
from keyhaul.transport.wire import Wire

PERIOD = 5.0
"""Seconds between looks."""


class Revalidation:
    """Looks at connections from time to time; validates anew only after the files of the context changed."""

    def __init__(self, tls: TlsContext, wires: Callable[[], Iterable[Wire]]) -> None:
        """Bind to the context under which the connections were made, and to where they are listed."""
        self._tls = tls
        self._wires = wires
        self._seen: SSL.Context = tls.current()

    async def run(self, period: float = PERIOD) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(period)
            self.look(datetime.datetime.now(datetime.UTC))

    def look(self, now: datetime.datetime) -> None:
        """Abort the connections whose peer is not acceptable at that time."""
        current = self._tls.current()
        changed, self._seen = current is not self._seen, current
        for wire in list(self._wires()):
            if any(certificate.not_valid_after_utc < now for certificate in wire.chain):
                wire.abort("the peer's certificate has expired")
            elif changed and (reason := self._tls.refusal(wire.chain)) is not None:
                wire.abort(f"the peer's certificate is not accepted any more: {reason}")
