"""Keeps the controller's idea of the network up to date: telemetry and the plan in, discoveries out.

A discovery is made every `REGULAR` seconds, and at once when a node tells of a link that went or came, but never
sooner than `APART` after the last: a thousand nodes that lose a data centre at once make a handful of discoveries.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Set

import structlog

from controller.belief import Disagreement, Kind
from controller.facts import NodeReport
from controller.planned import PlannedNetwork
from controller.topology import Discovery, LinkState, discover

log = structlog.get_logger(__name__)

REGULAR = 1.0
"""Seconds between discoveries."""

APART = 0.02
"""Seconds between two discoveries at least."""

SETTLING = 15.0
"""Seconds after the start, or after a node was planned, in which its silence is no alarm;"""

SETTLING_A_NODE = 0.03
"""and as many more for each planned node."""

STANDING = 3.0
"""Seconds for which something must disagree before it is an alarm: the two ends are not asked at the same moment."""


News = Callable[[], tuple[Mapping[str, NodeReport], Set[str] | None]]
"""What nodes have told so far, and which of them something new, or nothing any more, since it was called last; None:
any of them may have."""


class Watching:
    """Makes discoveries.

    Args:
        news: what nodes have told.
        alarm: told of what disagrees, once while it lasts.
        clock: seconds, monotonic; that of the reports.
    """

    def __init__(
        self,
        news: News,
        alarm: Callable[..., None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._news = news
        self._alarm = alarm
        self._clock = clock
        self._planned: PlannedNetwork | None = None
        self._planned_at: dict[str, float] = {}
        self._quarantined: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self._seen: Callable[[Discovery], None] = lambda _discovery: None
        self._standing: dict[Disagreement, float] = {}
        self._told: set[Disagreement] = set()
        self.discovery: Discovery | None = None
        """The last one."""
        self.seconds = 0.0
        """What the last one took."""

    def plan(self, network: PlannedNetwork) -> None:
        """Compare with this network from now on."""
        now = self._clock()
        self._planned_at = {node.id: self._planned_at.get(node.id, now) for node in network.nodes}
        self._planned = network
        self.look()

    def quarantine(self, nodes: frozenset[str]) -> None:
        """Take these nodes for nodes that may be in no path; the present discovery says so when this returns."""
        self._quarantined = nodes
        if self._planned is not None:
            self._discover(self._planned)

    def look(self) -> None:
        """Make a discovery soon."""
        self._wake.set()

    def on_seen(self, seen: Callable[[Discovery], None]) -> None:
        """Have each discovery told to this one from now on."""
        self._seen = seen

    async def run(self) -> None:
        """Make discoveries until cancelled."""
        while True:
            self._wake.clear()
            if self._planned is not None:
                self._discover(self._planned)
            await asyncio.sleep(APART)
            try:
                async with asyncio.timeout(REGULAR):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _discover(self, planned: PlannedNetwork) -> None:
        now, begin = self._clock(), time.perf_counter()
        before = self.discovery
        reports, changed = self._news()
        found = discover(planned, reports, now, before, quarantined=self._quarantined, changed=changed)
        self.seconds = time.perf_counter() - begin
        self.discovery = found
        self._seen(found)
        self._tell(found, now)

    def _tell(self, found: Discovery, now: float) -> None:
        present = {one: self._standing.get(one, now) for one in found.disagreements}
        self._standing = present
        self._told &= present.keys()
        for one in self._due(present, now):
            self._told.add(one)
            if one.kind is Kind.SILENT:
                self._alarm("node-silent", node=one.subject)
            else:
                self._alarm("topology-disagrees", subject=one.subject, kind=one.kind.value, said=dict(one.said))

    def _due(self, present: Mapping[Disagreement, float], now: float) -> Iterator[Disagreement]:
        settling = SETTLING + SETTLING_A_NODE * len(self._planned_at)
        for one, since in present.items():
            settled = now - self._planned_at.get(one.subject, now - settling) >= settling
            if one not in self._told and now - since >= STANDING and settled:
                yield one


def counted(found: Discovery) -> Mapping[LinkState, int]:
    """How many links are in each state."""
    states = [finding.state for finding in found.links.values()]
    return {state: states.count(state) for state in LinkState}
