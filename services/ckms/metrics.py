"""What is counted at a carrier KMS; read from the parts' own figures only when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from services.ckms.carrier import Carrier
from services.ckms.relay import Relay
from services.ckms.requesting import PathRequests
from services.ckms.steering import Steering


class CarrierCollector(Collector):
    """The relay's and the carrier's figures as metrics."""

    def __init__(self, relay: Relay, carrier: Carrier) -> None:
        self._relay = relay
        self._carrier = carrier

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its present value."""
        counts = self._relay.counts
        yield CounterMetricFamily("keyhaul_ckms_submitted", "Batches taken from the AKMS", value=counts.submitted)
        yield CounterMetricFamily("keyhaul_ckms_forwarded", "Batches sent to a next hop", value=counts.forwarded)
        yield CounterMetricFamily("keyhaul_ckms_forwarded_bytes", "CN key bytes sent on", value=counts.bytes)
        yield CounterMetricFamily("keyhaul_ckms_delivered", "Batches that the AKMS took", value=counts.delivered)
        yield CounterMetricFamily("keyhaul_ckms_duplicates", "Batches that came twice", value=counts.duplicates)
        yield CounterMetricFamily("keyhaul_ckms_detoured", "Batches sent around a link", value=counts.detoured)
        yield CounterMetricFamily(
            "keyhaul_ckms_stray_acknowledgements", "Acknowledgements for nothing in flight", value=counts.strays
        )
        yield CounterMetricFamily("keyhaul_ckms_divided", "Batches of the AKMS sent in shares", value=counts.divided)
        yield CounterMetricFamily("keyhaul_ckms_divided_bytes", "CN key bytes of these", value=counts.divided_bytes)
        yield CounterMetricFamily("keyhaul_ckms_share_bytes", "Bytes of their shares", value=counts.share_bytes)
        combining = self._relay.combining
        yield CounterMetricFamily("keyhaul_ckms_combined", "Batches put together of shares", value=combining.completed)
        spoiled = CounterMetricFamily("keyhaul_ckms_shares_spoiled", "Shares given up, by reason", labels=["reason"])
        for reason_given, given in combining.spoiled.items():
            spoiled.add_metric([reason_given.value], given)
        yield spoiled
        yield GaugeMetricFamily("keyhaul_ckms_shares_waiting", "Shares that wait for others", value=combining.waiting)
        failures = CounterMetricFamily("keyhaul_ckms_failures", "Batches that failed, by reason", labels=["reason"])
        for reason, number in counts.failures.items():
            failures.add_metric([reason.value], number)
        yield failures
        labels = ["neighbour", "service_class"]
        policed = CounterMetricFamily("keyhaul_ckms_policed", "Batches beyond what a path may carry", labels=labels)
        policed_bytes = CounterMetricFamily("keyhaul_ckms_policed_bytes", "Bytes of such batches", labels=labels)
        for place, number_of in sorted(self._relay.police.policed.items()):
            policed.add_metric(place, number_of.batches)
            policed_bytes.add_metric(place, number_of.bytes)
        yield policed
        yield policed_bytes
        lost = CounterMetricFamily("keyhaul_ckms_lost", "Answers that nobody took in time", labels=["answer"])
        lost.add_metric(["acknowledgement"], self._carrier.acknowledgements_lost)
        lost.add_metric(["outcome"], self._carrier.outcomes_lost)
        yield lost
        yield GaugeMetricFamily(
            "keyhaul_ckms_in_flight", "Batches that wait for their outcome", value=self._relay.in_flight
        )


class PriceCollector(Collector):
    """What CN keys cost that are submitted here, as the controller told with their paths."""

    def __init__(self, requests: PathRequests) -> None:
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its present value."""
        labels = ["destination", "service_class"]
        paid = GaugeMetricFamily(
            "keyhaul_ckms_link_key_price", "Bits of link key for each bit of CN key while nothing fails", labels=labels
        )
        single = GaugeMetricFamily(
            "keyhaul_ckms_link_key_price_undivided", "The same over the best single path, of class split", labels=labels
        )
        for demand, price in self._requests.prices.items():
            paid.add_metric([demand.destination, demand.service_class], price.paid)
            if price.undivided:
                single.add_metric([demand.destination, demand.service_class], price.undivided)
        yield paid
        yield single


class SteeringCollector(Collector):
    """What the controller said, and how this CKMS stands with it."""

    def __init__(self, steering: Steering) -> None:
        self._steering = steering

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its present value."""
        steering = self._steering
        now = steering.now()
        held = Counter(
            "draining" if each.drained is not None else "lapsed" if not each.remaining(now) else "standing"
            for each in steering.held.values()
        )
        statements = GaugeMetricFamily(
            "keyhaul_ckms_statements", "Statements in force; lapsed: beyond their lifetime", labels=["state"]
        )
        for state in ("standing", "draining", "lapsed"):
            statements.add_metric([state], held[state])
        yield statements
        yield CounterMetricFamily("keyhaul_ckms_statements_accepted", "Statements accepted", value=steering.accepted)
        refused = CounterMetricFamily(
            "keyhaul_ckms_statements_refused", "Sets of statements refused, by reason", labels=["reason"]
        )
        for reason, number in sorted(steering.refusals.items()):
            refused.add_metric([reason.value], number)
        yield refused
        high = steering.high
        yield GaugeMetricFamily(
            "keyhaul_ckms_statement_epoch", "Epoch of the last leader that was accepted", high.epoch
        )
        yield GaugeMetricFamily("keyhaul_ckms_statement_serial", "Serial accepted last in this epoch", high.serial)
        yield GaugeMetricFamily(
            "keyhaul_ckms_in_doubt", "Whether only statements for this very process are accepted", int(high.doubt)
        )
        yield GaugeMetricFamily(
            "keyhaul_ckms_controller_heard", "Whether a leading controller was heard of late", int(steering.in_contact)
        )
