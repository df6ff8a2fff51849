"""Encryptors that share one key after the other, while something happens to the network."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from types import TracebackType
from typing import Self

import aiohttp

from bench.encryptor import Encryptor, Refused, share

PAUSE = 0.01
"""Seconds before an encryptor asks again that was refused."""

REMEMBERED = 4096


class Load:
    """A number of pairs of encryptors in one master and one slave; each asks when the key before is complete.

    Args:
        master: who asks for new keys.
        slave: who gets the same.
        pairs: how many.
        interval: seconds that pass from asking to asking at least, unless `first` waits.
    """

    def __init__(self, master: Encryptor, slave: Encryptor, pairs: int, *, interval: float = 0.0) -> None:
        self.keys = 0
        """Complete at both encryptors, and equal."""
        self.failed = 0
        """Requests that were refused."""
        self._pair = master, slave
        self._number = pairs
        self._interval = interval
        self._hurry = asyncio.Event()
        self._finished: list[tuple[float, float]] = []
        self._news = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def usual_ms(self) -> float:
        """Median time of the keys that are remembered, milliseconds."""
        return round(1e3 * statistics.median(end - begin for begin, end in self._finished), 3)

    async def more(self, keys: int, limit: float) -> None:
        """Wait until so many more keys are complete."""
        goal = self.keys + keys
        async with asyncio.timeout(limit), self._news:
            await self._news.wait_for(lambda: self._check() or self.keys >= goal)

    async def first(self, *, asked_after: float = 0.0, finished_after: float = 0.0, limit: float) -> float:
        """When the first key was complete that was asked for, and complete, after these times (perf_counter)."""

        def found() -> list[float]:
            self._check()
            return [end for begin, end in self._finished if begin >= asked_after and end >= finished_after]

        self._hurry.set()
        try:
            async with asyncio.timeout(limit), self._news:
                await self._news.wait_for(found)
                return min(found())
        finally:
            self._hurry.clear()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self._number)]
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _check(self) -> bool:
        for task in self._tasks:
            if task.done():
                task.result()
        return False

    async def _ask(self) -> None:
        try:
            while True:
                begin = time.perf_counter()
                try:
                    await share(*self._pair)
                except (Refused, aiohttp.ClientError):
                    self.failed += 1
                    await asyncio.sleep(PAUSE)
                    continue
                self._finished.append((begin, time.perf_counter()))
                del self._finished[:-REMEMBERED]
                self.keys += 1
                async with self._news:
                    self._news.notify_all()
                if (left := begin + self._interval - time.perf_counter()) > 0:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(left):
                            await self._hurry.wait()
        finally:
            async with self._news:  # so that who waits hears of an end
                self._news.notify_all()
