"""Which nodes tell nothing: those of which nobody hears, and those that are cut off from the controller alone."""

from __future__ import annotations

from collections.abc import Mapping, Set

from controller.belief import Disagreement, Kind
from controller.topology import Discovery
from controller.view import NetworkView

DEAD = 60.0
"""Seconds for which nobody hears of a node, after which demands that end there are over, and what they reserved is
free. One that is only cut off from the controller goes on sending, and keeps what it has."""


class Hearing:
    """What is known of nodes that tell nothing."""

    def __init__(self) -> None:
        self.cut_off: Set[str] = frozenset()
        """Nodes of which it is only known that the controller does not hear them."""
        self._lost: dict[str, float] = {}
        """Nodes that nobody hears, and since when."""
        self._seen: tuple[Disagreement, ...] = ()

    def see(self, discovery: Discovery, now: float) -> None:
        """Take up who tells nothing now."""
        if discovery.nodes is self._seen:
            return
        self._seen = discovery.nodes
        silent = {one.subject: bool(one.said) for one in discovery.nodes if one.kind is Kind.SILENT}
        self.cut_off = cut_off(discovery.view, silent)
        self._lost = {node: self._lost.get(node, now) for node in silent if node not in self.cut_off}

    def begin(self, now: float) -> None:
        """Reckon anew how long nodes have been lost."""
        self._lost = dict.fromkeys(self._lost, now)

    def hears(self, node: str) -> bool:
        """Whether a node tells."""
        return node not in self._lost and node not in self.cut_off

    def dead(self, now: float) -> Set[str]:
        """Nodes that have been lost for too long."""
        return {node for node, since in self._lost.items() if now - since >= DEAD}


def cut_off(view: NetworkView, silent: Mapping[str, bool]) -> Set[str]:
    """The nodes of which it is only known that they are not heard.

    They are those whose neighbours say that they are up, and those behind them, of which no neighbour that is heard
    says otherwise. A controller that has just begun, and hears one node after the other, so believes good of the rest.

    Args:
        view: the network.
        silent: nodes that tell nothing, and whether a neighbour says that it hears them.
    """
    topology = view.topology
    found = {node for node, heard in silent.items() if heard}
    waiting = [topology.node_number[node] for node in found if node in topology.node_number]
    while waiting:
        for number, _ in topology.arcs_from[waiting.pop()]:
            node = view.nodes[number].id
            around = (view.nodes[other].id for other, _ in topology.arcs_from[number])
            if node in silent and node not in found and all(one in silent for one in around):
                found.add(node)
                waiting.append(number)
    return found
