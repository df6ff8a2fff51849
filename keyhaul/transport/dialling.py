"""Keeps one connection to a peer: dials, watches, dials again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from keyhaul.config.loader import parse_address
from keyhaul.identity.names import ServiceName
from keyhaul.randomness import Source, random_bytes
from keyhaul.transport.admission import Admission, NotAdmitted
from keyhaul.transport.interface import Peer
from keyhaul.transport.keepalive import Backoff
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.metrics import TransportMetrics
from keyhaul.transport.revalidation import Revalidation
from keyhaul.transport.tls import TlsContext
from keyhaul.transport.wire import Wire

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DialSettings:
    """Times in seconds."""

    handshake: float = 3.0
    """For the TCP connection and the TLS handshake."""
    patience: float = 1.0
    """How long a call waits for the first attempt after a start or a loss. It does not wait when attempts have
    failed, nor after the peer fell silent."""
    first_delay: float = 0.05
    longest_delay: float = 2.0
    settled: float = 1.0
    """A connection that lives shorter than this counts as a failed attempt."""
    farewell: float = 1.0
    """For what is under way when the connection is closed."""


class Dialler:
    """The life of the connection to one peer."""

    def __init__(
        self,
        domain: str,
        peer: ServiceName,
        address: str,
        tls: TlsContext,
        make: Callable[[Peer], Wire],
        *,
        settings: DialSettings,
        metrics: TransportMetrics,
        source: Source = random_bytes,
    ) -> None:
        """Prepare; `start` dials.

        Args:
            domain: the operator's.
            peer: who must answer: any other name is refused.
            address: where, e.g. ``127.16.0.8:7443``.
            tls: a client's context.
            make: makes the protocol for a connection whose peer is verified.
            settings: times.
            metrics: where attempts are counted.
            source: of the jitter between attempts.
        """
        self._domain = domain
        self._peer = peer
        self._host, self._port = parse_address(address)
        self._tls = tls
        self._make = make
        self._settings = settings
        self._metrics = metrics
        self._backoff = Backoff(source, first=settings.first_delay, longest=settings.longest_delay)
        self._wire: Wire | None = None
        self._replaced: set[Wire] = set()
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._attempt: asyncio.Future[None] | None = None
        self._trouble = "no connection was made yet"
        self._over: asyncio.Event | None = None

    @property
    def wire(self) -> Wire | None:
        """The connection that stands, or None."""
        return self._wire

    def start(self) -> None:
        """Begin to dial, in the background."""
        if self._task is None:
            self._attempt = asyncio.get_running_loop().create_future()
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"dial {self._peer}")
            self._task.add_done_callback(self._ended)
            look = Revalidation(self._tls, self._standing).run()
            self._looking = asyncio.get_running_loop().create_task(look, name=f"revalidate {self._peer}")
            self._looking.add_done_callback(self._ended)

    async def connection(self, end: float) -> Wire:
        """Return the connection, waiting for an attempt under way.

        Raises:
            ServiceError: unreachable.
        """
        attempt = self._attempt
        if self._wire is None and attempt is not None:
            wait = min(end - asyncio.get_running_loop().time(), self._settings.patience)
            await asyncio.wait({attempt}, timeout=max(0.0, wait))
        if self._wire is None:
            raise ServiceError(ErrorCode.UNREACHABLE, f"{self._peer} cannot be reached: {self._trouble}")
        return self._wire

    def renew(self, wire: Wire, why: str = "the peer is leaving") -> None:
        """Nothing more goes over this connection: dial another, let this one finish."""
        if wire is self._wire and self._over is not None:
            self._replaced.add(wire)
            wire.on_gone = lambda: self._replaced.discard(wire)
            self._lost(why)
            self._over.set()

    def redial(self) -> Awaitable[None]:
        """Leave the present connection at once, and dial another; await the end of what is under way on the former."""
        wire = self._wire
        if wire is None:
            return asyncio.sleep(0)
        self.renew(wire, "it is made anew")
        return farewell(wire, self._settings.farewell)

    async def close(self) -> None:
        """Stop dialling; let what is under way finish for a moment, then close."""
        for task in (self._task, self._looking):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._task = self._looking = None
        wires = self._standing()
        self._wire = None
        self._trouble = "the channel is closed"
        self._give_up_waiting()
        await asyncio.gather(*(farewell(wire, self._settings.farewell) for wire in wires))

    def _standing(self) -> list[Wire]:
        return [wire for wire in (self._wire, *self._replaced) if wire is not None]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                wire = await self._dial()
            except (OSError, NotAdmitted) as error:
                self._metrics.dials.labels(self._peer.role.value, "failed").inc()
                trouble = str(error) or type(error).__name__
                if trouble != self._trouble:
                    log.warning("peer cannot be reached", peer=self._peer.id, reason=trouble)
                self._trouble = trouble
                self._give_up_waiting()
                await asyncio.sleep(self._backoff.next())
                continue
            self._metrics.dials.labels(self._peer.role.value, "connected").inc()
            log.info("connected", peer=self._peer.id)
            since = loop.time()
            await self._stand(wire)
            log.info("disconnected", peer=self._peer.id, reason=self._trouble)
            if loop.time() - since >= self._settings.settled:
                self._backoff.reset()
            else:
                await asyncio.sleep(self._backoff.next())

    async def _stand(self, wire: Wire) -> None:
        over = self._over = asyncio.Event()
        wire.on_gone = lambda: self._gone(wire, over)
        self._wire = wire
        self._settle()
        if wire.gone.is_set():
            self._gone(wire, over)
        await over.wait()

    async def _dial(self) -> Wire:
        loop = asyncio.get_running_loop()
        admission = Admission(self._domain, self._admit)
        try:
            async with asyncio.timeout(self._settings.handshake):
                await loop.create_connection(lambda: admission, self._host, self._port, ssl=self._tls)
        except TimeoutError:
            raise ConnectionError("no handshake in time") from None
        if admission.wire is None:
            raise ConnectionError(f"refused: {admission.refusal}")
        try:
            await asyncio.shield(admission.wire.ready)
        except asyncio.CancelledError:
            admission.wire.close()
            raise
        return admission.wire

    def _admit(self, peer: Peer, _protocol: str) -> Wire:
        if peer.name != self._peer:
            raise NotAdmitted(f"{peer.name} answers instead of {self._peer}")
        return self._make(peer)

    def _gone(self, wire: Wire, over: asyncio.Event) -> None:
        self._lost(wire.reason)
        if wire.silent:
            self._give_up_waiting()
        over.set()

    def _lost(self, trouble: str) -> None:
        self._wire = None
        self._trouble = trouble
        self._settle()
        self._attempt = asyncio.get_running_loop().create_future()

    def _settle(self) -> None:
        if self._attempt is not None and not self._attempt.done():
            self._attempt.set_result(None)

    def _give_up_waiting(self) -> None:
        """Calls fail at once until a connection stands."""
        self._settle()
        self._attempt = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._trouble = f"dialling ended by {type(error).__name__}"
            self._give_up_waiting()
            log.critical("dialling has ended", peer=self._peer.id, error=repr(error))


async def farewell(wire: Wire, patience: float) -> None:
    """Let what is under way finish, for `patience` seconds at most, then close the connection."""
    wire.drain()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await wire.finished()
    wire.close()
    try:
        async with asyncio.timeout(patience):
            await wire.gone.wait()
    except TimeoutError:
        wire.abort("it does not close")
