"""How many connections came, and how many of them came to an RPC.

gRPC tells an application nothing of a handshake that fails, neither from where nor why. But it asks for certificates
before each one, and each connection of an RPC has a name of its own: what was begun and never called anything was
refused by TLS, gave up, or kept silent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

TELL_EVERY = 60.0
"""Seconds between two lines in the log, at least."""

KEPT = 1_024
"""Connections whose names are remembered."""


class Handshakes:
    """Counts; `begun` may be called from any thread.

    Args:
        patience: seconds after which a connection should have called something.
        clock: seconds, monotonic.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.begun_total = 0
        self.proved_total = 0
        """Connections that came to an RPC, whether that was admitted or not."""
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, None] = {}
        self._looked = clock()
        self._were = 0
        """How many had begun when it was last looked."""
        self._told = 0

    def begun(self) -> None:
        """A connection came."""
        with self._lock:
            now = self._clock()
            if now - self._looked >= max(TELL_EVERY, self._patience):
                self._looked, were, self._were = now, self._were, self.begun_total
                came_to_nothing = were - self.proved_total
                if came_to_nothing > self._told:
                    log.warning("gnmi connections came to no rpc", number=came_to_nothing - self._told)
                    self._told = came_to_nothing
            self.begun_total += 1

    def proved(self, connection: str) -> None:
        """An RPC came over a connection, by the name that gRPC gives it."""
        with self._lock:
            if connection in self._known:
                return
            if len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            self._known[connection] = None
            self.proved_total += 1
