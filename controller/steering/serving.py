"""What each demand has, gets and loses: its paths, what is reserved for them, and when they are looked at again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from typing import Any

from controller.admission.admit import Admission, Demand, Reason, Refusal, admit
from controller.admission.classes import CLASSES
from controller.admission.reoptimise import Standing, Verdict, stands
from controller.admission.reservations import hops_of
from controller.paths.compute import Path
from controller.steering.adoption import demand_of, lease_of, resumed
from controller.steering.conversation import Bundle, Held
from controller.steering.effects import Confirm, Effect, Ended, Memory, Note, Remember
from controller.steering.events import Event
from controller.steering.laying import PATIENCE, Laying, starts_of
from controller.steering.ledger import Ledger
from controller.steering.planning import choose, is_forbidden
from controller.steering.routes import LIFETIME, Generation, policed, promise_of, routes_of
from controller.steering.served import Served
from controller.steering.talks import DRAIN, Placed, Talks
from keyhaul.agents.statements import PathStatement
from keyhaul.randomness import Source, identifier

ATTEMPTS = 3
"""Layings that may fail before the next waits for a pause."""

_VERDICTS = {Verdict.STAY: Event.RENEWED, Verdict.MOVE: Event.MOVED, Verdict.FLEE: Event.MOVED}


class Serving:
    """All demands.

    Args:
        ledger: what is known and promised.
        talks: the conversations with the nodes.
        source: draws labels and ids.
        emit: takes the effects.
    """

    def __init__(self, ledger: Ledger, talks: Talks, source: Source, emit: Callable[[Effect], None]) -> None:
        self.served: dict[str, Served] = {}
        """By id."""
        self._ledger = ledger
        self._talks = talks
        self._source = source
        self._emit = emit
        self._keys: dict[tuple[str, str, str], Served] = {}
        self._layings: dict[int, Served] = {}
        self._numbers = count(1)
        self._recorded: dict[str, list[tuple[str, int]]] = {}
        """Node and serial of what was recorded of demands that are not adopted yet."""

    def restart(self, memory: Memory, now: float) -> None:
        """Begin with what was recorded; each demand gets its whole lifetime anew."""
        self.served, self._keys, self._layings = {}, {}, {}
        recorded = defaultdict(list)
        for one in memory.statements:
            recorded[one.demand].append((one.node, one.serial))
        leases = []
        for promise in memory.promises:
            served = self._enter(demand_of(promise), now)
            served.adopting = served.recorded = True
            if lease := lease_of(promise, served.expires):
                leases.append(lease)
        self._ledger.restart(leases, now)
        for demand in recorded.keys() - self.served.keys():
            self._retire(recorded.pop(demand))
        self._recorded = recorded

    def find(self, source: str, target: str, service_class: str) -> Served | None:
        """The demand of one CKMS for another and a class."""
        return self._keys.get((source, target, service_class))

    def begin(self, source: str, target: str, service_class: str, rate: int, now: float) -> Served:
        """Take up a demand."""
        return self._enter(Demand(identifier(self._source), source, target, service_class, rate), now)

    def extend(self, served: Served, now: float) -> None:
        """It was asked for again."""
        served.expires = now + LIFETIME
        for generation in served.generations:
            if generation.lease:
                self._ledger.reservations.renew(generation.lease, served.expires)

    def end(self, served: Served, why: str) -> None:
        """Take back all of a demand."""
        demand = served.demand
        if laying := served.laying:
            self._talks.cancel(laying.number)
            del self._layings[laying.number]
            if laying.switching:
                laying.generation.starts = self._talks.perhaps(demand.source, laying.number)
        for generation in served.generations:
            self._talks.retire(demand.source, generation.starts, generation.entries)
        self._retire(self._recorded.pop(demand.id, ()))
        for lease in self._ledger.reservations.release_demand(demand.id):
            self._ledger.stamp((lease,))
        del self.served[demand.id]
        del self._keys[demand.source, demand.target, demand.service_class]
        if served.recorded:
            self._emit(Ended(demand.id))
            self._note(Event.ENDED, served, why=why)

    def plan(self, served: Served, now: float, *, renew: bool = False, rate: int | None = None) -> Refusal | None:
        """Decide what is best for a demand now, and begin with it; return why nothing can be done, if so."""
        if served.adopting or (served.laying and served.laying.switching):
            return None
        if served.laying:
            self._abort(served)
        forbidden = any(is_forbidden(self._ledger.view, served.demand, path) for path in served.paths)
        renew = renew or served.broken or forbidden
        asked = served.demand if rate is None else replace(served.demand, rate=rate)
        refusal = self._decide(served, asked, now, renew)
        if refusal is not None and served.current and asked != served.demand:
            refusal = self._decide(served, served.demand, now, renew)
        if served.laying is None:
            self._back(served, now)
        if refusal is None:
            served.retry_at = min(served.retry_at, served.laying.deadline) if served.laying else float("inf")
        else:
            if served.refusal is None or served.refusal.reason is not refusal.reason:
                self._note(Event.REFUSED, served, reason=refusal.reason.value)
            if served.broken or forbidden:
                self.drop(served, now)
            served.later(now)
        served.refusal = refusal
        return refusal

    def placed(self, placed: Placed, now: float) -> None:
        """Statements are in force: go on with what they are part of."""
        served, bundle = self._layings.get(placed.bundle.laying), placed.bundle
        if served is None or served.laying is None:
            self._talks.withdraw(((placed.node, serial) for serial in placed.serials), 0.0)
            return
        starts = starts_of(bundle, placed.serials)
        self._emit(Confirm(starts or placed.serials))
        if starts:
            self._switched(served, served.laying, starts, now)
            return
        laying = served.laying
        following = laying.entered(placed.node, placed.serials[0], bundle.says[0].rank)
        if following is None and laying.entered_all:
            following = laying.switch(tuple(served.current.starts) if served.current else ())
        if following is not None:
            self._talks.say(*following)

    def failed(self, number: int, node: str, now: float) -> None:
        """A node did not take what is part of a laying, or is not known to have: give it up, unless that may be."""
        served = self._layings.get(number)
        if served is None or served.laying is None:
            return
        self._note(Event.NOT_INSTALLED, served, node=node)
        self._abort(served)
        served.failures += 1
        urgent = not self.works(served)
        if (urgent or served.failures > 1) and node not in (served.demand.source, served.demand.target):
            served.shun(node, now)
        self._back(served, now)
        if served.laying:
            return
        if urgent and served.failures < ATTEMPTS:
            self.plan(served, now)
        else:
            served.later(now)

    def is_switch(self, bundle: Bundle) -> bool:
        """Whether a bundle is what puts the paths of a laying in force."""
        served = self._layings.get(bundle.laying)
        return served is not None and served.laying is not None and served.laying.switching

    def may_end(self, served: Served) -> bool:
        """Whether it is known, as far as it can be, what of a demand is in force."""
        laying = served.laying
        return laying is None or not self._talks.is_under_way(laying.source, laying.number)

    def late(self, served: Served, now: float) -> None:
        """Give up a laying that waits for too long, unless its paths may be in force."""
        laying = served.laying
        if laying is None or now < laying.deadline:
            return
        if laying.switching and not self._talks.waits(laying.source, laying.number):
            return
        waits = [node for node in laying.waits_for if not self._talks.is_ready(node)]
        self.failed(laying.number, (waits or laying.waits_for)[0], now)

    def settled(self, node: str, statements: Iterable[Held], now: float) -> None:
        """A node has these, which was not sure."""
        starts: dict[int, list[int]] = defaultdict(list)
        strays = []
        for held in statements:
            served = self.served.get(held.say.demand)
            if held.laying in self._layings and isinstance(held.say.says, PathStatement):
                starts[held.laying].append(held.serial)
            elif served is None or not (served.adopting or served.owns(node, held.serial)):
                if held.laying:
                    strays.append((node, held.serial))
            elif served.current:
                served.current.ends = min(served.current.ends, held.ends)
        for number, serials in starts.items():
            laying = self._layings[number].laying
            if laying is not None:
                self._emit(Confirm(tuple(serials)))
                self._switched(self._layings[number], laying, tuple(serials), now)
        self._talks.withdraw(strays, DRAIN)

    def lost(self, node: str, statements: Iterable[Held], now: float) -> None:
        """A node does not have these."""
        broken: dict[str, Served] = {}
        for held in statements:
            served = self.served.get(held.say.demand)
            if served is None or served.adopting:
                continue
            if served.laying and (
                held.laying == served.laying.number or (node, held.serial) in served.laying.generation.entries
            ):
                self.failed(served.laying.number, node, now)
            current = served.current
            if current and (node, held.serial) in current.serials(served.demand.source):
                current.entries = [one for one in current.entries if one != (node, held.serial)]
                current.starts = [one for one in current.starts if one != held.serial]
                broken[served.demand.id] = served
        for served in broken.values():
            served.broken = True
            self._note(Event.LOST, served, node=node)
            self.plan(served, now)

    def shed(self, now: float) -> None:
        """Take back what is promised of rates that are not there any more."""
        for lease in self._ledger.shed(now):
            served = self.served.get(lease.demand)
            if served is None:
                continue
            if served.laying and served.laying.generation.lease == lease.id:
                served.laying.generation.lease = None
                if not served.laying.switching:
                    self._abort(served)
            if served.current and served.current.lease == lease.id:
                served.current.lease = None
            self._back(served, now)

    def adopt(self, now: float) -> None:
        """Go on with what earlier leaders installed, as far as the demands' sources have been read."""
        if not self._ledger.view.nodes:
            return
        for identity in list(self._recorded):
            served = self.served.get(identity)
            if served is not None and self._talks.is_ready(served.demand.source):
                self._adopt(served, now)
        for served in self.served.values():
            if served.adopting and served.demand.id not in self._recorded:
                self._adopt(served, now)

    def _adopt(self, served: Served, now: float) -> None:
        demand = served.demand
        served.adopting = False
        statements = list(self._talks.held(self._recorded.pop(demand.id, ())))
        for lease in self._ledger.reservations.release_demand(demand.id):
            self._ledger.stamp((lease,))
        generation = resumed(self._ledger, demand, statements, now)
        if generation:
            served.current = generation
            generation.lease = self._reserved(served, generation.admission)
            self._note(Event.ADOPTED, served)
        self._retire((node, held.serial) for node, held in statements if not served.owns(node, held.serial))
        self._record(served)
        ending = served.current is not None and served.current.ends - now < LIFETIME / 2
        recorded = {held.say.rank for _, held in statements if isinstance(held.say.says, PathStatement)}
        self.plan(served, now, renew=ending or len(recorded) > len(served.paths))

    def _enter(self, demand: Demand, now: float) -> Served:
        served = Served(demand, now + LIFETIME, Standing(now))
        self.served[demand.id] = served
        self._keys[demand.source, demand.target, demand.service_class] = served
        return served

    def _decide(self, served: Served, demand: Demand, now: float, renew: bool) -> Refusal | None:
        decision = choose(self._ledger, demand, served.paths, served.standing, served.shuns(now), now, renew=renew)
        served.standing = decision.standing
        if decision.admission is None:
            return decision.refusal
        if self._lay(served, decision.admission, decision.verdict, now):
            return None
        if decision.verdict is Verdict.STAY:
            other = admit(self._ledger.view, self._ledger.reservations, demand, now, self._ledger.policy)
            if isinstance(other, Refusal):
                return other
            if self._lay(served, other, Verdict.FLEE, now):
                return None
        return Refusal(Reason.RATE)

    def _lay(self, served: Served, admission: Admission, verdict: Verdict, now: float) -> bool:
        """Begin to install paths; False where what they need cannot be reserved."""
        admission = policed(admission)
        lease = self._reserved(served, admission)
        if lease is None and admission.link_rate:
            return False
        number = next(self._numbers)
        why = _VERDICTS[verdict] if served.current else Event.INSTALLED
        routes = routes_of(admission, self._source)
        laying = Laying(
            number,
            served.demand.id,
            served.demand.source,
            Generation(admission, lease),
            routes,
            why,
            now + PATIENCE,
        )
        served.laying = laying
        self._layings[number] = served
        self._record(served)
        for node, bundle in laying.begin():
            self._talks.say(node, bundle)
        return True

    def _reserved(self, served: Served, admission: Admission) -> str | None:
        """Reserve what an admission needs beside what its demand has, or else in its place; None: not possible."""
        if not admission.link_rate:
            return None
        lease = admission.lease(identifier(self._source), served.expires)
        if self._ledger.reserve(lease):
            return lease.id
        current = served.current
        former = self._ledger.release(current.lease) if current else None
        if current is None or former is None:
            return None
        if self._ledger.reserve(lease):
            current.lease = None
            return lease.id
        if not self._ledger.reserve(former):
            current.lease = None
        return None

    def _switched(self, served: Served, laying: Laying, starts: tuple[int, ...], now: float) -> None:
        """The source sends over the new paths from now on."""
        former, generation = served.current, laying.generation
        generation.starts = list(starts)
        generation.since, generation.ends = now, now + LIFETIME
        served.current, served.laying, served.demand = generation, None, generation.admission.demand
        del self._layings[laying.number]
        if former:
            self._talks.withdraw(former.serials(served.demand.source), DRAIN)
            self._ledger.release(former.lease)
        served.settled()
        self._record(served)
        self._note(laying.why, served, paths=[list(path.nodes) for path in generation.paths])
        if not self.works(served):
            self.plan(served, now)
        else:
            self._back(served, now)

    def _abort(self, served: Served) -> None:
        """Take back a laying whose paths are not in force."""
        laying = served.laying
        if laying is None:
            return
        self._talks.cancel(laying.number)
        self._talks.withdraw(laying.generation.entries, 0.0)
        self._ledger.release(laying.generation.lease)
        del self._layings[laying.number]
        served.laying = None
        self._record(served)

    def _record(self, served: Served) -> None:
        """Record what a demand has and is about to get."""
        served.recorded = True
        admissions = [generation.admission for generation in reversed(served.generations)]
        self._emit(Remember(promise_of(served.demand, *admissions)))

    def _back(self, served: Served, now: float) -> None:
        """Make sure that what is in force has its reservation: the same, that of other paths, that of those which
        still work; or take it out of force.
        """
        current = served.current
        if not served.reserves or current is None or current.lease or served.laying:
            return
        lease = current.admission.lease(identifier(self._source), served.expires)
        if self._ledger.reserve(lease):
            current.lease = lease.id
            return
        found = admit(self._ledger.view, self._ledger.reservations, served.demand, now, self._ledger.policy)
        if isinstance(found, Admission) and self._lay(served, found, Verdict.FLEE, now):
            return
        working = [path for path in current.paths if self._stands(served, path)]
        if working and len(working) < len(current.paths) and CLASSES[served.demand.service_class].shares == 1:
            less = replace(lease, hops=hops_of(working))
            if self._ledger.reserve(less):
                current.lease = less.id
                self._note(Event.DEGRADED, served)
                served.later(now)
                return
        self.drop(served, now)

    def drop(self, served: Served, now: float) -> None:
        """Take the paths of a demand out of force: what they reserve is not there, or their time is over."""
        current, served.current = served.current, None
        if current is None:
            return
        self._talks.retire(served.demand.source, current.starts, current.entries)
        self._ledger.release(current.lease)
        served.broken = False
        self._record(served)
        self._note(Event.DROPPED, served)
        served.later(now)

    def _retire(self, statements: Iterable[tuple[str, int]]) -> None:
        """Take back statements of which it is not known how they belong together."""
        held = list(self._talks.held(statements))
        starts = [(node, one.serial) for node, one in held if isinstance(one.say.says, PathStatement)]
        entries = [(node, one.serial) for node, one in held if not isinstance(one.say.says, PathStatement)]
        source = starts[0][0] if starts else ""
        self._talks.retire(source, [serial for _, serial in starts], entries)

    def works(self, served: Served) -> bool:
        """Whether a demand has paths in force, and all of them may be used."""
        return bool(served.paths) and not served.broken and all(self._stands(served, path) for path in served.paths)

    def _stands(self, served: Served, path: Path) -> bool:
        demand = served.demand
        return stands(
            self._ledger.view, path, CLASSES[demand.service_class].constraints(demand.rate, demand.constraints)
        )

    def _note(self, kind: Event, served: Served, **facts: Any) -> None:
        demand = served.demand
        ends = {"source": demand.source, "target": demand.target, "class": demand.service_class}
        self._emit(Note(kind, demand.id, ends | facts))
