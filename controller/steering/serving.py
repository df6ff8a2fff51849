"""What is decided for each demand, and what follows from what nodes take, refuse and lose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from controller.admission.admit import Admission, Demand, admit, possible
from controller.admission.classes import CLASSES
from controller.admission.refusal import Reason, Refusal
from controller.admission.reoptimise import Verdict, stands
from controller.paths.compute import Path
from controller.steering.conversation import Held, Placed
from controller.steering.detours import Detour, detours
from controller.steering.events import Event
from controller.steering.hearing import Hearing
from controller.steering.installation import Installation
from controller.steering.laying import Laying
from controller.steering.ledger import Ledger
from controller.steering.planning import along, choose, is_forbidden
from controller.steering.reserving import Reserving
from controller.steering.roll import Roll
from controller.steering.served import Served
from controller.steering.talks import Talks

ATTEMPTS = 3
"""Layings that may fail before the next waits for a pause."""

CALM = 10.0
"""Seconds for which paths are in force before they get detours: what moves again soon is not worth them."""

MOST_CALM = 4
"""Layings under way at which no more are begun that only bring detours."""

WORTH = 1.25
"""How many times its rate a demand must get for new paths to be worth it, where it does not get all it asks for."""

_VERDICTS = {Verdict.STAY: Event.RENEWED, Verdict.MOVE: Event.MOVED, Verdict.FLEE: Event.MOVED}


class Serving:
    """Serves the demands.

    Args:
        ledger: what is known and promised.
        reserving: takes what paths need.
        installation: brings paths in force.
        talks: the conversations with the nodes.
        roll: the demands.
        hearing: which nodes tell nothing.
    """

    def __init__(
        self,
        ledger: Ledger,
        reserving: Reserving,
        installation: Installation,
        talks: Talks,
        roll: Roll,
        hearing: Hearing,
    ) -> None:
        self._ledger = ledger
        self._reserving = reserving
        self._installation = installation
        self._talks = talks
        self._roll = roll
        self._hearing = hearing

    def plan(self, served: Served, now: float, *, renew: bool = False, rate: int | None = None) -> Refusal | None:
        """Decide what is best for a demand now, at another rate if one is given, and begin with it; return why it does
        not get all that its class demands, if so.

        Of a rate that cannot be granted it gets a part if there is one that is worth it, or keeps what it has. What is
        renewed is laid anew, unless it leads over nodes that cannot be told anything: then it goes on as it is.
        """
        served.urgent = None
        if served.adopting or (served.laying and self._switches(served.laying)):
            return None
        if served.laying:
            self._installation.abort(served)
        if renew and self.is_unheard(served):
            self._installation.prolong(served, now)
            return None
        forbidden = any(is_forbidden(self._ledger.view, served.demand, path) for path in served.ways)
        renew = renew or served.broken or forbidden
        asked = served.demand if rate is None else replace(served.demand, rate=rate)
        refusal = self._decide(served, asked, now, renew or asked != served.demand)
        if asked != served.demand:
            unmet = refusal is not None and served.laying is None and served.current is not None
            if unmet and not served.unmet:
                assert refusal is not None
                self._roll.note(Event.NOT_RAISED, served, rate=served.demand.rate, asked=rate, reason=refusal.why)
            served.unmet = asked.rate if unmet else 0
            if unmet:
                refusal = self._settle_for_less(served, now, renew)
        if served.laying is None:
            self._back(served, now)
        self._judge(served, refusal)
        if served.laying:
            served.retry_at = min(served.retry_at, served.laying.deadline)
        elif refusal is None:
            served.retry_at = inf
        else:
            if served.broken or forbidden:
                self._installation.drop(served, now, "broken" if served.broken else "not allowed")
            served.later(now)
        return refusal

    def calm(self, served: Served, now: float) -> None:
        """See whether paths that have been in force for a while can have detours, and install them anew if so."""
        current = served.current
        if current is None or current.calm or served.laying or served.failures or not self.works(served):
            return
        if now - current.since < CALM or self._installation.under_way >= MOST_CALM:
            return
        current.calm = True
        around = self._detours(served, current.admission)
        if around and not current.lanes[0].is_along(current.paths[0], around):
            again = along(self._ledger, served.demand, current.paths)
            self._installation.lay(served, again, Event.PROTECTED, now, around)

    def placed(self, placed: Placed, now: float) -> None:
        """Statements are in force: go on with what they are part of."""
        served = self._installation.placed(placed, now)
        if served is not None:
            self._switched(served, now)

    def settled(self, node: str, statements: Iterable[Held], now: float) -> None:
        """A node has these, which was not sure."""
        for served in self._installation.settled(node, statements, now):
            self._switched(served, now)

    def failed(self, number: int, node: str, now: float) -> None:
        """A node did not take what is part of a laying, or is not known to have: give it up, unless that may be."""
        served = self._installation.find(number)
        if served is None or served.laying is None:
            return
        self._roll.note(Event.NOT_INSTALLED, served, node=node)
        self._installation.abort(served)
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

    def late(self, served: Served, now: float) -> None:
        """Give up a laying that waits for too long, unless its paths may be in force."""
        laying = served.laying
        if laying is None or now < laying.deadline:
            return
        if self._switches(laying):
            return
        # A node that takes statements, and has others to take before, is no fault.
        if waits := [node for node in laying.waits_for if not self._talks.is_ready(node)]:
            self.failed(laying.number, waits[0], now)

    def lost(self, node: str, statements: Iterable[Held], now: float) -> None:
        """A node does not have these."""
        broken: dict[str, Served] = {}
        for held in statements:
            served = self._roll.served.get(held.say.demand)
            if served is None or served.adopting:
                continue
            if served.laying and (
                held.laying == served.laying.number or (node, held.serial) in served.laying.generation.entries
            ):
                self.failed(served.laying.number, node, now)
            current = served.current
            if current and current.has(served.demand.source, node, held.serial):
                current.lose(node, held.serial)
                broken[served.demand.id] = served
        for served in broken.values():
            served.broken = True
            self._roll.note(Event.LOST, served, node=node)
            self.plan(served, now)

    def shed(self, now: float) -> None:
        """Take back what is promised of rates that are not there any more."""
        for lease in self._ledger.shed(now):
            served = self._roll.served.get(lease.demand)
            if served is None:
                continue
            if served.laying and served.laying.generation.lease == lease.id:
                served.laying.generation.lease = None
                if not served.laying.switching:
                    self._installation.abort(served)
            if served.current and served.current.lease == lease.id:
                served.current.lease = None
            self._back(served, now)

    def is_unheard(self, served: Served) -> bool:
        """Whether nothing is known to be wrong with a demand's paths, but that nodes on them are not heard: they are
        cut off from the controller, and not from each other. Such paths are left alone, so that nothing moves when
        the nodes are heard again one after the other.
        """
        if served.laying is not None or served.broken or not served.paths:
            return False
        view = self._ledger.view
        if any(is_forbidden(view, served.demand, path) for path in served.ways):
            return False
        down = [link for path in served.paths for name in path.links if not (link := view.link(name)).up]
        return bool(down) and all({link.a, link.b} & self._hearing.cut_off for link in down)

    def works(self, served: Served) -> bool:
        """Whether a demand has paths in force, and all of them may be used."""
        return bool(served.paths) and not served.broken and all(self._stands(served, path) for path in served.paths)

    def _switches(self, laying: Laying) -> bool:
        """Whether its paths may be in force, or come to be: it cannot be given up."""
        return laying.switching and not self._talks.waits(laying.source, laying.number)

    def _decide(self, served: Served, demand: Demand, now: float, renew: bool) -> Refusal | None:
        """Begin with what is best for a demand; return why it does not get all that its class demands, if so."""
        decision = choose(self._ledger, demand, served.paths, served.standing, served.shuns(now), now, renew=renew)
        served.standing = decision.standing
        if decision.admission is None or self._lay(served, decision.admission, decision.verdict, now):
            return decision.refusal
        if decision.verdict is Verdict.STAY:
            other = admit(self._ledger.view, self._ledger.reservations, demand, now, self._ledger.policy)
            if isinstance(other, Refusal):
                if served.weakened:
                    self._lay_bare(served, demand, now)
                return other
            if self._lay(served, other, Verdict.FLEE, now):
                return None
        return Refusal(Reason.RATE)

    def _settle_for_less(self, served: Served, now: float, renew: bool) -> Refusal | None:
        """Give a demand half of what could be had beyond what it has, since others want some; else what it has."""
        demand = served.demand
        rate = (demand.rate + possible(self._ledger.view, self._ledger.reservations, demand)) // 2
        if rate >= WORTH * demand.rate and self._decide(served, replace(demand, rate=rate), now, True) is None:
            return None
        return self._decide(served, demand, now, renew)

    def _judge(self, served: Served, refusal: Refusal | None) -> None:
        """Tell whether a demand has what its class demands, where that is new."""
        before = served.refusal
        if refusal is not None:
            served.refusal = refusal
            if before is None or before.reason is not refusal.reason:
                self._roll.note(Event.DEGRADED if served.paths else Event.REFUSED, served, reason=refusal.why)
        elif not served.weakened:
            served.refusal = None
            if before is not None and served.current and served.laying is None:
                self._roll.note(Event.RESTORED, served)

    def _lay(self, served: Served, admission: Admission, verdict: Verdict, now: float) -> bool:
        """Begin to install paths; False where what they need cannot be reserved.

        Paths that are new go in without detours, which would only make those who have none wait.
        """
        why = _VERDICTS[verdict] if served.current else Event.INSTALLED
        around, anew = None, verdict is Verdict.STAY
        if anew and served.current and served.current.calm and not served.failures:
            around = self._detours(served, admission)
        return self._installation.lay(served, admission, why, now, around, anew=anew)

    def _detours(self, served: Served, admission: Admission) -> tuple[Detour, ...]:
        return detours(self._ledger.view, served.demand, admission.paths[0], self._ledger.policy)

    def _switched(self, served: Served, now: float) -> None:
        """New paths are in force; the network may have changed while they were laid."""
        if not self.works(served):
            self.plan(served, now)
        else:
            self._back(served, now)

    def _back(self, served: Served, now: float) -> None:
        """Make sure that what is in force has its reservation: the same, that of other paths, that of one path where
        the class demands two; or take it out of force.
        """
        current = served.current
        if not served.reserves or current is None or current.lease or served.laying:
            return
        if self._reserving.hold_again(served, current.paths):
            return
        found = admit(self._ledger.view, self._ledger.reservations, served.demand, now, self._ledger.policy)
        if isinstance(found, Admission) and self._lay(served, found, Verdict.FLEE, now):
            return
        if isinstance(found, Refusal) and CLASSES[served.demand.service_class].needs_backup:
            working = [path for path in current.paths if self._stands(served, path)]
            less = 0 < len(working) < len(current.paths) and self._reserving.hold_again(served, working)
            if less or self._lay_bare(served, served.demand, now):
                self._judge(served, found)
                served.later(now)
                return
        self._installation.drop(served, now, "no rate")

    def _lay_bare(self, served: Served, demand: Demand, now: float) -> bool:
        """Begin to install one path where the class demands two; False where there is none."""
        found = admit(self._ledger.view, self._ledger.reservations, demand, now, self._ledger.policy, bare=True)
        return isinstance(found, Admission) and self._lay(served, found, Verdict.FLEE, now)

    def _stands(self, served: Served, path: Path) -> bool:
        demand = served.demand
        return stands(
            self._ledger.view, path, CLASSES[demand.service_class].constraints(demand.rate, demand.constraints)
        )
