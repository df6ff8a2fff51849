"""CN bits that a node in quarantine may know: burned, and keys made under them called back.

The CKMS of this node tells of all exposures again and again. Each is acted upon once when it is new, and once more when
no path leads over such a node any more, since what came in between crossed it as well. In this order: CN bits of the
class and peer that are here, or on their way, are burned, and what is being made under them is known to be exposed;
batches on record are flagged and withdrawn, piece by piece; then the exposure is recorded. After a crash in between it
is told again, and what is not flagged yet is found.

Both ends of the CN bits are told, each by its own CKMS: the keys are called back if one of them hears of it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from functools import partial

from keyhaul.identity.names import MalformedName
from keyhaul.runtime.interface import Runtime
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Peer
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.relay import Exposed, Exposure
from services.akms import exposures
from services.akms.batches import Part
from services.akms.carrier import Carrier, akms_of
from services.akms.errands import Errands
from services.akms.metrics import Metrics
from services.akms.tasks import Tasks

_ID = re.compile(r"[0-9a-f]{32}")
_PIECE = 200


class Exposing:
    """Acts upon exposures."""

    def __init__(
        self,
        store: Store,
        carrier: Carrier,
        errands: Errands,
        runtime: Runtime,
        tasks: Tasks,
        metrics: Metrics,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._carrier = carrier
        self._errands = errands
        self._runtime = runtime
        self._tasks = tasks
        self._metrics = metrics
        self._wall = wall
        self._done: dict[str, bool] = {}
        self._acting = asyncio.Lock()
        self._issued = 0

    async def load(self) -> None:
        """Read what was acted upon."""
        self._done = await self._store.read(exposures.all_known)

    async def exposed(self, peer: Peer, message: Exposed) -> Accepted:
        """carrier.exposed: answered when everything told is acted upon, durably.

        Raises:
            ServiceError: forbidden (not the CKMS of this node), malformed.
        """
        self._carrier.arrivals.only_own_ckms(peer.name)
        try:
            told = [(one, akms_of(peer.name.domain, one.other)) for one in message.exposures]
        except MalformedName:
            raise ServiceError(ErrorCode.MALFORMED, "the other end is a CKMS") from None
        if not all(_ID.fullmatch(one.id) for one in message.exposures):
            raise ServiceError(ErrorCode.MALFORMED, "an exposure has a name of 32 hexadecimal digits")
        if not all(map(self._is_done, message.exposures)):
            await self._tasks.complete(self._act_upon(told), "exposed")
        return Accepted()

    async def watch(self) -> None:
        """Count, and raise an alarm where it has become more, what was issued of exposed keys."""
        if not self._done:
            return
        found = await self._store.read(exposures.issued)
        issued = sum(int(str(one["keys"])) for one in found)
        self._metrics.exposed.set(issued)
        if issued > self._issued:
            masters = len({one["master"] for one in found})
            self._runtime.alarm("exposed-keys-issued", keys=issued, masters=masters)
        self._issued = issued

    async def issued(self) -> list[dict[str, object]]:
        """What was issued of exposed batches, by master."""
        return await self._store.read(exposures.issued)

    def _is_done(self, exposure: Exposure) -> bool:
        done = self._done.get(exposure.id)
        return done is not None and (done or not exposure.over)

    async def _act_upon(self, told: Sequence[tuple[Exposure, str]]) -> None:
        async with self._acting:
            for exposure, peer in told:
                if not self._is_done(exposure):
                    await self._act(exposure, peer)

    async def _act(self, exposure: Exposure, peer: str) -> None:
        service_class = exposure.service_class
        side = self._carrier if exposure.sends else self._carrier.arrivals
        burned = side.expose(peer, service_class)
        self._metrics.cn_batches.labels("exposed").inc(burned)
        part = Part.MAKER if exposure.sends else Part.ASKER
        # A write, though it changes nothing: after all that was recorded before the bits were burned.
        find = partial(exposures.concerned, part=part, peer=peer, service_class=service_class)
        names = await self._store.write(find)
        keys = 0
        for start in range(0, len(names), _PIECE):
            flag = partial(exposures.flag, names=names[start : start + _PIECE])
            targets, flagged = await self._store.write(flag)
            keys += flagged
            self._errands.wake(*targets)
        note = partial(exposures.note, exposure=exposure.id, over=exposure.over, now=self._wall())
        await self._store.write(note)
        self._done[exposure.id] = exposure.over
        if burned or names:
            facts = {"peer": peer, "service_class": service_class, "part": part.value}
            self._runtime.alarm("cn-bits-exposed", **facts, cn_batches=burned, batches=len(names), keys=keys)
