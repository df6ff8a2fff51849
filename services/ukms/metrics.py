"""What a UKMS counts. No label names a user."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.ukms.buffers import Buffers

TIMES = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one UKMS."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "keyhaul_ukms_sae_requests", "Requests of SAEs", ["method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "keyhaul_ukms_sae_request_seconds", "Time to answer an SAE", ["method"], buckets=TIMES, registry=registry
        )
        self.connections = Gauge("keyhaul_ukms_sae_connections", "Connections of SAEs", registry=registry)
        self.connections_refused = Counter(
            "keyhaul_ukms_sae_connections_refused", "Connections beyond the limit", registry=registry
        )
        self.issued = Counter("keyhaul_ukms_keys_issued", "Keys handed out", ["side"], registry=registry)
        self.pushed = Counter("keyhaul_ukms_keys_pushed", "Keys that came from the AKMS", registry=registry)
        self.voided = Counter("keyhaul_ukms_keys_voided", "Keys withdrawn before they were issued", registry=registry)
        self.expired = Counter("keyhaul_ukms_keys_expired", "Key copies that expired", registry=registry)
        self.withdrawn = Counter(
            "keyhaul_ukms_keys_withdrawn", "Expired keys whose withdrawal the AKMS took", registry=registry
        )
        self.requests_failed = Counter(
            "keyhaul_ukms_key_requests_failed", "Requests to the AKMS that failed", ["reason"], registry=registry
        )
        self.given_up = Counter(
            "keyhaul_ukms_keys_given_up", "Key copies of a store that was an older copy", registry=registry
        )
        self.open = Gauge("keyhaul_ukms_open", "1 once the AKMS has told what it knows of the store", registry=registry)
        self.buffered = Gauge("keyhaul_ukms_keys_buffered", "Keys at hand in all buffers", registry=registry)
        self.waiting = Gauge("keyhaul_ukms_sae_requests_waiting", "Requests that wait for keys", registry=registry)
        self.buffers = Gauge("keyhaul_ukms_buffers", "Buffers", registry=registry)

        self._answers: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def answered(self, method: str, status: int, seconds: float) -> None:
        """A request of an SAE was answered."""
        found = self._answers.get((method, status))
        if found is None:
            found = self.requests.labels(method, status), self.seconds.labels(method)
            self._answers[method, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def observe(self, buffers: Buffers) -> None:
        """Take the figures of the buffers."""
        self.buffers.set(len(buffers))
        self.buffered.set(sum(buffer.stored for buffer in buffers))
        self.waiting.set(sum(buffer.waiting for buffer in buffers))
