"""What is counted of connections and calls. Labels are roles, operations and reasons, never names of anybody."""

from __future__ import annotations

from typing import Self
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge


class TransportMetrics:
    """The counters of all listeners and channels of a process."""

    _made: WeakKeyDictionary[CollectorRegistry, TransportMetrics] = WeakKeyDictionary()

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connections = Gauge(
            "keyhaul_transport_connections", "Connections that stand", ["direction", "role"], registry=registry
        )
        self.handshake_failures = Counter(
            "keyhaul_transport_handshake_failures", "TLS handshakes that failed", ["reason"], registry=registry
        )
        self.dials = Counter(
            "keyhaul_transport_dials", "Attempts to reach a peer", ["role", "outcome"], registry=registry
        )
        self.requests = Counter(
            "keyhaul_transport_requests",
            "Requests served, by their outcome",
            ["operation", "outcome"],
            registry=registry,
        )
        self.refused = Counter(
            "keyhaul_transport_refused", "Requests refused before a handler saw them", ["reason"], registry=registry
        )
        self.floods = Counter(
            "keyhaul_transport_floods",
            "Connections closed because the peer exceeded a limit",
            ["kind"],
            registry=registry,
        )

    @classmethod
    def on(cls, registry: CollectorRegistry | None) -> Self:
        """Return the counters on a registry, made at first use; without one they are counted for nobody."""
        if registry is None:
            return cls(CollectorRegistry())
        made = cls._made.get(registry)
        if made is None:
            made = cls._made[registry] = cls(registry)
        return made  # type: ignore[return-value]
