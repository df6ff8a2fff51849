"""What the controller shows to Prometheus, gathered when it is asked for. No user is known here."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controller.service import ControllerService
from controller.telemetry import NodeState
from controller.watching import counted


class ControllerCollector(Collector):
    """Reads the figures of one controller."""

    def __init__(self, service: ControllerService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """All figures."""
        yield from self._leading()
        yield from self._telemetry()
        yield from self._network()
        yield from self._demands()

    def _leading(self) -> Iterator[Metric]:
        leader = self._service.leader()
        yield GaugeMetricFamily("keyhaul_controller_leads", "Whether this controller leads.", float(leader.leads))
        yield GaugeMetricFamily("keyhaul_controller_epoch", "In which it leads; 0: it does not.", leader.epoch or 0)
        told = CounterMetricFamily(
            "keyhaul_controller_tells", "Sets of statements by what became of them.", labels=("result",)
        )
        for result, number in self._service.outcomes.items():
            told.add_metric((result.value,), number)
        yield told

    def _telemetry(self) -> Iterator[Metric]:
        telemetry = self._service.telemetry
        states = [node.state for node in telemetry.nodes.values()]
        nodes = GaugeMetricFamily("keyhaul_controller_nodes", "Planned CKMSs by state.", labels=("state",))
        for state in NodeState:
            nodes.add_metric((state.value,), states.count(state))
        yield nodes
        yield CounterMetricFamily("keyhaul_controller_telemetry_messages", "Messages of telemetry.", telemetry.messages)
        yield CounterMetricFamily(
            "keyhaul_controller_telemetry_unreadable", "Values that made no sense.", telemetry.unreadable
        )
        yield CounterMetricFamily(
            "keyhaul_controller_missed_seconds",
            "Time in which it had so much to do that it did not listen to nodes.",
            self._service.listening.missed,
        )
        ended = CounterMetricFamily(
            "keyhaul_controller_subscriptions_ended", "Subscriptions that ended, by how.", labels=("how",)
        )
        for how, number in telemetry.failures.items():
            ended.add_metric((how,), number)
        yield ended

    def _network(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "keyhaul_controller_discovery_seconds", "What the last discovery took.", self._service.watching.seconds
        )
        found = self._service.discovery()
        if found is None:
            return
        links = GaugeMetricFamily("keyhaul_controller_links", "Planned links by what was found.", labels=("state",))
        for state, number in counted(found).items():
            links.add_metric((state.value,), number)
        yield links
        up = sum(link.up for link in found.view.links)
        yield GaugeMetricFamily("keyhaul_controller_links_up", "Links that may be used.", up)
        yield GaugeMetricFamily("keyhaul_controller_disagreements", "What is not as planned.", len(found.disagreements))
        yield GaugeMetricFamily("keyhaul_controller_quarantined", "Nodes.", len(self._service.quarantined()))

    def _demands(self) -> Iterator[Metric]:
        demands = self._service.demands()
        served = sum(one.is_served for one in demands)
        yield GaugeMetricFamily("keyhaul_controller_demands", "Demands of CKMSs.", len(demands))
        yield GaugeMetricFamily("keyhaul_controller_demands_served", "Those that have paths.", served)
