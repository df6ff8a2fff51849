"""A controller in one process with the CKMSs that it steers: gNMI, TLS and the database are real."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from controller.paths.policies import Policy
from controller.plan_file import PlanFile
from controller.service import ControllerService
from controller.state.database import open_database
from controller.state.lease import Terms
from keyhaul.config.carrier import CarrierLink, CarrierNode, CarrierPlan, encode
from services.ckms.forwarding import Hop
from services.ckms.forwarding import Path as CarrierPath
from tests.controller.agents import CONTROLLER, KEY, Agent, link
from tests.keyhaul.agents.gnmi.pki import Twins

LINKS = {"a-m": "am", "m-b": "mb", "a-d": "ad", "d-b": "db"}
"""A diamond: from a to b over m, or over d."""
TERMS = Terms(lease=0.9, renew=0.2, margin=0.2)


class FakeRuntime:
    """Keeps what a controller tells its process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.alarms: list[tuple[str, dict[str, Any]]] = []
        self.tasks: list[asyncio.Task[None]] = []

    def task(self, work: Any, name: str) -> asyncio.Task[None]:
        self.tasks.append(asyncio.get_running_loop().create_task(work, name=name))
        return self.tasks[-1]

    def alarm(self, name: str, **facts: Any) -> None:
        self.alarms.append((name, facts))

    def ready(self) -> None:
        raise AssertionError("that is the role's to say")

    health = command = on_reload = ready


@dataclass
class Net:
    """Agents, the plan's file, and controllers."""

    folder: Path
    url: str
    twins: Twins
    agents: dict[str, Agent] = field(default_factory=dict)
    running: dict[ControllerService, asyncio.Task[None]] = field(default_factory=dict)
    databases: list[Any] = field(default_factory=list)

    def write_plan(self, links: dict[str, str] = LINKS) -> None:
        plan = CarrierPlan(
            network="test",
            nodes=tuple(
                CarrierNode(id=node, target=agent.address, access=node != "ckms-m")
                for node, agent in self.agents.items()
            ),
            links=tuple(
                CarrierLink(
                    id=identity,
                    a=f"ckms-{ends[0]}",
                    b=f"ckms-{ends[1]}",
                    rate=100_000,
                    capacity=540_672,
                    suites=("aes-256-gcm", "otp"),
                )
                for identity, ends in links.items()
            ),
        )
        (self.folder / "plan.json").write_bytes(encode(plan))

    async def start_agents(self) -> None:
        for node in "ambd":
            ends = {identity: pair.replace(node, "") for identity, pair in LINKS.items() if node in pair}
            links = {f"ckms-{other}": link(identity) for identity, other in ends.items()}
            self.agents[f"ckms-{node}"] = Agent(f"ckms-{node}", links, self.twins)
        for agent in self.agents.values():
            await agent.start()

    def controller(self, number: int = 1) -> ControllerService:
        folder = self.folder / f"controller-{number}"
        folder.mkdir(exist_ok=True)
        database = open_database(self.url, folder)
        self.databases.append(database)
        plan_file = PlanFile(self.folder / "plan.json")
        runtime: Any = FakeRuntime()
        service = ControllerService(
            CONTROLLER,
            database,
            f"controller-{number}",
            KEY,
            self.twins.files(CONTROLLER, crl=False),
            (plan_file, plan_file.read()),
            Policy.RESIDUAL,
            runtime,
            TERMS,
        )
        self.running[service] = asyncio.get_running_loop().create_task(service.run())
        return service

    async def stop(self, service: ControllerService) -> None:
        """End a controller in order."""
        task = self.running.pop(service)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    def set_link(self, one: str, other: str, **facts: Any) -> None:
        """Change what both ends tell of a link."""
        for node, neighbour in ((one, other), (other, one)):
            agent = self.agents[f"ckms-{node}"]
            agent.links[f"ckms-{neighbour}"] |= facts
            agent.told()

    def way(self, path: CarrierPath) -> list[str]:
        """Follow a path from ckms-a through what is in force; the nodes after it."""
        here, passed = "ckms-a", list[str]()
        hop: Hop | None = path.first
        while hop is not None:
            entry = next(
                entry
                for entry in self.agents[hop.neighbour].entries
                if (entry.previous, entry.label) == (here, hop.label)
            )
            here, hop = hop.neighbour, entry.next
            passed.append(here)
        return passed

    def ways(self) -> list[list[str]]:
        """Where the paths of ckms-a to ckms-b lead, by rank."""
        return [self.way(path) for path in sorted(self.agents["ckms-a"].paths, key=lambda path: path.rank)]

    async def close(self) -> None:
        for service in tuple(self.running):
            await self.stop(service)
        for agent in self.agents.values():
            await agent.stop()
        for database in self.databases:
            database.close()
