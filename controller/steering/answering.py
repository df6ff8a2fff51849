"""What CKMSs ask for: paths, other ones because those that they have fail, or more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from controller.admission.admit import Demand
from controller.admission.classes import CLASSES
from controller.admission.price import undivided
from controller.paths.compute import Path
from controller.steering.ledger import Ledger
from controller.steering.planning import granted, reply
from controller.steering.reserving import Reserving
from controller.steering.roll import Roll
from controller.steering.routes import LIFETIME
from controller.steering.served import Served
from controller.steering.serving import Serving
from keyhaul.randomness import Source, identifier
from keyhaul.transport.messages.path import PathRefusal, PathReply

SETTLED = 1.0
"""Seconds after new paths for which asking again, without a failure, changes nothing: the question was older."""


class Answering:
    """Answers path requests.

    Args:
        ledger: what is known and promised.
        reserving: lets what is reserved last.
        serving: decides about demands.
        roll: the demands.
        source: draws ids.
        end: takes back all of a demand, and tells operators why.
    """

    def __init__(
        self,
        ledger: Ledger,
        reserving: Reserving,
        serving: Serving,
        roll: Roll,
        source: Source,
        end: Callable[[Served, str], None],
    ) -> None:
        self._ledger = ledger
        self._reserving = reserving
        self._serving = serving
        self._roll = roll
        self._source = source
        self._end = end

    def wanted(
        self, source: str, destination: str, service_class: str, rate: float, failed: str | None, now: float
    ) -> PathReply:
        """See `Steering.wanted`."""
        if service_class not in CLASSES:
            return PathReply(refusal=PathRefusal.NO_ROUTE)
        served = self._roll.find(source, destination, service_class)
        present = served.demand.rate if served and (served.current or served.laying or served.adopting) else None
        bits = granted(rate, service_class, present)
        if served is None:
            demand = Demand(identifier(self._source), source, destination, service_class, bits)
            served = self._roll.enter(demand, now)
        served.expires = now + LIFETIME
        self._reserving.extend(served)
        answer = self._answer(served, bits, failed, now)
        return answer if answer.refusal else self._priced(answer, served)

    def _answer(self, served: Served, bits: int, failed: str | None, now: float) -> PathReply:
        demand, current, laying = served.demand, served.current, served.laying
        if failed is not None and (link := self._link(demand.source, failed)) is not None:
            served.shun(link, now)
        if served.adopting or (laying and (failed is None or not _leaves_by(laying.generation.paths, failed))):
            return PathReply()
        works = failed is None and self._serving.works(served)
        if works and current and now - current.since < SETTLED:
            return PathReply()
        # More of what is not half over yet: where there is no more, nothing need be done.
        raised = works and current and bits > demand.rate and current.ends - now > LIFETIME / 2
        refusal = self._serving.plan(served, now, renew=not raised, rate=bits)
        if refusal is None or served.laying or self._serving.works(served):
            return PathReply()
        answer = reply(self._ledger, replace(demand, rate=bits), refusal)
        if served.current is None:
            self._end(served, "refused")
            self._roll.turn_away(served)
        return answer

    def _priced(self, answer: PathReply, served: Served) -> PathReply:
        """Tell what the paths cost that are in force or about to be."""
        generation = served.laying.generation if served.laying else served.current
        if generation is None:
            return answer
        price, single = generation.admission.price, 0.0
        if CLASSES[served.demand.service_class].shares > 1:
            single = undivided(self._ledger.view, self._ledger.reservations, served.demand, self._ledger.policy)
        return PathReply(price=price, undivided=single)

    def _link(self, one: str, other: str) -> str | None:
        """The link between two nodes."""
        view = self._ledger.view
        numbers = view.topology.node_number
        if one not in numbers or other not in numbers:
            return None
        arcs = (arc for to, arc in view.topology.arcs_from[numbers[one]] if to == numbers[other])
        return next((view.links[arc >> 1].id for arc in arcs), None)


def _leaves_by(paths: Iterable[Path], neighbour: str) -> bool:
    return any(path.nodes[1] == neighbour for path in paths)
