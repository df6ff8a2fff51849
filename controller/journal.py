"""The past in the controllers' database, as this controller reads and awaits it: events, and how links were."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from controller.state import events, history
from controller.state.events import Event
from controller.state.rollup import Key, Summary
from controller.view import Link
from keyhaul.database.database import Database


class Journal:
    """What happened, for those who ask.

    Args:
        database: the controllers'.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiters: set[asyncio.Future[None]] = set()

    async def position(self) -> int:
        """The number of the last event.

        Raises:
            DatabaseUnavailable: see `Database.run`.
        """
        return await self._database.run(events.position)

    async def after(self, number: int, most: int) -> Sequence[Event]:
        """The next events after a number.

        Raises:
            Forgotten: some of them are not kept any more.
            DatabaseUnavailable: see `Database.run`.
        """
        return await self._database.run(partial(events.after, number=number, most=most))

    async def measured(self, link: Link, level: int, count: int) -> Mapping[Key, Summary]:
        """How a link was in the last so many minutes, hours or days.

        Raises:
            DatabaseUnavailable: see `Database.run`.
        """
        senders = (link.a, link.b)
        return await self._database.run(
            partial(history.latest, level=level, link=link.id, senders=senders, count=count)
        )

    async def told(self) -> None:
        """Return when this controller has told an event."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def tell(self) -> None:
        """An event was recorded."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
