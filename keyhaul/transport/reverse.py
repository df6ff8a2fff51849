"""Serving somebody who cannot dial: this end dials, then the roles of HTTP/2 are exchanged (ALPN keyhaul-reverse)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from keyhaul.identity.names import ServiceName
from keyhaul.randomness import Source, random_bytes
from keyhaul.transport.channel import ChannelSettings
from keyhaul.transport.dialling import Dialler
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.limits import Budget
from keyhaul.transport.metrics import TransportMetrics
from keyhaul.transport.serving import Alarm, Service, ServingWire
from keyhaul.transport.tls import TlsContext
from keyhaul.transport.tls_policy import REVERSE


class ReverseChannel:
    """A persistent connection that this service dials and on which the peer calls."""

    def __init__(
        self,
        own: ServiceName,
        peer: ServiceName,
        address: str,
        tls: TlsContext,
        routes: Routes,
        *,
        registry: CollectorRegistry | None = None,
        alarm: Alarm | None = None,
        settings: ChannelSettings | None = None,
        source: Source = random_bytes,
    ) -> None:
        """Prepare the channel; `start` dials.

        Args:
            own: this service, the server of the calls.
            peer: who must answer at the address, and who calls.
            address: the peer's HTTP/2 address.
            tls: `tls.service_client`.
            routes: the handlers.
            registry: where connections and requests are counted.
            alarm: told of forbidden calls.
            settings: times and bounds.
            source: of the jitter between attempts.
        """
        self._settings = settings or ChannelSettings()
        self._metrics = TransportMetrics.on(registry)
        self._service = Service(own, routes, metrics=self._metrics, alarm=alarm)
        self._budget = Budget(self._settings.held)
        self._dialler = Dialler(
            own.domain,
            peer,
            address,
            tls.offering(REVERSE),
            self._make,
            settings=self._settings.dial,
            metrics=self._metrics,
            source=source,
        )

    @property
    def connected(self) -> bool:
        """Whether the peer can call at this moment."""
        return self._dialler.wire is not None

    async def start(self) -> None:
        """Begin to dial; returns at once."""
        self._dialler.start()

    async def close(self) -> None:
        """Refuse further calls, let handlers finish for a moment, close the connection."""
        await self._dialler.close()

    def _make(self, peer: Peer) -> ServingWire:
        return ServingWire(
            peer,
            self._service,
            settings=self._settings.wire,
            budget=self._budget,
            metrics=self._metrics,
            direction="dialled",
        )
