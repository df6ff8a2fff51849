"""What an earlier leader installed goes on: demand by demand, as the nodes are read."""

from __future__ import annotations

from collections import defaultdict

from controller.steering.adoption import demand_of, is_torn, lease_of, resumed
from controller.steering.effects import Memory
from controller.steering.events import Event
from controller.steering.ledger import Ledger
from controller.steering.looking import Looking
from controller.steering.reserving import Reserving
from controller.steering.retiring import Retiring
from controller.steering.roll import Roll
from controller.steering.routes import LIFETIME
from controller.steering.served import Served
from controller.steering.talks import Talks
from keyhaul.agents.statements import PathStatement


class Adopting:
    """Adopts what was recorded.

    Args:
        ledger: what is known and promised.
        reserving: takes what paths need.
        talks: the conversations with the nodes.
        retiring: takes paths back.
        roll: the demands.
        looking: looks at them once it is known what they have.
    """

    def __init__(
        self, ledger: Ledger, reserving: Reserving, talks: Talks, retiring: Retiring, roll: Roll, looking: Looking
    ) -> None:
        self._ledger = ledger
        self._reserving = reserving
        self._talks = talks
        self._retiring = retiring
        self._roll = roll
        self._looking = looking
        self._recorded: dict[str, list[tuple[str, int]]] = {}
        """Node and serial of what was recorded of demands that are not adopted yet."""

    def begin(self, memory: Memory, now: float) -> None:
        """Enter what was recorded; each demand gets its whole lifetime anew."""
        recorded = defaultdict(list)
        for one in memory.statements:
            recorded[one.demand].append((one.node, one.serial))
        leases = []
        for promise in memory.promises:
            served = self._roll.enter(demand_of(promise), now)
            served.adopting = served.recorded = True
            if lease := lease_of(promise, served.expires):
                leases.append(lease)
        self._ledger.restart(leases, now)
        for demand in recorded.keys() - self._roll.served.keys():
            self._retiring.retire_loose(recorded.pop(demand))
        self._recorded = recorded

    def forget(self, served: Served) -> None:
        """A demand is over: take back what was recorded of it."""
        self._retiring.retire_loose(self._recorded.pop(served.demand.id, ()))

    def go_on(self, now: float) -> None:
        """Adopt the demands whose sources have been read by now."""
        if not self._ledger.view.nodes:
            return
        for identity in list(self._recorded):
            served = self._roll.served.get(identity)
            if served is not None and self._talks.is_ready(served.demand.source):
                self._adopt(served, now)
        for served in self._roll.served.values():
            if served.adopting and served.demand.id not in self._recorded:
                self._adopt(served, now)

    def _adopt(self, served: Served, now: float) -> None:
        demand = served.demand
        served.adopting = False
        statements = list(self._talks.held(self._recorded.pop(demand.id, ())))
        generation = resumed(self._ledger, demand, statements, now)
        if generation:
            served.current = generation
            generation.lease = self._reserving.adopt(served, generation.admission)
            self._roll.note(Event.ADOPTED, served)
        else:
            self._reserving.end(demand.id)
        self._retiring.retire_loose(
            (node, held.serial) for node, held in statements if not served.owns(node, held.serial)
        )
        self._roll.record(served)
        ending = served.current is not None and served.current.ends - now < LIFETIME / 2
        recorded = {held.say.rank for _, held in statements if isinstance(held.say.says, PathStatement)}
        torn = generation is not None and (is_torn(generation, statements) or len(recorded) > len(served.paths))
        self._looking.hurry(served, renew=ending or torn)
