"""The SAE requests that wait for keys, each with a future: handed their keys, or told why not and when to come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager

import structlog

from keyhaul.keys.material import KeyId
from services.ukms.buffer import Allotment, Buffer
from services.ukms.etsi014 import Refusal, exhausted, slave_refused, unavailable
from services.ukms.leases import Stored
from services.ukms.vault import Keys, Vault
from services.ukms.waiting import BufferFull, Waiting

log = structlog.get_logger(__name__)


class Answering:
    """Those who wait in all buffers of a UKMS."""

    def __init__(
        self,
        vault: Vault,
        *,
        expecting: Callable[[], AbstractContextManager[None]],
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            vault: opens keys that were set aside.
            expecting: entered while somebody waits for a push of the AKMS.
            clock: seconds of this node's clock.
        """
        self._vault = vault
        self._expecting = expecting
        self._clock = clock
        self._answers: dict[Waiting, asyncio.Future[Keys]] = {}
        self.revocations = 0
        """How many rights have ended: what was begun before the last of them is not gone on with."""

    async def wait(
        self,
        buffer: Buffer,
        number: int,
        deadline: float,
        asker: Hashable,
        *,
        promised: bool,
        fill: Callable[[Buffer], None],
    ) -> Keys:
        """Wait for keys; `fill` has the AKMS asked for them.

        Raises:
            Refusal: there are none in time, or there will be none.
        """
        try:
            waiting = buffer.wait(number, deadline, self._clock(), asker, promised=promised)
        except BufferFull:
            raise exhausted(buffer.come_back(asker, number, self._clock())) from None
        answer: asyncio.Future[Keys] = asyncio.get_running_loop().create_future()
        self._answers[waiting] = answer
        try:
            fill(buffer)
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                with self._expecting():
                    return await answer
        except TimeoutError:
            buffer.forget(waiting)
            raise exhausted(buffer.come_back(asker, number, self._clock())) from None
        finally:
            buffer.forget(waiting)
            del self._answers[waiting]

    def too_late(self, keys: Iterable[Stored]) -> bool:
        """Whether the life of a key ended while the store issued it: the slave's copy may be gone, so it is burned."""
        now = self._clock()
        late = [stored for stored in keys if stored.expires <= now]
        if late:
            log.warning("the store was too slow: keys ended before they could be handed out", keys=len(late))
        return bool(late)

    def hand_over(self, buffer: Buffer, allotment: Allotment, keys: Keys) -> None:
        """Answer a request that waited; where it was given up, what was set aside for long stays so."""
        answer = self._answers.get(allotment.waiting)
        if answer is None or answer.done():
            buffer.lease.put_back(allotment.leased)
            return
        if self.too_late((*allotment.keys, *(one.stored for one in allotment.leased))):
            buffer.lease.put_back(allotment.leased)
            answer.set_exception(unavailable())
            return
        buffer.lease.gave(allotment.leased)
        answer.set_result(self._vault.opened(buffer.key.master, allotment.leased) + keys)

    def undo(self, buffer: Buffer, allotments: list[Allotment], gone: set[KeyId], revocations: int) -> None:
        """Keys that were allotted were certainly not issued, and some are `gone`; `revocations`: as it was then."""
        buffer.put_back(stored for allotment in allotments for stored in allotment.keys if stored.key_id not in gone)
        for allotment in reversed(allotments):
            buffer.lease.put_back(allotment.leased)
        waiting = [allotment.waiting for allotment in allotments if allotment.waiting in self._answers]
        if revocations == self.revocations:
            buffer.wait_again(waiting)
        else:
            self.fail(waiting, unavailable())

    def give_up(self, buffer: Buffer, allotments: list[Allotment]) -> None:
        """Nobody knows whether the store has issued what was allotted: it counts as burned."""
        for allotment in reversed(allotments):
            buffer.lease.put_back(allotment.leased)
        self.fail([allotment.waiting for allotment in allotments], unavailable())

    def send_away(self, buffer: Buffer, waiting: list[Waiting], at_least: float = 0.0) -> None:
        """Tell those who waited when to come back; whose turn was first comes first."""
        for one in reversed(waiting):
            self.fail([one], exhausted(buffer.come_back(one.asker, one.number, self._clock(), at_least)))

    def forbid(self, buffer: Buffer) -> None:
        """The master may share no keys with these slaves: nobody waits, and nothing is kept ahead of demand."""
        buffer.stored_limit = 0
        self.fail(buffer.fail_all(), slave_refused())

    def fail(self, waiting: Iterable[Waiting], refusal: Refusal) -> None:
        """Answer requests that waited with a refusal."""
        for one in waiting:
            answer = self._answers.get(one)
            if answer is not None and not answer.done():
                answer.set_exception(refusal)
