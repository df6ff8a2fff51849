"""The QKD modules of one link: keys that one end gets, and the other by ID. They overflow, disagree and stop."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from random import Random

from keyhaul.keys.etsi014 import KEYS_NOT_FOUND, Key, KeyContainer, Status
from keyhaul.transport.etsi014 import Etsi014Error, Etsi014Unreachable

KEY_SIZE = 256
CAPACITY = 4_096
"""Keys that wait for the other end at most."""

STOCK = 1_000
"""Keys that can be had at most."""


class ModulePair:
    """What both modules of a link have in common."""

    def __init__(self, chance: Random, rate: float, count: Callable[[str], None]) -> None:
        self._chance = chance
        self._rate = rate
        self._count = count
        self._stock = 400.0
        self._since = 0.0
        self.waiting: dict[uuid.UUID, bytes] = {}
        self._stopped = False
        self._stop_felt = False
        self.disagree = 0
        """Keys still to come that differ between the ends."""
        self.forget = 0
        """Keys still to come that the other end never has."""
        self.silent = 0
        """Requests still to come that are carried out and not answered."""

    @property
    def bits(self) -> float:
        """What they make, bits per second."""
        return self._rate * KEY_SIZE

    def stored(self, now: float) -> int:
        """Keys that can be had."""
        self._stock = min(float(STOCK), self._stock + (now - self._since) * self._rate)
        self._since = now
        return int(self._stock)

    def make(self, number: int, size: int, now: float) -> list[Key]:
        """Make keys for one end, and keep them for the other."""
        if number > self.stored(now):
            raise Etsi014Error(503, "no keys", 1.0)
        self._stock -= number
        length = size // 8
        bits = self._chance.randbytes(number * (16 + length))
        keys = []
        for place in range(0, len(bits), 16 + length):
            key_id = uuid.UUID(bytes=bits[place : place + 16], version=4)
            key = bits[place + 16 : place + 16 + length]
            keys.append(Key(key_id, key))
            if self.forget:
                self.forget -= 1
                self._count("modules forget a key")
                continue
            if self.disagree:
                self.disagree -= 1
                self._count("modules disagree on a key")
                key = self._chance.randbytes(length)
            self.waiting[key_id] = key
            if len(self.waiting) > CAPACITY:
                del self.waiting[next(iter(self.waiting))]
        return keys

    def overflow(self) -> None:
        """Everything that waits for the other end drops out."""
        if self.waiting:
            self._count("modules overflow")
        self.waiting.clear()

    def stop(self) -> None:
        """Neither answers."""
        self._stopped = True
        self._stop_felt = False

    def go_on(self) -> None:
        """Both answer again."""
        self._stopped = False

    def heal(self) -> None:
        """Nothing is wrong with them any more."""
        self._stopped = False
        self.disagree = self.forget = self.silent = 0

    def reach(self) -> None:
        """A request or an answer passes, unless the modules stopped."""
        if self._stopped:
            if not self._stop_felt:
                self._count("modules stop")
            self._stop_felt = True
            raise Etsi014Unreachable("away")

    def answer(self) -> None:
        """What was asked is done; the answer may be lost."""
        self.reach()
        if self.silent:
            self.silent -= 1
            self._count("modules lose an answer")
            raise Etsi014Unreachable("no answer")


class SimulatedModule:
    """One end of a pair, as the link of one process sees it."""

    def __init__(self, pair: ModulePair, chance: Random) -> None:
        self._pair = pair
        self._chance = chance

    async def status(self, slave: str, *, deadline: float) -> Status:
        """See `Client014`."""
        now = await self._pass()
        return Status("a", "b", "c", slave, KEY_SIZE, self._pair.stored(now), STOCK, 128, 1024, 64, 0)

    async def get_key(self, slave: str, *, number: int, size: int | None, deadline: float) -> KeyContainer:
        """See `Client014`."""
        now = await self._pass()
        keys = self._pair.make(number, size or KEY_SIZE, now)
        self._pair.answer()
        return KeyContainer(keys)

    async def get_key_with_ids(self, master: str, ids: Sequence[uuid.UUID], *, deadline: float) -> KeyContainer:
        """See `Client014`."""
        await self._pass()
        if any(each not in self._pair.waiting for each in ids):
            raise Etsi014Error(400, KEYS_NOT_FOUND)
        keys = KeyContainer([Key(each, self._pair.waiting.pop(each)) for each in ids])
        await self._pass()
        self._pair.answer()
        return keys

    async def _pass(self) -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._chance.uniform(0.0005, 0.003))
        self._pair.reach()
        return loop.time()
