"""CN keys over the carrier: the maker's pools kept filled.

Thin driver of `cn_pool` over the own CKMS (bits) and the other AKMS (names and checks). The CKMS sees a destination, a
random name and a class; no user, request or grant. The consumer's copies are those of `arrivals`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping

from keyhaul.config.services import PoolSection
from keyhaul.identity.names import MalformedName, Role, ServiceName
from keyhaul.randomness import Source
from keyhaul.runtime.interface import Runtime
from keyhaul.transport.interface import Calls, Peer
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import Announce, Confirm, Confirmed
from keyhaul.transport.messages.relay import Outcome, Submit
from keyhaul.transport.operations import CARRIER_SUBMIT, PEER_ANNOUNCE
from services.akms.arrivals import Arrivals
from services.akms.cn_batch import CnBatch
from services.akms.cn_exposed import Exposed
from services.akms.cn_pool import ANYBODY, MakerPool, Share, Taken
from services.akms.metrics import Metrics
from services.akms.tasks import Tasks

_IDLE_SECONDS = 1.0
_WATCHFUL_SECONDS = 0.1
"""How often to look, while a batch is on its way, whether those to whom it was given are there; or there again."""

_LEAST_WAIT = 0.01


class Carrier:
    """CN bits of one AKMS as their maker; `arrivals` are those of which it is the consumer."""

    def __init__(
        self,
        ckms: Calls,
        peers: Mapping[str, Calls],
        settings: PoolSection,
        runtime: Runtime,
        tasks: Tasks,
        metrics: Metrics,
        source: Source,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ckms = ckms
        self._peers = peers
        self._settings = settings
        self._runtime = runtime
        self._tasks = tasks
        self._metrics = metrics
        self._source = source
        self._clock = clock
        self._pools: dict[tuple[str, str], MakerPool] = {}
        self._futures: dict[tuple[str, str, int], asyncio.Future[Taken]] = {}
        self._made: dict[str, tuple[str, str]] = {}
        self.arrivals = Arrivals(ckms, peers, runtime, tasks, clock)
        self._unknown: dict[str, float] = {}
        """When it was last told that a peer lacks bits."""
        self.exposed = Exposed()
        self._failures: dict[tuple[str, str], asyncio.Event] = {}

    async def take(self, peer: str, service_class: str, count: int, deadline: float, share: Share = ANYBODY) -> Taken:
        """Return `count` bytes that the peer confirmed and that nobody else ever gets.

        Args:
            peer: service id of the consuming AKMS.
            service_class: whose pool.
            count: bytes.
            deadline: seconds from now.
            share: among whom the pool's bits are shared out in fair order.

        Raises:
            ServiceError: exhausted, when the carrier brought too few in time, with the time that it needs for them.
        """
        key = (peer, service_class)
        pool = self._pool(key)
        ticket = pool.ask(count, self._clock(), share)
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._futures[*key, ticket] = future
        self._pump(key)
        try:
            async with asyncio.timeout(deadline):
                with self._ckms.expecting(), self._peers[peer].expecting():
                    return await future
        except TimeoutError:
            pool.forget(ticket)
            retry_after_ms = round(1000 * pool.wait(count, self._clock()))
            raise ServiceError(ErrorCode.EXHAUSTED, "no CN bits in time", retry_after_ms=retry_after_ms) from None
        finally:
            pool.forget(ticket)
            self._futures.pop((*key, ticket), None)

    def troubled(self, peer: str, service_class: str) -> bool:
        """Whether the carrier's latest batch for this pool failed."""
        return self._pool((peer, service_class)).troubled

    def burn(self, peer: str, taken: Taken) -> None:
        """A peer does not have these bits: burn all that were made for it until they were taken.

        That is told once: whatever else was taken until then is as unknown to the peer, for the same reason.
        """
        burned = sum(pool.burn(taken.at) for (owner, _), pool in self._pools.items() if owner == peer)
        if burned or taken.at > self._unknown.get(peer, -math.inf):
            self._unknown[peer] = self._clock()
            self._runtime.alarm("cn-bits-unknown", peer=peer, batches_burned=burned)

    def expose(self, peer: str, service_class: str) -> int:
        """Bits of a class that a peer has, or is about to get, are exposed: burn them; returns how many batches."""
        key, now = (peer, service_class), self._clock()
        self.exposed.note(peer, service_class, now)
        self._unknown[peer] = now
        if key not in self._pools:
            return 0
        burned = self._pools[key].burn()
        self._pump(key)
        return burned

    async def outcome(self, peer: Peer, message: Outcome) -> Accepted:
        """carrier.outcome: what became of a batch that this AKMS submitted."""
        self.arrivals.only_own_ckms(peer.name)
        key = self._made.get(message.batch)
        if key is not None:
            if message.failure is None:
                self._pools[key].delivered(message.batch)
            else:
                self._fail(key, message.batch)
        return Accepted()

    async def confirm(self, peer: Peer, message: Confirm) -> Confirmed:
        """peer.confirm: the consumer proves which bits arrived; different ones are burned and alarmed."""
        key = self._made.get(message.batch)
        same = None
        if key is not None and key[0] == peer.name.id:
            same = self._pools[key].confirm(message.batch, message.check, self._clock())
        if key is None or same is None:
            raise ServiceError(ErrorCode.NOT_FOUND, "no such CN batch")
        if same:
            self._metrics.cn_batches.labels("confirmed").inc()
        else:
            self._metrics.cn_batches.labels("different").inc()
            self._runtime.alarm("cn-bits-differ", peer=peer.name.id)
        self._pump(key)
        return Confirmed(same=same)

    async def run(self) -> None:
        """Burn what came here and was not confirmed, for as long as the service runs."""
        while True:
            self.arrivals.expire()
            self._made = {name: key for name, key in self._made.items() if self._pools[key].knows(name)}
            await asyncio.sleep(_IDLE_SECONDS)

    def close(self) -> None:
        """Wipe all bits."""
        for pool in self._pools.values():
            pool.burn()
        self.arrivals.burn_all()

    def levels(self) -> dict[str, list[dict[str, object]]]:
        """Pools for operators: bytes, no names of users."""
        now = self._clock()
        made = [
            {
                "peer": peer,
                "class": service_class,
                "available": pool.available,
                "in_flight": pool.in_flight,
                "waiting": pool.waiting,
                "target": pool.target(now),
            }
            for (peer, service_class), pool in self._pools.items()
        ]
        received = [{"peer": peer, "available": level} for peer, level in self.arrivals.levels().items()]
        return {"made": list(made), "received": list(received)}

    def _pool(self, key: tuple[str, str]) -> MakerPool:
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = MakerPool(key[1], self._settings, self._source, self._clock())
            self._failures[key] = asyncio.Event()
            self._metrics.cn_bytes.labels(*key).set_function(lambda: pool.available)
            self._tasks.start(self._tend(key, pool), "cn-pool")
        return pool

    async def _tend(self, key: tuple[str, str], pool: MakerPool) -> None:
        """Look at a pool at the instants of its clock, retry and expire for as long as the service runs."""
        failure = self._failures[key]
        there = True
        while True:
            failure.clear()
            there, before = self._ckms.connected and self._peers[key[0]].connected, there
            if before and not there:
                pool.doubt(self._clock())
            elif there and not before:
                pool.hope()
            self._metrics.cn_batches.labels("lost").inc(pool.expire(self._clock()))
            self._start(key, pool.look(self._clock()))
            self._pump(key)
            now = self._clock()
            longest = _WATCHFUL_SECONDS if pool.in_flight or not there else _IDLE_SECONDS
            try:
                async with asyncio.timeout(min(longest, max(_LEAST_WAIT, pool.wake_at(now) - now))):
                    await failure.wait()
            except TimeoutError:
                continue

    def _pump(self, key: tuple[str, str]) -> None:
        """Serve who waits, start what those need who still do."""
        pool = self._pools[key]
        for ticket, taken in pool.serve(self._clock()):
            future = self._futures.get((*key, ticket))
            if future is not None and not future.done():
                future.set_result(taken)
        self._start(key, pool.plan(self._clock()))

    def _start(self, key: tuple[str, str], new: list[CnBatch]) -> None:
        for batch in new:
            self._made[batch.name] = key
            self._tasks.start(self._send(key, batch), "cn-batch")

    async def _send(self, key: tuple[str, str], batch: CnBatch) -> None:
        """Announce and submit one batch side by side; the rest comes as messages."""
        useful = self._pools[key].useful(batch.name, self._clock())
        if not useful:
            return
        peer = self._peers[key[0]]
        announce = Announce(batch=batch.name, length=len(batch.bits), service_class=key[1])
        submit = Submit(
            batch=batch.name,
            destination=ckms_of(peer.peer),
            bits=batch.bits.reveal(),
            service_class=key[1],
            remaining_ms=int(useful * 1000),
        )
        outcomes = await asyncio.gather(
            peer.call(PEER_ANNOUNCE, announce, deadline=useful),
            self._ckms.call(CARRIER_SUBMIT, submit, deadline=useful),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, ServiceError):
                self._fail(key, batch.name)
                return
            if isinstance(outcome, BaseException):
                raise outcome
        self._pools[key].submitted(batch.name)

    def _fail(self, key: tuple[str, str], name: str) -> None:
        self._metrics.cn_batches.labels("failed").inc()
        self._pools[key].failed(name, self._clock())
        self._pump(key)
        self._failures[key].set()


def ckms_of(akms: ServiceName) -> str:
    """Service id of the CKMS at an AKMS's node."""
    return ServiceName(akms.domain, Role.CKMS, akms.node).id


def akms_of(domain: str, ckms: str) -> str:
    """Service id of the AKMS at a CKMS's node.

    Raises:
        MalformedName: it is no CKMS.
    """
    name = ServiceName.of(domain, ckms)
    if name.role is not Role.CKMS:
        raise MalformedName(f"{ckms!r} is no CKMS")
    return ServiceName(domain, Role.AKMS, name.node).id
