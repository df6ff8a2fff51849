"""When a CKMS asks the controller for a path: while somebody uses a class for which the paths are missing, ending, or
granted for less than is used.

Sans-IO: time (`now`, seconds of a monotonic clock) and randomness are arguments. A demand is a destination and a class
that this node's AKMS has submitted for of late; of each one request is under way at most. What is refused, or not
answered, is asked again after a pause that grows and is drawn at random, so that nodes which lost the same link do not
ask in step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from keyhaul.randomness import Source, fraction
from keyhaul.transport.messages.path import PathReply, PathRequest
from services.ckms.forwarding import Path
from services.ckms.usage import Usage

MAXIMUM_DEMANDS = 1_024
"""Destinations and classes in demand at a time; of more the one that was used longest ago is forgotten."""

MAXIMUM_UNDER_WAY = 16
"""Requests under way at a time."""

REMEMBERED = 900.0
"""Seconds for which a demand stands after its last submission."""

LEAST_RATE = 16.0
"""Bytes a second: less is never asked for."""

GROWTH = 1.25
"""How many times what is granted to ask for, at least, where that turned out to be too little."""

RAISING = 10.0
"""Seconds before more is asked for again: the average must have followed what was granted."""

SETTLING = 2.0
"""Seconds within which the statements are expected to follow an answer."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
"""Seconds before it is asked again; half of that at least passes."""

SPREAD = 10.0
"""Seconds over which renewals of what came together are spread."""

LONGEST_WAIT = 60.0
"""Seconds: a controller's earliest time counts no further. It says when promises to others end; links that were away
may yield again long before."""


class Need(StrEnum):
    """Why a path is asked for."""

    MISSING = "missing"
    """There is none for the class."""
    FAILED = "failed"
    """There are some, and all of them fail."""
    ENDING = "ending"
    """Half of the lifetime of one is over."""
    NARROW = "narrow"
    """More is used than they are granted for, or this node refused what was submitted."""


PATIENT = (Need.ENDING, Need.NARROW)
"""Needs that others go before."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Where to, and for which class."""

    destination: str
    service_class: str


@dataclass(frozen=True, slots=True)
class Lack:
    """What the paths of a demand want for."""

    need: Need
    failed: str | None = None
    """A neighbour over which the first choice fails."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this to the controller; then call `answered`, or `unanswered`."""

    demand: Demand
    request: PathRequest


@dataclass(frozen=True, slots=True)
class Price:
    """Bits of link key that a bit of CN key costs."""

    paid: float
    undivided: float
    """Of class split: what it would be over the best single path; 0 of other classes."""


@dataclass(slots=True)
class _State:
    used_at: float
    usage: Usage
    refused: int = 0
    """Batches that the present paths had refused when it was asked last."""
    offered: float | None = None
    """Bytes a second to ask for where more was refused just now: half of what would be granted; others want some."""
    price: Price | None = None
    """Of the paths that it was given."""
    need: Need | None = None
    """Found at the last look."""
    under_way: bool = False
    not_before: float = 0.0
    pause: float = FIRST_PAUSE


@dataclass(frozen=True, slots=True)
class Grant:
    """What the paths of a demand may carry."""

    rate: float = math.inf
    """Bytes a second."""
    refused: int = 0
    """Batches that this node refused because they would have been more."""


UNLIMITED = Grant()

Works = Callable[[Path], bool]
"""Whether a path works: the link to its first hop is up, and it is not on probation."""

Remaining = Callable[[int], float]
"""What share of a statement's lifetime is left, 0 to 1, by its serial."""


def lack(paths: Sequence[Path], works: Works, remaining: Remaining) -> Lack | None:
    """What is wanting of the paths that a demand may take; None: nothing.

    Paths of the configuration serve while the controller gave none, and are no reason not to ask for one.

    Args:
        paths: of `ForwardingTable.paths_to` or `shares_to`, in their order.
        works: whether a path works now.
        remaining: of the statements of paths.
    """
    stated = [path for path in paths if path.serial is not None]
    if not stated:
        return Lack(Need.MISSING)
    broken = [path for path in stated if not works(path)]
    if len(broken) == len(stated) or any(path.shares > 1 and _share_is_gone(path, stated, works) for path in broken):
        return Lack(Need.FAILED, broken[0].first.neighbour)
    if any(remaining(path.serial) < 0.5 for path in stated if path.serial is not None):
        return Lack(Need.ENDING, broken[0].first.neighbour if broken else None)
    return None


def _share_is_gone(broken: Path, stated: Iterable[Path], works: Works) -> bool:
    """Whether no other path of its group carries the share of a broken one."""
    return not any(works(path) for path in stated if (path.group, path.share) == (broken.group, broken.share))


def _outgrown(state: _State, grant: Grant, now: float) -> Lack | None:
    """Whether a demand uses more than its paths may carry."""
    narrow = grant.refused > state.refused or state.usage.lately(now) > grant.rate
    return Lack(Need.NARROW) if narrow else None


def _wanted(state: _State, grant: Grant, need: Need, now: float) -> float:
    """The rate to ask for, bytes a second."""
    rate = state.usage.rate(now)
    if need is Need.NARROW:
        rate = max(rate, GROWTH * grant.rate)
    return max(LEAST_RATE, rate if state.offered is None else min(rate, state.offered))


@dataclass(slots=True)
class PathRequests:
    """Which demands there are, and which of them to ask for now."""

    source: Source = field(repr=False)
    _demands: dict[Demand, _State] = field(default_factory=dict)

    @property
    def demands(self) -> tuple[Demand, ...]:
        """What is in demand, the one used longest ago first."""
        return tuple(self._demands)

    @property
    def prices(self) -> dict[Demand, Price]:
        """What CN keys cost, of the demands whose paths the controller told that of."""
        return {demand: state.price for demand, state in self._demands.items() if state.price is not None}

    def used(self, destination: str, service_class: str, length: int, now: float) -> None:
        """This node's AKMS submitted `length` bytes."""
        demand = Demand(destination, service_class)
        state = self._demands.pop(demand, None)
        if state is None:
            if len(self._demands) >= MAXIMUM_DEMANDS:
                del self._demands[next(iter(self._demands))]
            state = _State(now, Usage(now))
        state.usage.add(length, now)
        state.used_at = now
        self._demands[demand] = state

    def due(
        self, lacking: Callable[[Demand], Lack | None], granted: Callable[[Demand], Grant], now: float
    ) -> list[Ask]:
        """What to ask for now.

        Args:
            lacking: what the paths of a demand want for now, see `lack`.
            granted: what they may carry.
            now: seconds.
        """
        for demand in [one for one, state in self._demands.items() if now - state.used_at > REMEMBERED]:
            del self._demands[demand]
        free = MAXIMUM_UNDER_WAY - sum(state.under_way for state in self._demands.values())
        asked: list[tuple[Need, Ask]] = []
        for demand, state in self._demands.items():
            if state.under_way:
                continue
            grant = granted(demand)
            state.refused = min(state.refused, grant.refused)
            found = lacking(demand) or _outgrown(state, grant, now)
            self._look(state, None if found is None else found.need, now)
            if found is None or now < state.not_before:
                continue
            request = PathRequest(
                destination=demand.destination,
                service_class=demand.service_class,
                rate=_wanted(state, grant, found.need, now),
                failed=found.failed,
            )
            asked.append((found.need, Ask(demand, request)))
        asked.sort(key=lambda one: one[0] in PATIENT)
        taken = [ask for _, ask in asked[: max(0, free)]]
        for ask in taken:
            state = self._demands[ask.demand]
            state.under_way, state.refused = True, granted(ask.demand).refused
        return taken

    def answered(self, demand: Demand, reply: PathReply, now: float) -> None:
        """The leading controller answered: statements follow, or it refused."""
        state = self._demands.get(demand)
        if state is None:
            return
        state.under_way = False
        offered, state.offered = state.offered, None
        if reply.price or reply.refusal is not None:
            state.price = Price(reply.price, reply.undivided) if reply.price else None
        if reply.refusal is None:
            # Statements that do not come are as good as no answer: the next look finds out.
            self._pause(state, RAISING if state.need is Need.NARROW else SETTLING, now)
        elif offered is None and reply.rate >= LEAST_RATE:
            state.offered, state.not_before = max(LEAST_RATE, reply.rate / 2), now
        else:
            self._pause(state, min(LONGEST_WAIT, max(0.0, reply.earliest_s)), now)

    def unanswered(self, demand: Demand, now: float) -> None:
        """No controller could be reached, or none of them leads."""
        state = self._demands.get(demand)
        if state is not None:
            state.under_way = False
            self._pause(state, 0.0, now)

    def _look(self, state: _State, need: Need | None, now: float) -> None:
        """What was asked for one need says nothing of when to ask for a more pressing one."""
        if need is None:
            state.pause = FIRST_PAUSE
        elif need is Need.ENDING and state.need is None:
            state.not_before = max(state.not_before, now + SPREAD * fraction(self.source))
        elif need not in PATIENT and state.need in PATIENT:
            state.pause, state.not_before = FIRST_PAUSE, now
        state.need = need

    def _pause(self, state: _State, least: float, now: float) -> None:
        state.not_before = now + least + state.pause * (0.5 + 0.5 * fraction(self.source))
        state.pause = min(LONGEST_PAUSE, 2 * state.pause)
