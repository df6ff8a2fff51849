"""The tasks of one AKMS: owned by the process, so that a failure stops it, and ended together when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from keyhaul.runtime.interface import Runtime


class Tasks:
    """Work that runs beside the handlers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run work that belongs to the service; after `close` it is dropped."""
        if self._closed:
            work.close()
            return
        task = self._runtime.task(work, name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """End all tasks. What they had not finished is found again in the store at the next start."""
        self._closed = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
