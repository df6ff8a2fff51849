"""A gNMI target on grpc.aio: one tree, served to whom `peers` lets in."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import structlog
from pygnmi.spec.v080 import gnmi_pb2_grpc

from keyhaul.agents.gnmi import getting, setting
from keyhaul.agents.gnmi.data import BrokenData
from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.agents.gnmi.handshakes import Handshakes
from keyhaul.agents.gnmi.limits import LIMITS, Limits
from keyhaul.agents.gnmi.peers import Peers, Rpc
from keyhaul.agents.gnmi.subscriber import Subscriber
from keyhaul.agents.gnmi.tls import GROUP_KEY, server_credentials
from keyhaul.agents.gnmi.tree import Tree
from keyhaul.identity.names import ServiceName
from keyhaul.runtime.interface import StartError
from keyhaul.transport.tls import TlsFiles

log = structlog.get_logger(__name__)

VERSION = "0.8.0"

Refusal = Callable[[Rpc, ServiceName | None, Refused], None]
"""Is told of what was refused: the RPC, who asked as far as that is proved, and why."""

_CODES = {code: status for status in grpc.StatusCode for code in Code if status.value[0] == code}


class Target:
    """The servicer: names and signatures of its methods are the service definition's."""

    def __init__(
        self,
        tree: Tree,
        peers: Peers,
        *,
        limits: Limits = LIMITS,
        refused: Refusal = lambda _rpc, _peer, _refused: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        """Serve a tree.

        Args:
            tree: what is served.
            peers: who may.
            limits: how much.
            refused: is told of each refusal, for alarms.
            clock: seconds, never going back.
            wall: nanoseconds since 1970, for timestamps and for the dates of certificates.
        """
        self._tree = tree
        self._peers = peers
        self._limits = limits
        self._refused = refused
        self._clock = clock
        self._wall = wall
        self.handshakes = Handshakes(limits.handshake, clock)
        """Connections that came, whatever became of them."""
        self._looked = float("-inf")
        self._streams: Counter[ServiceName] = Counter()
        self._setting = asyncio.Lock()
        self._sets: set[asyncio.Task[Any]] = set()

    @property
    def streams(self) -> int:
        """How many Subscribe RPCs stand."""
        return self._streams.total()

    async def Capabilities(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What this target serves, and how."""
        async with self._admitted(Rpc.CAPABILITIES, context):
            return getting.capabilities(self._tree.schema, VERSION)

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What is at some paths now."""
        async with self._admitted(Rpc.GET, context):
            return getting.answer(self._tree.schema, self._fresh(), request, self._wall())

    async def Set(self, request: Any, context: Any) -> Any:  # noqa: N802
        """One transaction; it runs to its end even if the client goes away meanwhile."""
        async with self._admitted(Rpc.SET, context):
            planned = setting.plan(self._tree.schema, self._tree.writers, request)
            task = asyncio.create_task(self._set(planned))
            self._sets.add(task)
            task.add_done_callback(self._set_done)
            return await asyncio.shield(task)

    async def Subscribe(self, _requests: Any, context: Any) -> None:  # noqa: N802
        """Telemetry, until the client cancels or is refused."""
        async with self._admitted(Rpc.SUBSCRIBE, context) as peer:
            with self._stream(peer):
                subscriber = Subscriber(
                    self._tree,
                    context,
                    limits=self._limits,
                    clock=self._clock,
                    wall=self._wall,
                    fresh=self._fresh,
                    still_admitted=lambda: self._admit(Rpc.SUBSCRIBE, context),
                )
                await subscriber.run()

    async def finish(self) -> None:
        """Wait for transactions that still run."""
        if self._sets:
            await asyncio.wait(self._sets)

    @contextlib.asynccontextmanager
    async def _admitted(self, rpc: Rpc, context: Any) -> AsyncIterator[ServiceName]:
        peer: ServiceName | None = None
        self.handshakes.proved(context.peer())
        try:
            peer = self._admit(rpc, context)
            group = context.auth_context()["ssl_negotiated_key_exchange_group"][0].decode()
            await context.send_initial_metadata(((GROUP_KEY, group),))
            yield peer
        except Refused as refused:
            self._refused(rpc, peer, refused)
            await context.abort(_CODES[refused.code], refused.message)

    def _admit(self, rpc: Rpc, context: Any) -> ServiceName:
        now = datetime.datetime.fromtimestamp(self._wall() / 1e9, datetime.UTC)
        peer = self._peers.admit(context.auth_context(), rpc, now)
        given = dict(context.invocation_metadata() or ())
        if given.get("username") or given.get("password"):
            raise Refused(Code.UNAUTHENTICATED, "this target knows no passwords: the certificate says who you are")
        return peer

    @contextlib.contextmanager
    def _stream(self, peer: ServiceName) -> Iterator[None]:
        if self._streams[peer] >= self._limits.streams:
            raise Refused(Code.RESOURCE_EXHAUSTED, f"{peer} has {self._limits.streams} subscriptions already")
        self._streams[peer] += 1
        try:
            yield
        finally:
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]

    def _fresh(self) -> Any:
        now = self._clock()
        if now - self._looked < self._limits.fresh:
            return self._tree.snapshot()
        self._looked = now
        try:
            return self._tree.refresh()
        except BrokenData as error:
            log.error("a source of the gnmi tree returned what its schema does not allow", error=str(error))
            raise Refused(Code.INTERNAL, "the target cannot tell its state") from None

    async def _set(self, planned: setting.Plan) -> Any:
        async with self._setting:
            await setting.carry_out(planned, self._tree.writers)
            self._looked = float("-inf")
            with contextlib.suppress(Refused):
                self._fresh()
            planned.response.timestamp = self._wall()
            return planned.response

    def _set_done(self, task: asyncio.Task[Any]) -> None:
        self._sets.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Refused):
            log.error("a gnmi set failed", error=repr(error))


async def serve(target: Target, address: str, files: TlsFiles, limits: Limits = LIMITS) -> grpc.aio.Server:
    """Listen; the caller stops the server.

    Args:
        target: what is served.
        address: HOST:PORT.
        files: P-256 certificate, key, and the authorities of peers' certificates.
        limits: as the target's.

    Raises:
        TlsUnusable: the files cannot be used.
        StartError: nothing can listen at the address.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", limits.message),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", limits.metadata),
            ("grpc.max_concurrent_streams", limits.streams + 24),
            ("grpc.server_handshake_timeout_ms", round(limits.handshake * 1000)),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 3_000),
            ("grpc.http2.ping_timeout_ms", 3_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
        maximum_concurrent_rpcs=limits.calls,
    )
    gnmi_pb2_grpc.add_gNMIServicer_to_server(target, server)
    try:
        server.add_secure_port(address, server_credentials(files, target.handshakes.begun))
    except RuntimeError as error:
        raise StartError(f"gNMI cannot listen at {address}: {error}") from None
    await server.start()
    return server
