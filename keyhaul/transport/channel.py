"""A way to one peer over a persistent connection, dialled again whenever it is lost."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from keyhaul.identity.names import ServiceName
from keyhaul.randomness import Source, random_bytes
from keyhaul.transport.caller import Caller
from keyhaul.transport.calls import TypedCalls
from keyhaul.transport.dialling import Dialler, DialSettings
from keyhaul.transport.interface import Peer
from keyhaul.transport.limits import MIB, Budget
from keyhaul.transport.metrics import TransportMetrics
from keyhaul.transport.tls import TlsContext
from keyhaul.transport.wire import WireSettings


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """How a channel behaves."""

    wire: WireSettings = field(default_factory=WireSettings)
    dial: DialSettings = field(default_factory=DialSettings)
    pending: int = 1_024
    """Calls that may wait at once."""
    held: int = 64 * MIB
    """Bytes of unfinished answers."""


class Channel(TypedCalls):
    """`interface.Calls` to a peer that this service dials."""

    def __init__(
        self,
        own: ServiceName,
        peer: ServiceName,
        address: str,
        tls: TlsContext,
        *,
        registry: CollectorRegistry | None = None,
        settings: ChannelSettings | None = None,
        source: Source = random_bytes,
    ) -> None:
        """Prepare the channel; `start` dials.

        Args:
            own: this service.
            peer: who must answer at the address.
            address: e.g. ``127.16.0.8:7443``.
            tls: `tls.service_client`.
            registry: where connections are counted.
            settings: times and bounds.
            source: of the jitter between attempts.
        """
        self._settings = settings or ChannelSettings()
        super().__init__(own, peer, limits=self._settings.wire.limits, pending=self._settings.pending)
        self._metrics = TransportMetrics.on(registry)
        self._budget = Budget(self._settings.held)
        self._dialler = Dialler(
            own.domain,
            peer,
            address,
            tls,
            self._make,
            settings=self._settings.dial,
            metrics=self._metrics,
            source=source,
        )

    async def start(self) -> None:
        """Begin to dial; returns at once."""
        self._dialler.start()

    @property
    def round_trip(self) -> float | None:
        """Seconds to the peer and back over the connection that stands; None where none does, or until a PING was
        answered.
        """
        wire = self._dialler.wire
        return None if wire is None else wire.round_trip

    def redial(self) -> Awaitable[None]:
        """Leave the present connection for a new one, whose handshake uses the identity's files as they are now.

        Calls from here on wait for the new connection; the awaitable ends when the former is closed.
        """
        return self._dialler.redial()

    async def close(self) -> None:
        """Stop dialling, let calls finish for a moment, close the connection."""
        await self._dialler.close()

    def _make(self, peer: Peer) -> Caller:
        caller = Caller(
            peer,
            settings=self._settings.wire,
            budget=self._budget,
            metrics=self._metrics,
            direction="dialled",
            message_owed=self.message_owed,
        )
        caller.on_leaving = lambda: self._dialler.renew(caller)
        return caller

    def _standing(self) -> Caller | None:
        wire = self._dialler.wire
        return wire if isinstance(wire, Caller) and not wire.leaving else None

    async def _connection(self, end: float) -> Caller:
        wire = await self._dialler.connection(end)
        assert isinstance(wire, Caller)
        return wire
