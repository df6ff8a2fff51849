"""A controller as the northbound operations see it: real discovery, admission, reservations and events, no CKMS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from controller.admission.admit import Admission, Demand, admit
from controller.admission.reservations import Reservations
from controller.facts import LinkFacts, NodeReport, PoolFacts, Received
from controller.journal import Journal
from controller.northbound.interface import DemandAsKept, Leader, PathAsKept, PathState
from controller.planned import PlannedLink, PlannedNetwork, PlannedNode
from controller.state import events, plans
from controller.state.leading import NotLeading
from controller.state.rollup import Key, Summary
from controller.topology import Discovery, discover
from controller.view import Link
from keyhaul.database.database import Database
from keyhaul.randomness import identifier

SUITES = frozenset({"otp", "aes-256-gcm"})
PAIRS = (("2", "8"), ("8", "9"), ("8", "16"), ("9", "16"), ("9", "14"))
ACCESS = frozenset({"2", "14"})
CAPACITY = 8_000_000


def planned(pairs: Iterable[tuple[str, str]] = PAIRS, **of_links: Any) -> PlannedNetwork:
    """Berlin (2) to Bonn (14), with node 16 as the way round link 8-9."""
    several = list(pairs)
    names = dict.fromkeys(name for pair in several for name in pair)
    return PlannedNetwork(
        tuple(PlannedNode(f"ckms-{name}", access=name in ACCESS, jurisdiction="DE") for name in names),
        tuple(
            replace(
                PlannedLink(
                    f"{a}-{b}",
                    f"ckms-{a}",
                    f"ckms-{b}",
                    rate=10_000,
                    capacity=CAPACITY,
                    suites=SUITES,
                    risk_groups=frozenset({"bridge"}) if "9" in (a, b) and b != "14" else frozenset(),
                ),
                **of_links,
            )
            for a, b in several
        ),
    )


def reports(network: PlannedNetwork, at: float, *, silent: Iterable[str] = ()) -> dict[str, NodeReport]:
    """What its nodes tell, if all is as planned."""
    told: dict[str, dict[str, Received]] = {node.id: {} for node in network.nodes}
    for link in network.links:
        pool = PoolFacts(available=link.capacity / 8, capacity=link.capacity / 8)
        for own, other in ((link.a, link.b), (link.b, link.a)):
            facts = LinkFacts(
                link.id,
                other,
                up=True,
                quantum=link.quantum,
                suite="otp",
                suites=link.suites,
                rate=link.rate,
                qber=0.0213,
                latency_us=700,
                outgoing=pool,
                incoming=pool,
            )
            told[own][other] = Received(facts, at)
    return {
        node: NodeReport(node, at, service_id=node, links=links) for node, links in told.items() if node not in silent
    }


class Scene:
    """Implements `controller.northbound.interface.Controller`."""

    def __init__(self, database: Database, network: PlannedNetwork | None = None) -> None:
        self.database = database
        self.network = network or planned()
        self.promised = Reservations()
        self.kept: list[DemandAsKept] = []
        self.leads = True
        self.found: Discovery | None = discover(self.network, reports(self.network, 0.0), 0.0)
        self._told = asyncio.Event()
        self.waiters = 0
        """Who waits for events, or waited."""
        database.transact(lambda c: plans.apply(c, self.network, "a" * 64))

    def take_on(self, identity: str, service_class: str, rate: int, source: str = "2", target: str = "14") -> Admission:
        """Admit a demand, as the controller would."""
        assert self.found is not None
        demand = Demand(identity, f"ckms-{source}", f"ckms-{target}", service_class, rate)
        answer = admit(self.promised.onto(self.found.view), self.promised, demand, 0.0)
        assert isinstance(answer, Admission)
        self.promised.reserve(self.found.view, answer.lease(identity, 60.0))
        states = [PathAsKept(path, rank, PathState.INSTALLED) for rank, path in enumerate(answer.paths)]
        self.kept.append(DemandAsKept(demand, tuple(states), since_s=12.5))
        return answer

    def tell(self, kind: str, subject: str, **facts: Any) -> int:
        """Record an event, as the controller would."""
        number = self.database.transact(lambda c: events.tell(c, kind, subject, facts, identifier()))
        told, self._told = self._told, asyncio.Event()
        told.set()
        return number

    def leader(self) -> Leader:
        return Leader(self.leads, 7 if self.leads else None, "127.233.0.16:7446", False, 125.0 if self.leads else 0.0)

    def plan_version(self) -> int:
        return 1

    def discovery(self) -> Discovery | None:
        return self.found

    def reservations(self) -> Reservations:
        return self.promised

    def demands(self) -> Sequence[DemandAsKept]:
        return tuple(self.kept)

    def quarantined(self) -> Mapping[str, str]:
        return self.database.transact(plans.quarantined)

    async def position(self) -> int:
        return self.database.transact(events.position)

    async def events(self, after: int, most: int) -> Sequence[events.Event]:
        return self.database.transact(lambda c: events.after(c, after, most))

    async def event_told(self) -> None:
        self.waiters += 1
        await self._told.wait()

    async def measured(self, link: Link, level: int, count: int) -> Mapping[Key, Summary]:
        return await Journal(self.database).measured(link, level, count)

    async def quarantine(self, node: str, reason: str) -> int:
        self._as_leader()
        self.database.transact(lambda c: plans.quarantine(c, node, reason))
        return len(self.kept)

    async def release(self, node: str) -> bool:
        self._as_leader()
        return self.database.transact(lambda c: plans.release(c, node))

    def _as_leader(self) -> None:
        if not self.leads:
            raise NotLeading("this controller does not lead")
