"""Steering: what comes in, in; what is to be done, out.

Sans-IO: time (`now`, seconds of one monotonic clock) and randomness are arguments. After each input the driver takes
the `effects` and carries them out (`controller.steering.effects`). A demand is a source, a destination and a class that
the source asked for of late. For each:

- Entries go in from the far end to the near one, each confirmed; then one Set at the source puts all paths of the
  demand in force, and those before them out of it. So a path in force always leads to its end.
- What was in force before drains: its entries serve what is on its way.
- A refusal or silence takes back what was installed. Whether a Set that was not answered took effect is found out by
  reading back, and the node is told nothing until then.
- A renewal is a move to the same paths under other labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from math import inf

from controller.admission.reservations import Reservations
from controller.paths.policies import Policy
from controller.steering.adopting import Adopting
from controller.steering.answering import Answering
from controller.steering.effects import Effect, InForce, Memory, Note
from controller.steering.events import Event
from controller.steering.hearing import Hearing
from controller.steering.installation import Installation
from controller.steering.ledger import Ledger
from controller.steering.looking import Looking
from controller.steering.reserving import Reserving
from controller.steering.retiring import Retiring
from controller.steering.roll import Roll
from controller.steering.served import Served
from controller.steering.serving import Serving
from controller.steering.talks import Talks
from controller.topology import Discovery
from controller.view import NetworkView
from keyhaul.agents.statements import StatementRefusal
from keyhaul.randomness import Source, random_bytes
from keyhaul.transport.messages.path import PathRefusal, PathReply

RENEW_BEFORE = 90.0
"""Seconds before its statements end at which a demand that lasts longer is renewed unasked."""


class Steering:
    """The steering core of one controller.

    Args:
        source: draws labels and ids.
        policy: by which paths are chosen.
    """

    def __init__(self, source: Source = random_bytes, policy: Policy = Policy.RESIDUAL) -> None:
        self.epoch: int | None = None
        """In which it leads."""
        self._effects: list[Effect] = []
        self._ledger = Ledger(policy)
        self._roll = Roll(self._effects.append)
        self._talks = Talks(self._effects.append)
        self._retiring = Retiring(self._talks)
        self._reserving = Reserving(self._ledger, source)
        self._installation = Installation(
            self._ledger, self._reserving, self._talks, self._retiring, self._roll, source, self._effects.append
        )
        self._hearing = Hearing()
        self._serving = Serving(
            self._ledger, self._reserving, self._installation, self._talks, self._roll, self._hearing
        )
        self._looking = Looking(self._ledger, self._roll, self._serving)
        self._adopting = Adopting(self._ledger, self._reserving, self._talks, self._retiring, self._roll, self._looking)
        self._answering = Answering(self._ledger, self._reserving, self._serving, self._roll, source, self._end)

    @property
    def view(self) -> NetworkView:
        """The network as it was seen last, with what is promised of it."""
        return self._ledger.view

    @property
    def reservations(self) -> Reservations:
        """What is promised."""
        return self._ledger.reservations

    def effects(self) -> list[Effect]:
        """What is to be done since this was called last, in order."""
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    @property
    def served(self) -> tuple[Served, ...]:
        """All demands, the oldest first; to be read, and not kept."""
        return tuple(self._roll.served.values())

    def refused_of_late(self, now: float) -> tuple[Served, ...]:
        """Demands that were refused, and are asked for still: with why, and no paths."""
        return self._roll.refused(now)

    def is_ready(self, node: str) -> bool:
        """Whether it is known what a node has, and it takes statements."""
        return self._talks.is_ready(node)

    def has_left(self, source: str, target: str, service_class: str, nodes: Set[str]) -> bool:
        """Whether a CKMS certainly sends nothing of a class to another one over any of these nodes."""
        if not self._talks.is_settled(source):
            return False
        served = self._roll.find(source, target, service_class)
        if served is None:
            return True
        crossed = {node for generation in served.generations for _, node in generation.crossed}
        return not served.adopting and crossed.isdisjoint(nodes)

    def led(self, epoch: int, memory: Memory, now: float) -> None:
        """This controller leads: announce that to every node, and go on with what earlier leaders did."""
        self.epoch = epoch
        self._effects.clear()
        self._restart(memory, now)
        self._hearing.begin(now)
        self._flush(now)

    def deposed(self, now: float) -> None:
        """This controller does not lead any more: say nothing, forget what was said."""
        self.epoch = None
        self._restart(Memory(), now)
        self._talks.rest()
        self._effects.clear()

    def appeared(self, node: str, incarnation: str, now: float) -> None:
        """A node's process can be talked to; it need be told only when it is another one, and again after silence."""
        self._talks.appeared(node, incarnation, now)
        self._flush(now)

    def gone(self, node: str, now: float) -> None:
        """A node is planned no more: nothing of what it has counts."""
        self._talks.gone(node)
        for served in self.served:
            if node in (served.demand.source, served.demand.target):
                self._end(served, "not planned")
        self._flush(now)

    def see(self, discovery: Discovery, now: float) -> None:
        """The network as it is now: demands whose paths do not work any more get others at once."""
        shift = self._ledger.observe(discovery.view, now)
        self._hearing.see(discovery, now)
        if self.epoch is None:
            return
        if shift.everything:
            planned = self.view.topology.node_number
            for node in self._talks.nodes:
                if node not in planned:
                    self.gone(node, now)
        self._adopting.go_on(now)
        self._serving.shed(now)
        if shift:
            for served in self._looking.affected(shift):
                self._looking.hurry(served)
        self._looking.go_on(now)
        self._flush(now)

    @property
    def behind(self) -> bool:
        """Whether demands wait that a change concerns: `go_on` is to be called soon."""
        return self._looking.behind

    def go_on(self, now: float) -> None:
        """Go on with what a change left to do; a part of it, so that others have their turn in between."""
        self._looking.go_on(now)
        self._flush(now)

    def wanted(
        self, source: str, destination: str, service_class: str, rate: float, failed: str | None, now: float
    ) -> PathReply:
        """A CKMS asks for paths.

        Args:
            source: who asks.
            destination: to where.
            service_class: for which class.
            rate: bytes a second.
            failed: a neighbour over which its paths fail.
            now: seconds.
        """
        if self.epoch is None:
            return PathReply(refusal=PathRefusal.NOT_LEADER)
        answer = self._answering.wanted(source, destination, service_class, rate, failed, now)
        self._flush(now)
        return answer

    def confirmed(self, sending: int, serials: Sequence[int], now: float) -> None:
        """A `Tell` was accepted; its statements have these serials, in their order."""
        for placed in self._talks.confirmed(sending, serials, now):
            self._serving.placed(placed, now)
        self._flush(now)

    def refused(self, sending: int, reason: StatementRefusal | None, now: float, serials: Sequence[int] = ()) -> None:
        """A `Tell` was refused whole; its statements had these serials, or none if it was never signed."""
        node = self._talks.busy_with(sending)
        if reason is StatementRefusal.OLD_EPOCH and node:
            self._effects.append(Note(Event.DEPOSED, node))
        for bundle in self._talks.refused(sending, serials, reason, now):
            self._serving.failed(bundle.laying, node, now)
        self._flush(now)

    def unreachable(self, sending: int, serials: Sequence[int], now: float) -> None:
        """It is not known whether a `Tell` took effect; its statements have these serials, or none if it never left."""
        node = self._talks.busy_with(sending)
        for bundle in self._talks.unreachable(sending, serials, now):
            if not serials or not self._installation.is_switch(bundle):
                self._serving.failed(bundle.laying, node, now)
        self._flush(now)

    def found(self, reading: int, incarnation: str, in_force: Iterable[InForce], now: float) -> None:
        """A node was read: this is all that it has."""
        outcome = self._talks.found(reading, incarnation, in_force, now)
        if outcome is not None:
            self._serving.settled(outcome.node, outcome.settled, now)
            self._serving.lost(outcome.node, outcome.lost, now)
            self._adopting.go_on(now)
        self._flush(now)

    def unread(self, reading: int, now: float) -> None:
        """A node could not be read."""
        self._talks.unread(reading, now)
        self._flush(now)

    def tick(self, now: float) -> None:
        """Time has passed; to be called several times a second."""
        if self.epoch is None:
            return
        dead = self._hearing.dead(now)
        for served in list(self._roll.served.values()):
            demand = served.demand
            if not self._installation.may_end(served):
                continue
            if now >= served.expires and demand.source not in self._hearing.cut_off:
                self._end(served, "unused")
            elif not dead.isdisjoint((demand.source, demand.target)):
                self._end(served, "dead")
            else:
                self._attend(served, now)
        self._serving.shed(now)
        self._looking.go_on(now)
        self._looking.look(now)
        self._flush(now)

    def _restart(self, memory: Memory, now: float) -> None:
        """Begin with what was recorded."""
        self._talks.lead(memory.statements, now)
        self._retiring.clear()
        self._installation.clear()
        self._looking.clear()
        self._roll.clear()
        self._adopting.begin(memory, now)

    def _flush(self, now: float) -> None:
        """Say what can be said now."""
        if self.epoch is not None:
            self._retiring.go_on(now)
            self._installation.go_on(now)
            self._talks.flush(now)

    def _end(self, served: Served, why: str) -> None:
        """Take back all of a demand."""
        self._installation.end(served)
        self._adopting.forget(served)
        self._reserving.end(served.demand.id)
        self._roll.strike(served, why)

    def _attend(self, served: Served, now: float) -> None:
        """What is due for a demand."""
        self._serving.late(served, now)
        source, current = served.demand.source, served.current
        heard = self._hearing.hears(source) and self._talks.is_ready(source)
        if current and now >= current.ends and heard:
            self._installation.drop(served, now, "over")
        elif served.laying is None:
            ending = current is not None and current.ends - now <= RENEW_BEFORE < served.expires - current.ends
            due = now >= served.retry_at or (ending and served.retry_at == inf)
            if due and served.urgent is None:
                self._looking.hurry(served, renew=ending)
