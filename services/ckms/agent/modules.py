"""What the QKD modules of this node say of their links: asked now and then, apart from the refilling of pads.

The rate is of the pair's one stream of keys: what either direction of the link can get of it while the other takes
nothing. Modules of ETSI GS QKD 014 may tell more in `status_extension` (clause 6.1): `secret_key_rate` (bits per
second) and `qber` (0 to 1) are understood.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from keyhaul.keys.etsi014 import Status
from keyhaul.link.lookup import Module
from keyhaul.transport.etsi014 import Etsi014Error, Etsi014Unreachable
from services.ckms.agent.key_rate import KeyRate, Stock

LOOK = 1.0
"""Seconds between two looks while somebody is told."""

IDLE = 15.0
"""Seconds between two looks otherwise."""

DEADLINE = 2.0
"""Seconds for a module to answer."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The module of one link."""

    module: Module
    slave: str
    """SAE ID of the other end."""
    expected: float
    """Bits per second, by the configuration."""
    taken: Callable[[], int]
    """Bytes of its keys that became pad, of both directions, since the process started."""


class Modules:
    """Asks the modules of all links; `run` must be running."""

    def __init__(
        self,
        watched: Mapping[str, Watched],
        wanted: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare.

        Args:
            watched: the modules, by link.
            wanted: whether somebody is told of them now.
            clock: seconds, monotonic.
            pause: waits so many seconds.
        """
        self._watched: dict[str, Watched] = {}
        self._wanted = wanted
        self._clock = clock
        self._pause = pause
        self._rates: dict[str, KeyRate] = {}
        self._qber: dict[str, float] = {}
        self._answering: set[str] = set()
        self._looked = float("-inf")
        for link, each in watched.items():
            self.add(link, each)

    def add(self, link: str, watched: Watched) -> None:
        """Ask the module of a link, too."""
        self._watched[link] = watched
        self._rates[link] = KeyRate(watched.expected, self._clock())

    def remove(self, link: str) -> None:
        """Ask the module of a link no more, if it is asked."""
        self._watched.pop(link, None)
        self._rates.pop(link, None)
        self._qber.pop(link, None)
        self._answering.discard(link)

    def rate(self, link: str) -> int:
        """New key material of a link, bits per second."""
        return round(self._rates[link].value)

    def qber(self, link: str) -> float | None:
        """Quantum bit error ratio, 0 to 1; None where the module does not tell, or does not answer."""
        return self._qber.get(link)

    def answers(self, link: str) -> bool:
        """Whether the module answered when it was last asked."""
        return link in self._answering

    async def run(self) -> None:
        """Ask, until cancelled."""
        while True:
            if self._wanted() or self._clock() - self._looked >= IDLE:
                self._looked = self._clock()
                await asyncio.gather(*map(self._look, tuple(self._watched)))
            await self._pause(LOOK)

    async def _look(self, link: str) -> None:
        watched, rate = self._watched[link], self._rates[link]
        status: Status | None = None
        with suppress(Etsi014Error, Etsi014Unreachable):
            status = await watched.module.status(watched.slave, deadline=DEADLINE)
        if self._watched.get(link) is not watched:
            return
        if status is None:
            self._answering.discard(link)
            self._qber.pop(link, None)
            rate.away(self._clock())
            return
        self._answering.add(link)
        qber = _told(status, "qber", 1.0)
        if qber is None:
            self._qber.pop(link, None)
        else:
            self._qber[link] = qber
        told = _told(status, "secret_key_rate", 1e12)
        if told is not None:
            rate.told(told, self._clock())
        else:
            rate.seen(_stock(status, 8 * watched.taken()), self._clock())


def _stock(status: Status, taken: int) -> Stock:
    return Stock(
        stored=status.key_size * status.stored_key_count,
        taken=taken,
        full=status.stored_key_count >= status.max_key_count,
    )


def _told(status: Status, name: str, most: float) -> float | None:
    """A figure of the extension; None where it is missing, or none that can be."""
    extension: dict[str, Any] | msgspec.UnsetType = status.status_extension
    value = None if isinstance(extension, msgspec.UnsetType) else extension.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= most else None
