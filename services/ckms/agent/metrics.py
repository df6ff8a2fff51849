"""What is counted at the agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


class Counted(Protocol):
    """The agent, as far as it is counted (`services.ckms.agent.agent.Agent`)."""

    @property
    def subscriptions(self) -> int:
        """How many Subscribe RPCs stand."""
        ...

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections came, and how many of them came to an RPC."""
        ...

    @property
    def refusals(self) -> Mapping[str, int]:
        """RPCs that were refused, by the name of the status code."""
        ...


class AgentCollector(Collector):
    """The agent's figures as metrics."""

    def __init__(self, agent: Counted) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its present value."""
        yield GaugeMetricFamily("keyhaul_gnmi_subscriptions", "Subscriptions that stand", self._agent.subscriptions)
        came, proved = self._agent.connections
        yield CounterMetricFamily("keyhaul_gnmi_handshakes", "Connections that came: TLS handshakes begun", came)
        yield CounterMetricFamily("keyhaul_gnmi_connections", "Connections that came to an RPC", proved)
        refused = CounterMetricFamily("keyhaul_gnmi_refused", "RPCs refused, by status code", labels=["code"])
        for code, number in sorted(self._agent.refusals.items()):
            refused.add_metric([code], number)
        yield refused
