"""Where this process's store stands with the AKMS: nothing is handed out or taken in before that is known.

A store that was put back to an older copy holds keys that were issued since. The AKMS remembers the identity and the
generation that it was told last; each process asks for them once, before anything else (`opening.py`).
"""

from __future__ import annotations

import asyncio

from keyhaul.store.interface import Store
from keyhaul.transport.messages.access import Reported
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.ukms.etsi014 import unavailable

PATIENCE = 1.0
"""Seconds for which a request waits when it comes before the process is open."""


def is_older(store: str, opened_generation: int, known: Reported) -> bool:
    """Whether a store is an older copy, by what the AKMS knows.

    Args:
        store: its identity.
        opened_generation: in which this process found it; 0: it has given it its identity.
        known: what the AKMS had been told before this process.
    """
    if not known.store or not opened_generation:
        return False
    return known.store != store or known.generation > opened_generation


class Standing:
    """Closed when made; opened once. What the AKMS was told of the store's generation since, and what it was not."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._opened = asyncio.Event()
        self._told = 0
        self._used = 0

    @property
    def store(self) -> str:
        """The identity of the store."""
        return self._store.store_id

    @property
    def is_open(self) -> bool:
        """Whether keys may be handed out and taken in."""
        return self._opened.is_set()

    def open(self) -> None:
        """The store is the latest of its kind."""
        self._opened.set()

    async def opened(self) -> None:
        """Wait until it is open."""
        await self._opened.wait()

    async def admit(self) -> None:
        """Let a request of an SAE in.

        Raises:
            Refusal: 503, while nothing can be handed out.
        """
        if not self._opened.is_set():
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._opened.wait()
            except TimeoutError:
                raise unavailable() from None

    def admit_akms(self) -> None:
        """Let a message of the AKMS in whose effect or answer depends on the keys held.

        Raises:
            ServiceError: busy.
        """
        if not self._opened.is_set():
            raise ServiceError(ErrorCode.BUSY, "this UKMS has just started and has not reported yet")

    def handed_out(self) -> None:
        """Keys were handed to an SAE: the AKMS is to hear of this generation, or of a later one."""
        self._used = self._store.generation

    @property
    def generation(self) -> int:
        """Of the store, for a message to the AKMS; 0 (it does not tell) while closed: the AKMS is asked first."""
        return self._store.generation if self._opened.is_set() else 0

    def told(self, generation: int) -> None:
        """The AKMS has been told a generation."""
        self._told = max(self._told, generation)

    @property
    def untold(self) -> bool:
        """Whether keys were handed out since the AKMS was told a generation."""
        return self._used > self._told
