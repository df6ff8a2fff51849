"""Prometheus metrics of a node's modules, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.qkdm.module import Module


class ModuleCollector(Collector):
    """Turns the modules' facts into metrics, by link."""

    def __init__(self, modules: Mapping[str, Module]) -> None:
        self._modules = modules

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        generated = CounterMetricFamily("keyhaul_qkdm_keys_generated", "Keys distilled or received.", labels=["link"])
        dropped = CounterMetricFamily("keyhaul_qkdm_keys_dropped", "Keys not kept.", labels=["link", "reason"])
        delivered = CounterMetricFamily("keyhaul_qkdm_keys_delivered", "Keys delivered.", labels=["link", "method"])
        stored = GaugeMetricFamily("keyhaul_qkdm_keys_stored", "Keys in store.", labels=["link", "method"])
        rate = GaugeMetricFamily("keyhaul_qkdm_skr_bits_per_second", "Secret key rate of late.", labels=["link"])
        qber = GaugeMetricFamily("keyhaul_qkdm_qber_ratio", "Quantum bit error ratio of late.", labels=["link"])
        cut = GaugeMetricFamily("keyhaul_qkdm_cut", "Whether the link is cut.", labels=["link"])
        in_step = GaugeMetricFamily("keyhaul_qkdm_synchronised", "Whether the pair is in step.", labels=["link"])
        for module in tuple(self._modules.values()):
            facts, link = module.facts(), module.link
            generated.add_metric([link], facts["generated"])
            for reason, count in facts["dropped"].items():
                dropped.add_metric([link, reason], count)
            for method, count in facts["delivered"].items():
                delivered.add_metric([link, method], count)
            for method, count in facts["stored"].items():
                stored.add_metric([link, method], count)
            rate.add_metric([link], facts["rate"])
            qber.add_metric([link], facts["qber"])
            cut.add_metric([link], facts["cut"])
            in_step.add_metric([link], facts["synchronised"])
        yield from (generated, dropped, delivered, stored, rate, qber, cut, in_step)
