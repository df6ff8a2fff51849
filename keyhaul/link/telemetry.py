"""What is counted and alarmed about links: no key bits, no key IDs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from keyhaul.runtime.interface import Runtime

REPEATED_BURNS = 3
"""So many burns of one link, within `REPEATED_WITHIN` seconds, are alarmed: somebody may be draining it."""
REPEATED_WITHIN = 600.0

_ALARMS = {
    "authentication": "link-authentication-failed",
    "replayed": "link-message-replayed",
    "pad-spent": "link-pad-spent",
    "suite": "link-suite-refused",
}


class LinkMetrics:
    """The metrics of all links of a service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"keyhaul_link_{name}", text, ("link", *labels), registry=registry)

        self.sessions = counter("sessions", "Sessions established")
        self.rejected = counter("rejected", "Messages of the neighbour that were refused", "reason")
        self.burned = counter("burned_bytes", "Bytes of pad burned", "direction")
        self.refills = counter("refills", "Blocks of pad confirmed", "direction")
        self.refilled = counter("refilled_bytes", "Bytes of pad confirmed", "direction")
        self.mismatches = counter("mismatches", "Offered blocks whose bits differed at the two ends")
        self.missing = counter("missing_keys", "Offered keys that the other end's module did not have")
        self.exchanges = counter("control_exchanges", "Refill and lease exchanges begun by this end")
        self.available = Gauge(
            "keyhaul_link_available_bytes",
            "Bytes of pad that are left",
            ("link", "direction", "stream"),
            registry=registry,
        )


class Telemetry:
    """One link's share of the metrics, and its alarms."""

    def __init__(self, link: str, metrics: LinkMetrics, runtime: Runtime, clock: Callable[[], float]) -> None:
        self.link = link
        self.sessions = 0
        """Sessions established since the start."""
        self.rejected = 0
        """Messages refused since the start."""
        self._metrics = metrics
        self._runtime = runtime
        self._clock = clock
        self._burns: deque[float] = deque(maxlen=REPEATED_BURNS)
        self._watched: list[tuple[str, str]] = []

    def established(self) -> None:
        """A session stands."""
        self.sessions += 1
        self._metrics.sessions.labels(self.link).inc()

    def refused(self, reason: str, detail: str = "") -> None:
        """A message of the neighbour was refused; some reasons are alarmed."""
        self.rejected += 1
        self._metrics.rejected.labels(self.link, reason).inc()
        if reason in _ALARMS:
            self._runtime.alarm(_ALARMS[reason], link=self.link, detail=detail)

    def burned(self, direction: str, count: int) -> None:
        """Pad was burned outside of the normal course."""
        if count:
            self._metrics.burned.labels(self.link, direction).inc(count)

    def burn_event(self) -> None:
        """A new session burned pad; repeated, that is alarmed."""
        now = self._clock()
        self._burns.append(now)
        if len(self._burns) == REPEATED_BURNS and now - self._burns[0] <= REPEATED_WITHIN:
            self._runtime.alarm("link-burns-repeated", link=self.link, burns=REPEATED_BURNS)
            self._burns.clear()

    def restored(self, direction: str, whose: str) -> None:
        """The sender's or receiver's store is older than the other end's record: the lane was burned."""
        self._runtime.alarm("link-store-restored", link=self.link, direction=direction, older=whose)

    def mismatched(self) -> None:
        """The modules' bits of an offered block differ, or its confirmation was changed under way."""
        self._metrics.mismatches.labels(self.link).inc()
        self._runtime.alarm("link-block-mismatch", link=self.link)

    def corrupt(self, direction: str, blocks: int) -> None:
        """Stored blocks could not be opened; they are burned."""
        self._runtime.alarm("link-blocks-corrupt", link=self.link, direction=direction, blocks=blocks)

    def exchanged(self) -> None:
        """A refill and lease exchange begins."""
        self._metrics.exchanges.labels(self.link).inc()

    def refilled(self, direction: str, count: int) -> None:
        """A block of `count` bytes was confirmed."""
        self._metrics.refills.labels(self.link, direction).inc()
        self._metrics.refilled.labels(self.link, direction).inc(count)

    def missing(self, keys: int) -> None:
        """The other end's module did not have some keys; both ends burned them."""
        if keys:
            self._metrics.missing.labels(self.link).inc(keys)

    def watch(self, direction: str, stream: str, level: Callable[[], float]) -> None:
        """Read a gauge from the stream itself, when it is asked for."""
        self._metrics.available.labels(self.link, direction, stream).set_function(level)
        self._watched.append((direction, stream))

    def forget(self) -> None:
        """There is no such link any more: what is counted stays, what is measured goes."""
        while self._watched:
            self._metrics.available.remove(self.link, *self._watched.pop())
