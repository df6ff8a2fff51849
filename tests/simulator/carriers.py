"""The carrier KMS as a simulated process: what its role puts together, steered by controllers or its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, cast

from keyhaul.agents.gnmi.limits import Limits
from keyhaul.agents.gnmi.models import ckms
from keyhaul.agents.gnmi.peers import Peers
from keyhaul.agents.gnmi.schema import Schema
from keyhaul.agents.gnmi.target import Target
from keyhaul.agents.gnmi.tree import DataTree
from keyhaul.link.interface import LinkCalls
from keyhaul.link.links import Links
from services.ckms.agent.facts import CarrierFacts, Node, TellingLink
from services.ckms.agent.modules import Modules, Watched
from services.ckms.agent.writer import StatementWriter
from services.ckms.asking import Asking
from services.ckms.carrier import Carrier
from services.ckms.choice import PathChoice
from services.ckms.exposing import Exposing
from services.ckms.forwarding import Entry, ForwardingTable, Hop, Path, PathLabel
from services.ckms.installed import Installed
from services.ckms.own_time import Reading
from services.ckms.relay import Relay
from services.ckms.requesting import PathRequests
from services.ckms.schema import SCHEMA
from services.ckms.statement_store import StatementStore
from services.ckms.steering import Steering
from tests.simulator.gnmi import SimulatedPeers
from tests.simulator.modules import SimulatedModule
from tests.simulator.processes import SimulatedProcess

if TYPE_CHECKING:
    from tests.simulator.world import World

LIMITS = Limits(look=0.5)
"""Looking for changes ten times a second, as a CKMS does, would cost more than all else."""

ROUND_TRIP = 0.004
"""Seconds, as told of every link."""

HARD_LIMIT = 604_800.0
"""Seconds for which statements live on without a controller."""

_SCHEMA = Schema([ckms.MODULE])


class CkmsProcess(SimulatedProcess):
    """A carrier KMS."""

    metadata = SCHEMA.metadata
    links: Links
    table: ForwardingTable
    target: Target
    """Of the controllers' calls."""

    def __init__(self, world: World, service: str) -> None:
        super().__init__(world, service)
        self.installed: Installed | None = None
        """What the controllers' statements come to, once they were read."""
        self.asking: PathRequests | None = None

    async def begin(self) -> None:
        """See `CkmsRole`."""
        self.installed = self.asking = None
        own, world = self.name.id, self.world
        links = self.links = self.make_links()
        neighbours = world.neighbours(own)
        added = {neighbour: self.add_link(links, neighbour) for neighbour in neighbours}
        akms = f"akms-{self.name.node}" if f"akms-{self.name.node}" in world.services else None
        table = self.table = ForwardingTable(own, neighbours, delivers=akms is not None)
        table.replace(*forwarding(own, world.paths))
        choice = PathChoice()
        steering = await self._steered(table, choice) if world.controllers else None
        relay = Relay(table, choice, self.source)
        carrier = Carrier(relay, links, self.calls(akms) if akms is not None else None, clock=self.clock)
        carrier.serve(self.routes)
        if steering is not None and akms is not None:
            self.asking = PathRequests(self.source)
            controllers = [self.calls(controller) for controller in world.controllers]
            asking = Asking(
                self.asking,
                controllers,
                table,
                choice,
                relay.police,
                steering,
                lambda to: carrier.ready(to, 0),
                clock=self.clock,
            )
            carrier.on_submitted = asking.submitted
            self.runtime.task(asking.run(), "asking")
            exposing = Exposing(controllers, self.calls(akms), self.runtime, self.source)
            self.runtime.task(exposing.run(), "exposing")
        self.runtime.task(carrier.run(), "carrier")
        await links.start()
        if steering is not None:
            self._tell(added, relay, table, steering)

    async def _steered(self, table: ForwardingTable, choice: PathChoice) -> Steering:
        own, world = self.name.id, self.world
        keys = [world.private_key(f"statements {controller}").public_key() for controller in world.controllers]
        installed = Installed(own, self.source(16).hex(), keys, table, hard_limit=HARD_LIMIT)
        steering = await Steering.open(
            installed, StatementStore(self.store), table, choice, self.runtime, clocks=self._clocks
        )
        for neighbour in world.neighbours(own):
            self.links.on_store_older(world.plan(own, neighbour).id, steering.found_older)
        self.runtime.task(steering.run(), "steering")
        self.installed = installed
        return steering

    def _clocks(self) -> Reading:
        return Reading("boot", self.clock(), self.wall())

    def _tell(self, links: Mapping[str, LinkCalls], relay: Relay, table: ForwardingTable, steering: Steering) -> None:
        """Serve gNMI, as `services.ckms.agent.agent.Agent` does."""
        modules = Modules(
            {neighbour: self._watched(neighbour, link) for neighbour, link in links.items()},
            lambda: self.target.streams > 0,
            clock=self.clock,
        )
        telling = [self._telling(*link, modules, number) for number, link in enumerate(links.items(), 1)]
        node = Node(self.name.id, "1", steering.incarnation)
        facts = CarrierFacts(node, telling, relay, table, steering, self.clock)
        sources: dict[str, Callable[[], Any]] = {
            f"/{ckms.TOP}": facts.service,
            f"/{ckms.TOP}/links": facts.links,
            f"/{ckms.TOP}/forwarding": facts.forwarding,
        }
        sources, writer = self.world.lies.told_by(self, sources, StatementWriter(steering))
        tree = DataTree(_SCHEMA, sources, {f"/{ckms.TOP}/forwarding/statement": writer})
        self.target = Target(
            tree,
            cast(Peers, SimulatedPeers()),
            limits=LIMITS,
            clock=self.clock,
            wall=lambda: round(self.wall() * 1e9),
        )
        self.runtime.task(modules.run(), "modules")

    def _watched(self, neighbour: str, link: LinkCalls) -> Watched:
        plan = self.world.plan(self.name.id, neighbour)

        def taken() -> int:
            status = link.status()
            return status.outgoing.added_total + status.incoming.added_total

        return Watched(SimulatedModule(plan.modules, self.chance), f"sae-{neighbour}", plan.modules.bits, taken)

    def _telling(self, neighbour: str, link: LinkCalls, modules: Modules, number: int) -> TellingLink:
        plan = self.world.plan(self.name.id, neighbour)
        return TellingLink(
            link,
            plan.pool + plan.reserve,
            rate=lambda: modules.rate(neighbour),
            qber=lambda: modules.qber(neighbour),
            round_trip=lambda: ROUND_TRIP,
            module_answers=lambda: modules.answers(neighbour),
            number=number,
        )


def forwarding(own: str, every: tuple[tuple[str, ...], ...]) -> tuple[list[Entry], list[Path]]:
    """The entries and paths of one CKMS by its configuration: over every one of these paths, and back."""
    entries: list[Entry] = []
    paths: list[Path] = []
    for rank, forth in enumerate(every):
        for path in (forth, forth[::-1]):
            labels = [PathLabel(Random(f"{path}{hop}").randbytes(8).hex()) for hop in range(len(path) - 1)]
            place = path.index(own) if own in path else -1
            if place == 0:
                paths.append(Path(path[-1], rank, Hop(path[1], labels[0])))
            elif place > 0:
                onward = Hop(path[place + 1], labels[place]) if place + 1 < len(path) else None
                entries.append(Entry(labels[place - 1], path[place - 1], onward))
    return entries, paths
