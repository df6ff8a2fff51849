"""What an AKMS counts for operators. No label names a user, an SAE or a key."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """The metrics of one AKMS."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.batches = Counter(
            "keyhaul_akms_batches", "KSA batches by part and outcome", ["part", "outcome"], registry=registry
        )
        self.keys = Counter("keyhaul_akms_keys_released", "KSA keys released to a master's UKMS", registry=registry)
        self.failures = Counter("keyhaul_akms_failures", "Requests that failed", ["reason"], registry=registry)
        self.beyond_rate = Counter(
            "keyhaul_akms_keys_beyond_rate", "Keys refused because a contract's rate was exceeded", registry=registry
        )
        self.cn_batches = Counter("keyhaul_akms_cn_batches", "CN batches by outcome", ["outcome"], registry=registry)
        self.cn_bytes = Gauge(
            "keyhaul_akms_cn_bytes", "Confirmed CN bytes in a pool", ["peer", "service_class"], registry=registry
        )
        self.usage = Gauge("keyhaul_akms_usage_unacknowledged", "Usage lines that AAA has not taken", registry=registry)
        self.errands = Counter(
            "keyhaul_akms_errands", "Durable errands by outcome", ["kind", "outcome"], registry=registry
        )
        self.traced = Counter(
            "keyhaul_akms_batches_traced", "Batches without a record here by outcome", ["outcome"], registry=registry
        )
        self.restored = Counter(
            "keyhaul_akms_batches_restored", "Batches recorded again from another AKMS", registry=registry
        )
        self.exposed = Gauge(
            "keyhaul_akms_exposed_keys_issued", "Keys made under exposed CN bits that were issued", registry=registry
        )
