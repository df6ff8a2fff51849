"""Paths come into force and go out of it: laying, switching, taking back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count

from controller.admission.admit import Admission
from controller.admission.classes import CLASSES
from controller.steering.conversation import Bundle, Held, Placed
from controller.steering.detours import Detour
from controller.steering.effects import Confirm, Effect
from controller.steering.events import Event
from controller.steering.laying import PATIENCE, Laying, starts_of
from controller.steering.ledger import Ledger
from controller.steering.planning import is_forbidden
from controller.steering.reserving import Reserving
from controller.steering.retiring import Retiring
from controller.steering.roll import Roll
from controller.steering.routes import ENTRY_LIFETIME, LIFETIME, Generation, Lane, Routes, policed, routes_of
from controller.steering.served import Served
from controller.steering.talks import DRAIN, Talks
from keyhaul.agents.statements import PathStatement
from keyhaul.randomness import Source

MOST = 64
"""Layings under way at a time; others wait for their turn, so that after a great fault some demands have paths soon,
and no node is told more than it can take in time."""


class Installation:
    """All layings under way.

    Args:
        ledger: what is promised.
        reserving: takes what paths need.
        talks: the conversations with the nodes.
        retiring: takes paths back.
        roll: the demands.
        source: draws labels.
        emit: takes the effects.
    """

    def __init__(
        self,
        ledger: Ledger,
        reserving: Reserving,
        talks: Talks,
        retiring: Retiring,
        roll: Roll,
        source: Source,
        emit: Callable[[Effect], None],
    ) -> None:
        self._ledger = ledger
        self._reserving = reserving
        self._talks = talks
        self._retiring = retiring
        self._roll = roll
        self._source = source
        self._emit = emit
        self._laying: dict[int, Served] = {}
        """Whose laying has that number."""
        self._waiting: dict[int, None] = {}
        """Those that have not begun, in their order."""
        self._numbers = count(1)

    def clear(self) -> None:
        """Forget all."""
        self._laying, self._waiting = {}, {}

    @property
    def under_way(self) -> int:
        """How many layings there are."""
        return len(self._laying)

    def find(self, number: int) -> Served | None:
        """The demand that a laying under way is for."""
        return self._laying.get(number)

    def lay(
        self,
        served: Served,
        admission: Admission,
        why: Event,
        now: float,
        around: Sequence[Detour] | None = None,
        *,
        anew: bool = False,
    ) -> bool:
        """Begin to install paths; False where what they need cannot be reserved.

        Args:
            served: whose.
            admission: the paths.
            why: what it will be told as.
            now: seconds.
            around: the detours of the first path; None: they come later, when all is calm.
            anew: lay those of its paths anew, too, that are in force.
        """
        admission = policed(admission)
        lease = self._reserving.hold(served, admission)
        if lease is None and admission.link_rate:
            return False
        kept = () if anew else self._kept(served, admission, now)
        routes = routes_of(admission, around, kept, self._source)
        generation = Generation(admission, routes.lanes, calm=around is not None, lease=lease)
        self._enter(served, Laying(next(self._numbers), generation, routes, why), now)
        return True

    def prolong(self, served: Served, now: float) -> None:
        """Have the source keep the paths in force for longer, with what is reserved for them; nobody else is told."""
        current, source = served.current, served.demand.source
        assert current is not None, "paths are in force"
        held = [one.say.says for _, one in self._talks.held((source, serial) for serial in current.starts)]
        starts = tuple(says for says in held if isinstance(says, PathStatement))
        generation = replace(current, lease=None, starts=[])
        routes = Routes(current.lanes, (), starts)
        self._enter(served, Laying(next(self._numbers), generation, routes, Event.PROLONGED), now)

    def _kept(self, served: Served, admission: Admission, now: float) -> tuple[Lane, ...]:
        """The lanes of a demand that other paths can be put beside.

        They are as young as what a CKMS asks to have renewed is not: so no entry gets older than a path may.
        """
        current, demand, view = served.current, served.demand, self._ledger.view
        if current is None or served.broken or CLASSES[demand.service_class].shares > 1:
            return ()
        if admission.limit != current.admission.limit:
            return ()
        young = now + ENTRY_LIFETIME - LIFETIME / 2
        return tuple(
            lane
            for lane in current.lanes
            if not any(is_forbidden(view, demand, way) for way in lane.ways)
            and all(held.ends >= young for _, held in self._talks.held(lane.entries))
        )

    def _enter(self, served: Served, laying: Laying, now: float) -> None:
        served.laying = laying
        self._laying[laying.number] = served
        self._waiting[laying.number] = None
        self._roll.record(served)
        self.go_on(now)

    def placed(self, placed: Placed, now: float) -> Served | None:
        """Statements are in force: go on with what they are part of; return the demand whose paths they put in force,
        if they do.
        """
        served, bundle = self._laying.get(placed.bundle.laying), placed.bundle
        if served is None or served.laying is None:
            self._talks.withdraw(((placed.node, serial) for serial in placed.serials), 0.0)
            return None
        starts = starts_of(bundle, placed.serials)
        self._emit(Confirm(starts or placed.serials))
        if starts:
            return self._switched(served, served.laying, starts, now)
        laying = served.laying
        self._say(served, laying, laying.entered(placed.node, placed.serials[0], bundle.part))
        return None

    def settled(self, node: str, statements: Iterable[Held], now: float) -> Iterator[Served]:
        """A node has these, which was not sure; yield the demands whose paths they put in force."""
        starts: dict[int, list[int]] = defaultdict(list)
        strays = []
        for held in statements:
            served = self._roll.served.get(held.say.demand)
            if held.laying in self._laying and isinstance(held.say.says, PathStatement):
                starts[held.laying].append(held.serial)
            elif served is None or not (served.adopting or served.owns(node, held.serial)):
                if held.laying:
                    strays.append((node, held.serial))
            elif served.current:
                served.current.ends = min(served.current.ends, held.ends)
        self._talks.withdraw(strays, DRAIN)
        for number, serials in starts.items():
            served = self._laying.get(number)
            if served is not None and served.laying is not None:
                self._emit(Confirm(tuple(serials)))
                yield self._switched(served, served.laying, tuple(serials), now)

    def is_switch(self, bundle: Bundle) -> bool:
        """Whether a bundle is what puts the paths of a laying in force."""
        served = self._laying.get(bundle.laying)
        return served is not None and served.laying is not None and served.laying.switching

    def may_end(self, served: Served) -> bool:
        """Whether it is known, as far as it can be, what of a demand is in force."""
        laying = served.laying
        return laying is None or not self._talks.is_under_way(laying.source, laying.number)

    def abort(self, served: Served) -> None:
        """Take back a laying whose paths are not in force."""
        laying = served.laying
        if laying is None:
            return
        self._talks.cancel(laying.number)
        self._talks.withdraw(laying.generation.beside(served.current), 0.0)
        self._ledger.release(laying.generation.lease)
        self._over(laying)
        served.laying = None
        self._roll.record(served)

    def drop(self, served: Served, now: float, why: str) -> None:
        """Take the paths of a demand out of force; `why`, as operators are told."""
        current, served.current = served.current, None
        if current is None:
            return
        served.retire(current, now)
        left = current.beside(served.laying.generation if served.laying else None)
        self._retiring.retire(served.demand.source, current.starts, left)
        self._ledger.release(current.lease)
        served.broken = False
        self._roll.record(served)
        self._roll.note(Event.DROPPED, served, why=why)
        served.later(now)

    def end(self, served: Served) -> None:
        """Take back all that is installed of a demand, or about to be."""
        starts = [serial for generation in served.generations for serial in generation.starts]
        entries = [entry for generation in served.generations for entry in generation.entries]
        if laying := served.laying:
            self._talks.cancel(laying.number)
            self._over(laying)
            if laying.switching:
                starts += self._talks.perhaps(laying.source, laying.number)
        self._retiring.retire(served.demand.source, starts, dict.fromkeys(entries))

    def go_on(self, now: float) -> None:
        """Begin with what waits, as far as there is room."""
        room = MOST - len(self._laying) + len(self._waiting)
        for number in [number for number, _ in zip(self._waiting, range(room), strict=False)]:
            del self._waiting[number]
            served = self._laying[number]
            laying = served.laying
            assert laying is not None
            laying.deadline = now + PATIENCE
            self._say(served, laying, laying.begin())

    def _say(self, served: Served, laying: Laying, following: list[tuple[str, Bundle]]) -> None:
        """Say what follows in a laying: more entries, or at last that its paths begin."""
        if laying.entered_all:
            following = [laying.switch(tuple(served.current.starts) if served.current else ())]
        for node, bundle in following:
            self._talks.say(node, bundle)

    def _over(self, laying: Laying) -> None:
        """A laying is done, or given up."""
        del self._laying[laying.number]
        self._waiting.pop(laying.number, None)

    def _switched(self, served: Served, laying: Laying, starts: tuple[int, ...], now: float) -> Served:
        """The source sends over the new paths from now on; what only the former ones used drains."""
        self._over(laying)
        former, generation = served.current, laying.generation
        served.current, served.laying, served.demand = generation, None, generation.admission.demand
        generation.starts, generation.since = list(starts), now
        generation.ends = min([now + LIFETIME, *(held.ends for _, held in self._talks.held(generation.entries))])
        if former:
            served.retire(former, now)
            source = served.demand.source
            self._talks.withdraw([*((source, serial) for serial in former.starts), *former.beside(generation)], DRAIN)
            if generation.lanes == former.lanes:
                generation.lease, former.lease, generation.since = former.lease, None, former.since
            self._ledger.release(former.lease)
        served.settled()
        self._roll.record(served)
        self._roll.note(laying.why, served, paths=[list(path.nodes) for path in generation.paths])
        return served
