"""`python -m bench.agents`: a process of simulated CKMSs.

The first line of standard input is an `Order`; when all nodes serve, a line says so. Each further line is a `Command`,
answered by a line. The process ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from bench.observe import warnings_alone
from bench.pools import SimulatedLink
from bench.simulated import Place, SimulatedNode
from keyhaul.config.carrier import CarrierLink
from keyhaul.identity.keys import load_link_public
from keyhaul.transport.tls import TlsFiles
from services.ckms.forwarding import Path as PathInForce

AT_ONCE = 50
"""Servers that are started together."""

LINE = 64 << 20
"""Bytes of one line at most."""


class OrderedNode(msgspec.Struct):
    """One CKMS."""

    id: str
    address: str
    certificate: str
    """PEM file."""


class Order(msgspec.Struct):
    """What one process simulates."""

    domain: str
    key: str
    """PEM file: the P-256 key of all certificates."""
    trust: str
    statement_key: str
    nodes: list[OrderedNode]
    links: list[CarrierLink]
    """All that end at one of the nodes."""
    begin: float
    """When the simulation begins, by the monotonic clock that all processes of the machine share."""
    seed: int
    verify: bool
    """Whether signatures of statements are verified."""
    look: float = 1.0
    """Seconds between two looks of a node for changes: thousands share a process."""


class Command(msgspec.Struct, tag=True):
    """What may be said."""


class Cut(Command):
    """Cut a link, or mend it; answered with the time, and how many demands' paths cross it."""

    link: str
    cut: bool = True


class Await(Command):
    """Wait until so many demands have paths, all of them whole: over entries that are there and links that are up."""

    demands: int
    seconds: float


class Rest(Command):
    """Wait until no statement has come for so long."""

    quiet: float
    seconds: float
    """At most."""


class Told(msgspec.Struct, omit_defaults=True):
    """An answer."""

    at: float
    """When it was so, by the same clock."""
    demands: int = 0
    whole: list[float] = []
    """When each demand that was broken became whole again."""
    statements: int = 0
    """That were accepted since the process began."""
    late: str = ""
    """What was still missing."""


Demand = tuple[str, str, str]
"""Source, destination and class."""


class Simulation:
    """The nodes of one process, and what controllers have installed in them."""

    def __init__(self, order: Order) -> None:
        keys = [load_link_public(Path(order.statement_key))]
        self.links = {link.id: SimulatedLink(link, order.begin, order.seed) for link in order.links}
        ends: dict[str, dict[str, SimulatedLink]] = {node.id: {} for node in order.nodes}
        for link in self.links.values():
            for end, other in ((link.plan.a, link.plan.b), (link.plan.b, link.plan.a)):
                if end in ends:
                    ends[end][other] = link
        self.nodes = {
            node.id: SimulatedNode(
                Place(
                    node.id,
                    node.address,
                    order.domain,
                    TlsFiles(Path(node.certificate), Path(order.key), Path(order.trust)),
                ),
                ends[node.id],
                keys,
                verify=order.verify,
                look=order.look,
                accepted=self._accepted,
            )
            for node in order.nodes
        }
        self._broken: set[Demand] = set()
        self._sources: set[str] = set()
        self._whole: list[float] = []
        self._statements = 0
        self._progress = asyncio.Event()

    async def start(self) -> None:
        """Serve."""
        nodes = [*self.nodes.values()]
        for first in range(0, len(nodes), AT_ONCE):
            await asyncio.gather(*(node.start() for node in nodes[first : first + AT_ONCE]))

    async def carry_out(self, command: Command) -> Told:
        """Do what is said."""
        match command:
            case Cut(link, cut):
                return self._cut(self.links[link], cut)
            case Await(demands, seconds):
                return await self._await(demands, seconds)
            case Rest(quiet, seconds):
                return await self._rest(quiet, seconds)
        raise TypeError(command)

    def demands(self) -> set[Demand]:
        """Those that have paths."""
        return {
            (node.place.node, path.destination, path.service_class or "")
            for node in self.nodes.values()
            for path in node.table.paths
        }

    def _cut(self, link: SimulatedLink, cut: bool) -> Told:
        if cut:
            crossing = {demand for demand in self.demands() if self._crosses(demand, link)}
            self._broken |= crossing
            self._whole.clear()
        now = time.monotonic()
        link.cut(now, cut=cut)
        for end in (link.plan.a, link.plan.b):
            if end in self.nodes:
                self.nodes[end].changed()
        return Told(now, len(self._broken), statements=self._statements)

    async def _await(self, demands: int, seconds: float) -> Told:
        late = ""
        try:
            async with asyncio.timeout(seconds):
                while self._broken or len(self.demands()) < demands:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            late = f"{len(self.demands())} demands, {len(self._broken)} of them broken"
        return Told(time.monotonic(), len(self.demands()), self._whole, self._statements, late)

    async def _rest(self, quiet: float, seconds: float) -> Told:
        ends, before = time.monotonic() + seconds, -1
        while before != self._statements and time.monotonic() < ends:
            before = self._statements
            await asyncio.sleep(quiet)
        return Told(time.monotonic(), len(self.demands()), statements=self._statements)

    def _accepted(self, node: SimulatedNode, statements: int) -> None:
        self._statements += statements
        now = time.monotonic()
        for demand in [one for one in self._broken if one[0] == node.place.node]:
            if self._is_whole(demand):
                self._broken.discard(demand)
                self._whole.append(now)
        self._progress.set()

    def _paths(self, demand: Demand) -> list[PathInForce]:
        source, destination, service_class = demand
        paths = self.nodes[source].table.paths
        return [
            path for path in paths if path.destination == destination and (path.service_class or "") == service_class
        ]

    def _is_whole(self, demand: Demand) -> bool:
        traced = [self._trace(demand[0], path) for path in self._paths(demand)]
        return bool(traced) and all(links is not None and all(link.up for link in links) for links in traced)

    def _crosses(self, demand: Demand, link: SimulatedLink) -> bool:
        return any(link in (self._trace(demand[0], path) or ()) for path in self._paths(demand))

    def _trace(self, source: str, path: PathInForce) -> list[SimulatedLink] | None:
        """The links of a path, followed label by label; None where it does not lead to its destination."""
        at, hop = source, path.first
        links: list[SimulatedLink] = []
        while len(links) < len(self.nodes):
            links.append(self.nodes[at].links[hop.neighbour])
            entry = self.nodes[hop.neighbour].table.lookup(hop.label, at)
            at = hop.neighbour
            if entry is None:
                return None
            if entry.next is None:
                return links if at == path.destination else None
            hop = entry.next
        return None


async def serve() -> None:
    """Simulate until standard input ends."""
    reader = asyncio.StreamReader(limit=LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    order = msgspec.json.decode(await reader.readline(), type=Order)
    simulation = Simulation(order)
    await simulation.start()
    _say(Told(time.monotonic()))
    commands = msgspec.json.Decoder(Cut | Await | Rest)
    while line := await reader.readline():
        _say(await simulation.carry_out(commands.decode(line)))


def _say(told: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    warnings_alone()
    asyncio.run(serve())


if __name__ == "__main__":
    main()
