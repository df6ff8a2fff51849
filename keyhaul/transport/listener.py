"""Accepts other services: bounded handshakes, verified peers, calls in either direction, an orderly end."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from dataclasses import dataclass, field

import structlog
from prometheus_client import CollectorRegistry

from keyhaul.config.loader import parse_address
from keyhaul.identity.names import ServiceName
from keyhaul.transport.admission import Admission, NotAdmitted
from keyhaul.transport.caller import Caller
from keyhaul.transport.calls import TypedCalls
from keyhaul.transport.dialling import farewell
from keyhaul.transport.interface import Calls, Peer, Routes
from keyhaul.transport.keepalive import SERVED
from keyhaul.transport.limits import MIB, Allowance, Bucket, Budget
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.metrics import TransportMetrics
from keyhaul.transport.operations import REVERSED
from keyhaul.transport.revalidation import Revalidation
from keyhaul.transport.serving import Alarm, Service, ServingWire
from keyhaul.transport.tls import TlsContext
from keyhaul.transport.tls_policy import REVERSE
from keyhaul.transport.wire import Wire, WireSettings

log = structlog.get_logger(__name__)

_BACKLOG = 256


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """How a listener behaves; times in seconds."""

    served: WireSettings = field(default_factory=lambda: WireSettings(keepalive=SERVED))
    """Connections on which the peer calls."""
    reverse: WireSettings = field(default_factory=WireSettings)
    """Connections on which this service calls."""
    handshake: float = 5.0
    half_open: int = 64
    """Handshakes under way at once; when another comes the oldest is given up."""
    connections: int = 1_024
    connections_per_peer: int = 8
    """When a peer makes another, its oldest is closed."""
    pending: int = 1_024
    """Calls in reverse to one peer that may wait at once."""
    held: int = 256 * MIB
    """Bytes of unfinished messages of all connections together."""
    farewell: float = 3.0
    """For handlers under way when the listener is closed."""


class Listener:
    """Serves routes to verified peers on one address."""

    def __init__(
        self,
        own: ServiceName,
        address: str,
        tls: TlsContext,
        routes: Routes,
        *,
        registry: CollectorRegistry | None = None,
        alarm: Alarm | None = None,
        settings: ListenerSettings | None = None,
    ) -> None:
        """Prepare; `start` listens.

        Args:
            own: this service.
            address: host and port, e.g. ``127.16.0.8:7443``; port 0 lets the system choose.
            tls: `tls.service_server`.
            routes: the handlers; more may be added until the first connection.
            registry: where connections, requests and refusals are counted.
            alarm: told of calls that the table of operations forbids (`Runtime.alarm`).
            settings: times and bounds.
        """
        self._own = own
        self._host, self._port = parse_address(address)
        self._tls = tls
        self._settings = settings or ListenerSettings()
        self._metrics = TransportMetrics.on(registry)
        self._service = Service(own, routes, metrics=self._metrics, alarm=alarm)
        self._budget = Budget(self._settings.held)
        self._sockets: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._half_open: dict[asyncio.Task[None], None] = {}
        self._wires: dict[ServiceName, list[Wire]] = {}
        self._count = 0
        self._reverse: dict[ServiceName, ReversePeer] = {}
        self._closing = False
        self._log_allowance = Bucket(Allowance(20, 0.2))

    @property
    def address(self) -> str:
        """Where it listens; with the port that the system chose."""
        if not self._sockets:
            return f"{self._host}:{self._port}"
        host, port = self._sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be used.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, kind, protocol, _, place in dict.fromkeys(found):
                listening = socket.socket(family, kind, protocol)
                self._sockets.append(listening)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listening.setblocking(False)
                listening.bind(place)
                listening.listen(_BACKLOG)
        except OSError as error:
            for listening in self._sockets:
                listening.close()
            self._sockets.clear()
            raise OSError(error.errno, f"cannot listen on {self._host}:{self._port}: {error.strerror}") from None
        self._tasks = [
            loop.create_task(self._accept(listening), name=f"accept {self.address}") for listening in self._sockets
        ]
        look = Revalidation(self._tls, self._standing).run()
        self._tasks.append(loop.create_task(look, name=f"revalidate {self.address}"))
        for task in self._tasks:
            task.add_done_callback(_ended)

    async def close(self) -> None:
        """Take no more connections and requests, let handlers finish for a while, close everything."""
        self._closing = True
        tasks = [*self._tasks, *self._half_open]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening in self._sockets:
            listening.close()
        await asyncio.gather(*(farewell(wire, self._settings.farewell) for wire in self._standing()))

    def reverse(self, peer: ServiceName) -> Calls:
        """Return the way to a peer that dials us with ALPN keyhaul-reverse.

        It may be asked for before the peer has dialled; calls fail as unreachable while no connection stands.

        Raises:
            ValueError: a peer of that role is dialled, it does not dial.
        """
        if (self._own.role, peer.role) not in REVERSED:
            raise ValueError(f"{self._own.role} does not call {peer.role} in reverse")
        calls = self._reverse.get(peer)
        if calls is None:
            settings = self._settings
            calls = self._reverse[peer] = ReversePeer(
                self._own, peer, limits=settings.reverse.limits, pending=settings.pending
            )
        return calls

    def _standing(self) -> list[Wire]:
        return [wire for of_peer in self._wires.values() for wire in of_peer]

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as error:
                log.warning("accept failed", address=self.address, error=str(error))
                await asyncio.sleep(0.1)
                continue
            if len(self._half_open) >= self._settings.half_open:
                oldest = next(iter(self._half_open))
                del self._half_open[oldest]
                oldest.cancel()
                self._metrics.handshake_failures.labels("crowded").inc()
            task = loop.create_task(self._handshake(accepted))
            self._half_open[task] = None
            task.add_done_callback(functools.partial(self._handshake_over, accepted))

    async def _handshake(self, accepted: socket.socket) -> None:
        admission = Admission(self._own.domain, self._admit)
        loop = asyncio.get_running_loop()
        failure, detail = "", ""
        try:
            async with asyncio.timeout(self._settings.handshake):
                await loop.connect_accepted_socket(lambda: admission, accepted, ssl=self._tls)
        except TimeoutError:
            failure, detail = "timeout", "not finished in time"
        except ssl.SSLCertVerificationError as error:
            failure, detail = "certificate", str(error.args[-1])
        except ssl.SSLError as error:
            failure, detail = "tls", str(error.args[-1])
        except OSError as error:
            failure, detail = "connection", type(error).__name__
        if admission.refusal is not None:
            failure, detail = "refused", str(admission.refusal)
        if failure:
            accepted.close()
            self._metrics.handshake_failures.labels(failure).inc()
            if self._log_allowance.take(loop.time()):
                log.warning("connection refused", address=self.address, reason=failure, detail=detail)

    def _handshake_over(self, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self._half_open.pop(task, None)
        if task.cancelled():
            accepted.close()
        _ended(task)

    def _admit(self, peer: Peer, protocol: str) -> Wire:
        if self._closing:
            raise NotAdmitted("the service is closing")
        if self._count >= self._settings.connections:
            raise NotAdmitted(f"{self._settings.connections} connections stand already")
        if protocol == REVERSE:
            wire: Wire = self._admit_reverse(peer)
        else:
            wire = ServingWire(
                peer,
                self._service,
                settings=self._settings.served,
                budget=self._budget,
                metrics=self._metrics,
                direction="accepted",
            )
        of_peer = self._wires.setdefault(peer.name, [])
        if len(of_peer) >= self._settings.connections_per_peer:
            of_peer[0].close()
        of_peer.append(wire)
        self._count += 1
        wire.on_gone = lambda: self._forget(wire)
        return wire

    def _admit_reverse(self, peer: Peer) -> Caller:
        if (self._own.role, peer.name.role) not in REVERSED:
            raise NotAdmitted(f"{peer.name} is not called in reverse")
        calls = self.reverse(peer.name)
        assert isinstance(calls, ReversePeer)
        caller = Caller(
            peer,
            settings=self._settings.reverse,
            budget=self._budget,
            metrics=self._metrics,
            direction="reverse",
            message_owed=calls.message_owed,
        )
        calls.attach(caller)
        return caller

    def _forget(self, wire: Wire) -> None:
        of_peer = self._wires[wire.peer.name]
        of_peer.remove(wire)
        self._count -= 1
        if not of_peer:
            del self._wires[wire.peer.name]
        calls = self._reverse.get(wire.peer.name)
        if calls is not None:
            calls.detach(wire)


class ReversePeer(TypedCalls):
    """`interface.Calls` to a peer over the newest connection that it dialled."""

    _caller: Caller | None = None

    def attach(self, caller: Caller) -> None:
        """Use a new connection from now on; the one before is closed when its calls are answered."""
        former, self._caller = self._caller, caller
        if former is not None:
            former.retire()

    def detach(self, wire: Wire) -> None:
        """A connection is gone."""
        if wire is self._caller:
            self._caller = None

    def _standing(self) -> Caller | None:
        caller = self._caller
        return caller if caller is not None and caller.speaks and not caller.leaving else None

    async def _connection(self, end: float) -> Caller:
        if self._caller is not None and not self._caller.leaving:
            wait = end - asyncio.get_running_loop().time()
            await asyncio.wait({self._caller.ready}, timeout=max(0.0, wait))
        caller = self._standing()
        if caller is None:
            raise ServiceError(ErrorCode.UNREACHABLE, f"{self._peer} has not connected")
        return caller


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("listener task failed", task=task.get_name(), error=repr(error))
