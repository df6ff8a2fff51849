"""Whether the database is older than the network: then it would give out epochs and serials a second time.

Nodes accept only what is later, by epoch and serial, than all that they accepted before. A database that was restored
from a backup, or made anew, does not know how far that was: nodes would refuse what its leader says, or take it for
something else. The leader finds out from any node that has accepted what this database never gave out, and goes on in
an epoch, and with serials, that are later than that node's.

One node's word suffices, since one may be all that there is. So one that lies can make a term of leadership begin
anew; it is not believed often, and not whatever it says.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from controller.installing import ReadBack

AGAIN = 600.0
"""Seconds in which one node is believed once."""

EPOCHS = 1 << 20
SERIALS = 1 << 40
"""How far a node may be ahead: more changes of leaders, or statements, than a backup can miss."""


class Number(NamedTuple):
    """An epoch and a serial that were given out."""

    epoch: int
    serial: int


class Outdated:
    """Compares what nodes have accepted with what this database gave out, over all terms of one process.

    Args:
        alarm: told of a database that is older, and of nodes that cannot be right.
        clock: seconds, monotonic.
    """

    def __init__(self, alarm: Callable[..., None], clock: Callable[[], float]) -> None:
        self._alarm = alarm
        self._clock = clock
        self._believed: dict[str, float] = {}

    def ahead(self, node: str, there: ReadBack, given: Number) -> Number | None:
        """What is to be surpassed because a node has accepted it, None where that is nothing.

        Args:
            node: who was read.
            there: what it has.
            given: the leader's epoch, and the highest serial with which it told that node anything.
        """
        serial = max([there.serial, *(one.serial for one in there.statements)])
        if (there.epoch, there.serial) <= given and serial <= given.serial:
            return None
        if (
            there.epoch - given.epoch > EPOCHS
            or serial - given.serial > SERIALS
            or self._clock() - self._believed.get(node, -inf) < AGAIN
        ):
            self._alarm("node-not-believed", node=node, node_epoch=there.epoch, epoch=given.epoch, serial=serial)
            return None
        return Number(max(there.epoch, given.epoch), max(serial, given.serial))

    def surpassed(self, node: str, ahead: Number) -> None:
        """What a node was ahead with was surpassed."""
        self._believed[node] = self._clock()
        self._alarm("database-behind-nodes", node=node, epoch=ahead.epoch, serial=ahead.serial)
