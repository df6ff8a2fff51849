"""The controller's deciding by itself: discovery and the steering core over a network, without sockets, keys or disks.

Every CKMS takes at once whatever it is told, so that what passes is what the controller itself needs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import count

from bench.nets import Net
from controller.facts import LinkFacts, NodeReport, PoolFacts, Received
from controller.planned import planned
from controller.steering.effects import Memory, Read, Tell
from controller.steering.steering import Steering
from controller.topology import discover
from keyhaul.config.carrier import CarrierLink


class Alone:
    """A core that leads, with a network that works."""

    def __init__(self, net: Net) -> None:
        plan = net.plan(dict.fromkeys((node for node, _ in net.nodes), "127.0.0.1:1"))
        self._plan = planned(plan.nodes, plan.links)
        self._links = {link.id: link for link in net.links}
        self._now = 100.0
        self._serials = count(1)
        self._reports: dict[str, NodeReport] = {}
        for node, _ in net.nodes:
            own = [link for link in net.links if node in (link.a, link.b)]
            self._reports[node] = self._report(node, {_other(link, node): _facts(link, node) for link in own})
        self._found = discover(self._plan, self._reports, self._now)
        self.steering = Steering()
        self.steering.led(1, Memory(), self._now)
        self.steering.see(self._found, self._now)
        for node in self._reports:
            self.steering.appeared(node, "00" * 16, self._now)
        self._settle()

    def want(self, demands: Iterable[tuple[str, str]], service_class: str, rate: float) -> None:
        """Install paths for these demands, in bytes a second."""
        for source, destination in demands:
            self.steering.wanted(source, destination, service_class, rate, None, self._now)
        self._settle()

    def cut(self, link: str, *, cut: bool = True) -> tuple[float, float]:
        """Cut a link, or mend it.

        Returns:
            seconds until all that follows at once is decided, and until all of it was installed.
        """
        plan = self._links[link]
        for node in (plan.a, plan.b):
            facts = {other: received.facts for other, received in self._reports[node].links.items()}
            facts[_other(plan, node)] = replace(facts[_other(plan, node)], up=not cut)
            self._reports[node] = self._report(node, facts)
        begin = time.perf_counter()
        self._found = discover(self._plan, self._reports, self._now, self._found, changed={plan.a, plan.b})
        self.steering.see(self._found, self._now)
        while self.steering.behind:
            self.steering.go_on(self._now)
        decided = time.perf_counter() - begin
        self._settle()
        return decided, time.perf_counter() - begin

    def _report(self, node: str, facts: dict[str, LinkFacts]) -> NodeReport:
        links = {other: Received(one, self._now) for other, one in facts.items()}
        return NodeReport(node, self._now, node, links=links)

    def _settle(self) -> None:
        """Have everything taken that the core wants to say, until it says nothing more."""
        while True:
            while self.steering.behind:
                self.steering.go_on(self._now)
            if not (effects := self.steering.effects()):
                return
            for effect in effects:
                if isinstance(effect, Tell):
                    serials = tuple(next(self._serials) for _ in effect.says)
                    self.steering.confirmed(effect.sending, serials, self._now)
                elif isinstance(effect, Read):
                    self.steering.found(effect.reading, "00" * 16, (), self._now)


def _other(link: CarrierLink, node: str) -> str:
    return link.b if node == link.a else link.a


def _facts(link: CarrierLink, node: str) -> LinkFacts:
    capacity = link.capacity / 8
    pool = PoolFacts(available=capacity, capacity=capacity)
    return LinkFacts(
        link.id,
        _other(link, node),
        up=True,
        quantum=True,
        suite=link.suites[0],
        suites=frozenset(link.suites),
        rate=link.rate,
        outgoing=pool,
        incoming=pool,
    )
