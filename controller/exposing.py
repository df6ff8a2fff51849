"""Tells CKMSs at access nodes which of their keys are exposed, and whether a path over such a node is in force yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from controller.in_force import InForce
from controller.state import exposures
from controller.steering.steering import Steering
from keyhaul.database.database import Database
from keyhaul.transport.messages.relay import Exposure


class Exposing:
    """Answers from the record, which is read again only when something new is exposed, and from what is in force.

    Args:
        database: the controllers'.
        in_force: who is in quarantine.
        steering: what steers, while this controller leads.
    """

    def __init__(self, database: Database, in_force: InForce, steering: Callable[[], Steering | None]) -> None:
        self._database = database
        self._in_force = in_force
        self._steering = steering
        self._read_at: tuple[int | None, int] | None = None
        self._read: dict[str, Sequence[exposures.Exposure]] = {}

    async def of(self, node: str) -> Sequence[Exposure] | None:
        """What is exposed of the keys that a CKMS sent or got; None: this controller does not lead.

        Raises:
            DatabaseUnavailable: see `Database.run`.
        """
        if (steering := self._steering()) is None:
            return None
        at = steering.epoch, self._in_force.exposed
        if at != self._read_at:
            self._read_at, self._read = at, {}
        found = self._read.get(node)
        if found is None:
            found = await self._database.run(partial(exposures.of, node=node))
            if at == self._read_at:
                self._read[node] = found
            if self._steering() is not steering:
                return None
        return [self._told(one, node, steering) for one in found]

    def _told(self, exposure: exposures.Exposure, node: str, steering: Steering) -> Exposure:
        source, target, service_class = kind = exposure.kind
        return Exposure(
            id=exposure.id,
            other=target if node == source else source,
            service_class=service_class,
            sends=node == source,
            over=steering.has_left(*kind, self._in_force.quarantined.keys()),
        )
