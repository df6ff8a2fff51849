"""CN bits that other AKMSs made for this one: announced, delivered, proved to their makers, handed out once.

Thin driver of `cn_store`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from keyhaul.identity.names import ServiceName
from keyhaul.keys.grants import SPLIT
from keyhaul.runtime.interface import Runtime
from keyhaul.transport.interface import Calls, Peer
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import Announce, CnRange, Confirm
from keyhaul.transport.messages.relay import Deliver, Expect
from keyhaul.transport.operations import CARRIER_EXPECT, PEER_CONFIRM
from services.akms.cn_exposed import Exposed
from services.akms.cn_store import Arrived, CnStore, RefusedBatch
from services.akms.tasks import Tasks

_CONFIRM_ATTEMPTS = 3
_CONFIRM_DEADLINE = 2.0
_EXPECT_DEADLINE = 2.0


class Arrivals:
    """CN bits of one AKMS as their consumer."""

    def __init__(
        self,
        ckms: Calls,
        peers: Mapping[str, Calls],
        runtime: Runtime,
        tasks: Tasks,
        clock: Callable[[], float],
    ) -> None:
        self._ckms = ckms
        self._peers = peers
        self._runtime = runtime
        self._tasks = tasks
        self._clock = clock
        self._copies = CnStore()
        self._arrival = asyncio.Event()
        self.exposed = Exposed()

    async def bits(self, maker: str, service_class: str, ranges: list[CnRange], deadline: float) -> bytes:
        """Return the consumer's copy of a maker's CN bytes, once; waits while their confirmation is under way.

        Raises:
            UnknownBits, UsedBits: as `CnStore.take`.
        """
        end = self._clock() + deadline
        while self._copies.unconfirmed(maker, ranges) and self._clock() < end:
            try:
                async with asyncio.timeout(end - self._clock()):
                    await self._arrival.wait()
            except TimeoutError:
                break
        return self._copies.take(maker, service_class, ranges)

    async def announce(self, peer: Peer, message: Announce) -> Accepted:
        """peer.announce: a maker's batch is on its way here.

        Of class split its name is told to the own CKMS, and to no other: by it that knows the batch's shares.
        """
        if peer.name.id not in self._peers:
            raise ServiceError(ErrorCode.FORBIDDEN, "not a configured peer")
        try:
            arrived = self._copies.announce(
                peer.name.id, message.batch, message.length, message.service_class, self._clock()
            )
        except RefusedBatch as refusal:
            raise ServiceError(ErrorCode.CONFLICT, str(refusal)) from None
        if message.service_class == SPLIT:
            await self._expect(peer.name.id, message)
        self._prove(arrived)
        return Accepted()

    async def _expect(self, maker: str, message: Announce) -> None:
        try:
            expected = Expect(batch=message.batch, length=message.length)
            await self._ckms.call(CARRIER_EXPECT, expected, deadline=_EXPECT_DEADLINE)
        except ServiceError as error:
            self._copies.withdraw(maker, message.batch)
            raise ServiceError(ErrorCode.BUSY, "the carrier takes no more of these") from error

    async def deliver(self, peer: Peer, message: Deliver) -> Accepted:
        """carrier.deliver: bits that the own CKMS brings."""
        self.only_own_ckms(peer.name)
        try:
            arrived = self._copies.deliver(message.batch, message.bits, self._clock(), shares=message.shares)
        except RefusedBatch as refusal:
            self._runtime.alarm("cn-batch-refused")
            raise ServiceError(ErrorCode.CONFLICT, str(refusal)) from None
        self._prove(arrived)
        return Accepted()

    def expose(self, maker: str, service_class: str) -> int:
        """Bits of a class that a maker sent are exposed: burn them; returns how many batches."""
        self.exposed.note(maker, service_class, self._clock())
        burned = self._copies.expose(maker, service_class)
        self._news()
        return burned

    def expire(self) -> None:
        """Burn what came and was not confirmed in time."""
        self._copies.expire(self._clock())

    def burn_all(self) -> None:
        """Wipe all bits."""
        self._copies.burn_all()

    def levels(self) -> dict[str, int]:
        """Confirmed bytes left by maker."""
        return self._copies.levels()

    def only_own_ckms(self, caller: ServiceName) -> None:
        """Refuse whoever is not the CKMS of this node.

        Raises:
            ServiceError: forbidden.
        """
        if caller != self._ckms.peer:
            self._runtime.alarm("wrong-ckms", caller=caller.id)
            raise ServiceError(ErrorCode.FORBIDDEN, "not the CKMS of this node")

    def _prove(self, arrived: Arrived | None) -> None:
        if arrived is not None:
            self._tasks.start(self._confirm(arrived), "cn-confirm")

    async def _confirm(self, arrived: Arrived) -> None:
        """Send the check until the maker answers; the same check again is that of the same bits."""
        for _ in range(_CONFIRM_ATTEMPTS):
            try:
                request = Confirm(batch=arrived.name, check=arrived.check)
                reply = await self._peers[arrived.maker].call(PEER_CONFIRM, request, deadline=_CONFIRM_DEADLINE)
            except ServiceError as error:
                if error.code in (ErrorCode.UNREACHABLE, ErrorCode.DEADLINE, ErrorCode.BUSY):
                    continue
                break
            if reply.same:
                self._copies.confirmed(arrived.maker, arrived.name)
                self._news()
                return
            self._runtime.alarm("cn-bits-differ", peer=arrived.maker)
            break
        self._copies.burn(arrived.maker, arrived.name)
        self._news()

    def _news(self) -> None:
        self._arrival.set()
        self._arrival = asyncio.Event()
