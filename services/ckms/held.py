"""What is known of the statements of one CKMS: those in force, how far serials have grown, and what changes it.

Sans-IO. Times are seconds of the node's own time (see `own_time`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from keyhaul.agents.signing import SignedStatement
from keyhaul.agents.statements import (
    EntryStatement,
    PathStatement,
    StatedHop,
    Statement,
    StatementRefusal,
    StatementRefused,
    Withdrawal,
)
from services.ckms.forwarding import Entry, Hop, Path, PathLabel
from services.ckms.policing import Limit


@dataclass(frozen=True, slots=True)
class Held:
    """A statement in force, or a withdrawn entry that drains."""

    statement: Statement
    signed: SignedStatement
    accepted: float
    """Own time."""
    drained: float | None = None
    """Own time at which it ends for good, where it was withdrawn."""

    @property
    def expires(self) -> float:
        """Own time at which its lifetime is over."""
        return self.accepted + self.statement.lifetime_s

    def remaining(self, now: float) -> float:
        """Seconds until its lifetime is over, or until it is drained."""
        return max(0.0, (self.expires if self.drained is None else self.drained) - now)


@dataclass(frozen=True, slots=True)
class HighWater:
    """How far (epoch, serial) has grown."""

    epoch: int = 0
    serial: int = 0
    doubt: bool = True
    """Whether it may have grown further than this node knows."""

    @property
    def number(self) -> tuple[int, int]:
        """Epoch and serial, as statements are ordered."""
        return self.epoch, self.serial


@dataclass(frozen=True, slots=True)
class KeptStatement:
    """A statement as the store has it."""

    serial: int
    signed: SignedStatement
    accepted: float
    drained: float | None


@dataclass(frozen=True, slots=True)
class Kept:
    """All that the store has."""

    high: HighWater = HighWater()
    keys: frozenset[str] = frozenset()
    """Fingerprints of the statement keys that were pinned."""
    statements: tuple[KeptStatement, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What follows from a transition: to be kept by `write`, then taken."""

    high: HighWater
    written: tuple[Held, ...] = ()
    """New, or changed."""
    ended: tuple[int, ...] = ()
    """Serials."""
    fresh: tuple[int, int] | None = None
    """Epoch and serial of the first statement that named this process, if one did."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A kept statement that is not in force any more, because it does not verify or does not fit."""

    serial: int
    why: StatementRefusal


Place = tuple[str | int | None, ...]
"""What two statements must share for the later one to take the place of the earlier."""


class Effects:
    """What the statements of one Set change, as they take effect one after the other; what is held stays as it is.

    Args:
        held: what is in force, by serial.
        places: the serials of those, by their places.
    """

    def __init__(self, held: Mapping[int, Held], places: Mapping[Place, int]) -> None:
        self._held = held
        self._places = places
        self._changed: dict[int, Held | None] = {}
        self._moved: dict[Place, int | None] = {}

    @property
    def written(self) -> tuple[Held, ...]:
        """What is new, or changed."""
        return tuple(held for held in self._changed.values() if held is not None)

    @property
    def ended(self) -> tuple[int, ...]:
        """Serials of what was held and is no more."""
        return tuple(serial for serial, held in self._changed.items() if held is None and serial in self._held)

    def apply(self, new: Held) -> None:
        """Let a statement take effect.

        Raises:
            StatementRefused: unfit: its serial is in force, or it withdraws what is later than itself.
        """
        serial, says = new.statement.serial, new.statement.says
        if self._find(serial) is not None:
            raise StatementRefused(
                StatementRefusal.UNFIT, "another statement of this serial is in force", serial=serial
            )
        if isinstance(says, Withdrawal):
            if max(says.serials, default=0) >= serial:
                raise StatementRefused(StatementRefusal.UNFIT, "it withdraws what is later than itself", serial=serial)
            for withdrawn in says.serials:
                self._withdraw(withdrawn, says.drain_s, new.accepted)
            return
        place = place_of(new)
        former = self._moved[place] if place in self._moved else self._places.get(place)
        if former is not None:
            self._changed[former] = None
        self._changed[serial] = new
        self._moved[place] = serial

    def _find(self, serial: int) -> Held | None:
        return self._changed[serial] if serial in self._changed else self._held.get(serial)

    def _withdraw(self, serial: int, drain: float, now: float) -> None:
        """Begin to drain an entry; a path takes nothing new, and what left by it needs it no more."""
        found = self._find(serial)
        if found is None:
            return
        if isinstance(found.statement.says, EntryStatement) and drain > 0:
            until = now + drain if found.drained is None else min(found.drained, now + drain)
            self._changed[serial] = replace(found, drained=until)
        else:
            self._changed[serial] = None
            self._moved[place_of(found)] = None


def row_of(held: Held) -> Entry | Path:
    """The row of the forwarding table that a statement makes."""
    match held.statement.says:
        case EntryStatement() as says:
            return _entry_of(says, held.statement.serial)
        case PathStatement() as says:
            return _path_of(says, held.statement.serial)
        case Withdrawal():
            raise AssertionError("a withdrawal is never held")


def _entry_of(says: EntryStatement, serial: int) -> Entry:
    """The forwarding entry that a statement makes."""
    return Entry(
        PathLabel(says.label),
        says.previous,
        _hop(says.next),
        says.service_class,
        Limit(says.rate, says.burst),
        detour=_hop(says.detour),
        serial=serial,
    )


def _path_of(says: PathStatement, serial: int) -> Path:
    """The path that a statement makes."""
    return Path(
        says.destination,
        says.rank,
        Hop(says.first.neighbour, PathLabel(says.first.label)),
        says.service_class,
        Limit(says.rate, says.burst),
        group=says.group,
        share=says.share,
        shares=says.shares,
        serial=serial,
    )


def _hop(stated: StatedHop | None) -> Hop | None:
    return None if stated is None else Hop(stated.neighbour, PathLabel(stated.label))


def place_of(held: Held) -> Place:
    """The place that a statement takes."""
    match held.statement.says:
        case EntryStatement() as says:
            return "entry", says.previous, says.label
        case PathStatement() as says:
            return "path", says.destination, says.service_class, says.rank
        case Withdrawal():
            raise AssertionError("a withdrawal is never held")
