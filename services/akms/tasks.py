"""The tasks of one AKMS: owned by the process, so that a failure stops it, and ended together when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from keyhaul.runtime.interface import Runtime
from keyhaul.transport.messages.base import ErrorCode, ServiceError

Result = TypeVar("Result")


class Tasks:
    """Work that runs beside the handlers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run work that belongs to the service; after `close` it is dropped."""
        if self._closed:
            work.close()
            return
        task = self._runtime.task(work, name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def complete(self, work: Coroutine[Any, Any, Result], name: str) -> Result:
        """Do work to its end even where whoever waits for it gives up; its result or error is the caller's.

        Raises:
            ServiceError: unreachable, when the service is stopping.
        """
        if self._closed:
            work.close()
            raise ServiceError(ErrorCode.UNREACHABLE, "this service is stopping")
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._completed)
        return await asyncio.shield(task)

    def _completed(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ServiceError):
            self._runtime.alarm("work-failed", work=task.get_name(), error=type(error).__qualname__)

    async def close(self) -> None:
        """End all tasks. What they had not finished is found again in the store at the next start."""
        self._closed = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
