"""What crossed a node before or in its quarantine is not used any more: keys under it that nobody got are called back.

The rule sees what crosses each CKMS (what its links open), under which CN bits each batch of keys went out, and when a
quarantine was granted. Where a controllers' database forgot, or paths of the configuration lead over nodes, nobody can
know all that crossed; of class split the names of batches do not cross.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulator.world import World

FORGOTTEN = ("controllers' database put back", "controllers' database lost")


class ExposureRule:
    """Looks on with the oracle."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._under: defaultdict[str, set[str]] = defaultdict(set)
        self._crossed: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._until: defaultdict[str, float] = defaultdict(float)

    def relayed(self, header: bytes, clear: bytes) -> None:
        """An end of a link opened a message."""
        head = json.loads(header)
        if head["kind"] == "relay.forward":
            batch, now = json.loads(clear)["batch"], self._world.loop.time()
            ends = next(ends for ends, plan in self._world.plans.items() if plan.id == head["link"])
            for node in ends:
                self._crossed[node].setdefault(batch, now)

    def protected(self, batch: str, cn: set[str]) -> None:
        """A batch of keys goes out under bits of these CN batches."""
        self._under[batch] |= cn

    def quarantined(self, node: str) -> None:
        """A node is in quarantine: what crosses it now is exposed too, as long as that lasts."""
        self._until[node] = float("inf")

    def released(self, node: str) -> None:
        """It is let out."""
        self._until[node] = min(self._until[node], self._world.loop.time())

    def is_exposed(self, batch: str) -> bool:
        """Whether a node in quarantine knows CN bits under which a batch of keys went out."""
        counts = self._world.faults.counts
        if self._world.settings.static or any(counts[kind] for kind in FORGOTTEN):
            return False
        return any(
            self._crossed[node].get(cn, float("inf")) < until
            for node, until in self._until.items()
            for cn in self._under[batch]
        )
