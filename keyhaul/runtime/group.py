"""Tasks that belong together and end together, for objects whose handlers are called from elsewhere.

A failure in one ends all, like `asyncio.TaskGroup`. What is asked of a group that ends, or has not begun, is refused
and never begins: handlers may still be called while the service comes down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self


class Group:
    """A task group that says no."""

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None
        self._entered = asyncio.TaskGroup()

    @property
    def takes(self) -> bool:
        """Whether work is taken on, as far as that is known: `begin` has the last word."""
        return self._group is not None

    async def __aenter__(self) -> Self:
        """Take work on."""
        self._group = await self._entered.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take nothing more on, and wait for what was begun; after an error it is cancelled."""
        self.close()
        await self._entered.__aexit__(kind, error, trace)

    def begin(self, work: Coroutine[Any, Any, None], name: str | None = None) -> asyncio.Task[None] | None:
        """Run work as a task of the group; None, and the work is not begun, where nothing more is taken on."""
        if self._group is None:
            work.close()
            return None
        try:
            return self._group.create_task(work, name=name)
        except RuntimeError:
            # A task has failed and the others are being cancelled; the owner has not run since.
            self.close()
            work.close()
            return None

    def close(self) -> None:
        """Take nothing more on."""
        self._group = None
