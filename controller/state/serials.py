"""Serial numbers of statements: leased from the database in blocks, so that none is ever given out twice."""

from __future__ import annotations

import asyncio

from controller.state.counters import add
from controller.state.leading import Leadership, NotLeading
from controller.state.schema import SERIAL

BLOCK = 1_024
"""Numbers leased at a time; what is left of them is forgotten when the process ends."""


class Serials:
    """The numbers of one process. They grow, over all epochs."""

    def __init__(self, leadership: Leadership, block: int = BLOCK) -> None:
        self._leadership = leadership
        self._block = block
        self._epoch = 0
        self._left = range(0)
        self._one = asyncio.Lock()

    async def take(self, number: int) -> tuple[int, range]:
        """Return so many numbers, and the epoch that they are for.

        Raises:
            NotLeading: this process does not lead.
            DatabaseUnavailable: no block could be leased; numbers that were perhaps leased are not used.
        """
        async with self._one:
            epoch = self._leadership.epoch
            if epoch is None:
                raise NotLeading("this controller does not lead")
            if epoch != self._epoch or len(self._left) < number:
                amount = max(number, self._block)
                last = await self._leadership.transact(lambda connection: add(connection, SERIAL, amount))
                if self._leadership.epoch != epoch:
                    raise NotLeading("this controller stopped leading")
                self._epoch, self._left = epoch, range(last - amount + 1, last + 1)
            given, self._left = self._left[:number], self._left[number:]
            return epoch, given
