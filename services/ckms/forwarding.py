"""The forwarding table: what to do with a label that comes in over a neighbour, and which paths start here.

Sans-IO. What the configuration says (static) and what the controller's statements say stand side by side: a label is
one or the other's, and of the paths to a destination those of the statements come first. Whole tables and changes are
taken all or none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NewType

from keyhaul.keys.grants import SERVICE_CLASSES, SPLIT
from services.ckms.policing import USUAL, Limit

PathLabel = NewType("PathLabel", str)
"""16 hexadecimal digits that name a path on one hop; the next hop knows it under another."""

_LABEL = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Hop:
    """A neighbour (service id, e.g. ``ckms-9``) and the label under which it knows the path."""

    neighbour: str
    label: PathLabel


@dataclass(frozen=True, slots=True)
class Entry:
    """What to do with a batch that comes in over `previous` under `label`."""

    label: PathLabel
    previous: str
    next: Hop | None
    """None: deliver to the AKMS of this node."""
    service_class: str | None = None
    """The class of what comes under this label; None: any."""
    limit: Limit = USUAL
    """What this node lets through."""
    detour: Hop | None = None
    """Where to send while the link to `next` is down."""
    serial: int | None = None
    """Of the statement that says so; None: the configuration does."""


@dataclass(frozen=True, slots=True)
class Path:
    """A path that starts here."""

    destination: str
    """Service id of the CKMS at its end."""
    rank: int
    """0: first choice."""
    first: Hop
    service_class: str | None = None
    """For batches of this class; None: for classes without paths of their own."""
    limit: Limit = USUAL
    """What this node lets in."""
    group: str = ""
    """The demand that it serves."""
    share: int = 0
    """Which share of a key it carries."""
    shares: int = 1
    """How many shares there are; paths of different shares of one group meet nowhere in between."""
    serial: int | None = None
    """Of the statement that says so; None: the configuration does."""


class InvalidForwarding(ValueError):
    """A table that was refused whole; `errors` says everything that is wrong with it."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


Row = Entry | Path


class ForwardingTable:
    """The entries and paths in force.

    Args:
        own: this CKMS's service id.
        neighbours: service ids of the CKMSs at the other ends of its links.
        delivers: whether there is an AKMS at this node to deliver to.
    """

    def __init__(self, own: str, neighbours: Iterable[str], *, delivers: bool) -> None:
        self.changes = 0
        """How often something else was put in force."""
        self._rows = _Rows(own, frozenset(neighbours), delivers)

    def lookup(self, label: str, previous: str) -> Entry | None:
        """The entry for a label that came in over that neighbour, None where there is none."""
        return self._rows.entries.get((label, previous))

    def paths_to(self, destination: str, service_class: str | None = None) -> tuple[Path, ...]:
        """The paths to a CKMS for a class: those of statements, then static ones, each in the order of rank.

        A class without paths of its own takes those that are for any. One to which a statement gave paths by its name
        takes no other: they may be weaker. For class split see `shares_to`; it has none here.
        """
        if service_class == SPLIT:
            return ()
        paths = self._rows.ranked
        named = paths.get((destination, service_class, False), ())
        if named and service_class is not None:
            return named + paths.get((destination, service_class, True), ())
        return paths.get((destination, None, False), ()) + (
            paths.get((destination, service_class, True), ()) or paths.get((destination, None, True), ())
        )

    def shares_to(self, destination: str) -> tuple[Path, ...]:
        """The paths to a CKMS for the shares of class split, in the order of rank."""
        return self._rows.ranked.get((destination, SPLIT, False), ())

    def places(self) -> Iterator[tuple[str, str]]:
        """Where batches are policed: (previous hop, label) of each entry, (first hop, label) of each path."""
        yield from ((previous, label) for label, previous in self._rows.entries)
        yield from ((path.first.neighbour, path.first.label) for path in self.paths)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries in force."""
        return tuple(self._rows.entries.values())

    @property
    def paths(self) -> tuple[Path, ...]:
        """All paths in force, those of statements first."""
        ranked = self._rows.ranked.items()
        return tuple(path for origin in (False, True) for end, paths in ranked if end[2] is origin for path in paths)

    def replace(self, entries: Iterable[Entry], paths: Iterable[Path]) -> None:
        """Put another table in force, whole.

        Raises:
            InvalidForwarding: anything in it is wrong; the old table stays.
        """
        self.amend((*self.entries, *self.paths), (*entries, *paths))

    def configure(self, neighbours: Iterable[str], entries: Iterable[Entry], paths: Iterable[Path]) -> None:
        """Put other neighbours, and another configuration's rows, in the place of the former; statements' rows stay.

        Raises:
            InvalidForwarding: one of the rows is wrong; nothing has changed.
        """
        rows: tuple[Row, ...] = (*self.entries, *self.paths)
        static = [row for row in rows if row.serial is None]
        with self._rows.among(frozenset(neighbours)):
            self.amend(static, (*entries, *paths))

    def amend(self, former: Iterable[Row], latter: Iterable[Row]) -> None:
        """Put rows in the place of others, all or none; what it costs does not grow with the table.

        Raises:
            InvalidForwarding: the table would be wrong; it stays as it was.
        """
        self._rows.exchange(tuple(former), tuple(latter))
        self.changes += 1

    def check(self, former: Iterable[Row], latter: Iterable[Row]) -> None:
        """Find out whether `amend` would do it.

        Raises:
            InvalidForwarding: it would not.
        """
        former, latter = tuple(former), tuple(latter)
        self._rows.exchange(former, latter)
        self._rows.exchange(latter, former)


class _Rows:
    """The rows of a table, and what must be unique among them."""

    def __init__(self, own: str, neighbours: frozenset[str], delivers: bool) -> None:
        self.entries: dict[tuple[str, str], Entry] = {}
        """By label and previous hop."""
        self.ranked: dict[tuple[str, str | None, bool], tuple[Path, ...]] = {}
        """By destination, class and whether they are static, in the order of rank."""
        self._own = own
        self._neighbours = neighbours
        self._delivers = delivers
        self._leaving: set[Hop] = set()
        self._shares: dict[tuple[str, str], set[Path]] = {}
        """By group and first neighbour."""

    @contextmanager
    def among(self, neighbours: frozenset[str]) -> Iterator[None]:
        """Have these neighbours from now on; the former ones again if that fails."""
        before, self._neighbours = self._neighbours, neighbours
        try:
            yield
        except InvalidForwarding:
            self._neighbours = before
            raise

    def exchange(self, former: tuple[Row, ...], latter: tuple[Row, ...]) -> None:
        """Take rows out and others in.

        Raises:
            InvalidForwarding: one of those does not fit; nothing has changed.
        """
        for row in former:
            self._remove(row)
        errors: list[str] = []
        added: list[Row] = []
        for row in latter:
            faults = self._faults_of_entry(row) if isinstance(row, Entry) else self._faults_of_path(row)
            errors += [f"{_name(row)}: {fault}" for fault in faults]
            if not faults:
                self._add(row)
                added.append(row)
        if errors:
            for row in added:
                self._remove(row)
            for row in former:
                self._add(row)
            raise InvalidForwarding(errors)

    def _add(self, row: Row) -> None:
        if isinstance(row, Entry):
            self.entries[row.label, row.previous] = row
        else:
            end = _end(row)
            self.ranked[end] = tuple(sorted((*self.ranked.get(end, ()), row), key=lambda path: path.rank))
            if row.shares > 1:
                self._shares.setdefault((row.group, row.first.neighbour), set()).add(row)
        self._leaving.update(_hops(row))

    def _remove(self, row: Row) -> None:
        if isinstance(row, Entry):
            del self.entries[row.label, row.previous]
        else:
            end = _end(row)
            self.ranked[end] = tuple(path for path in self.ranked[end] if path != row)
            if not self.ranked[end]:
                del self.ranked[end]
            if row.shares > 1:
                seen = self._shares[row.group, row.first.neighbour]
                seen.remove(row)
                if not seen:
                    del self._shares[row.group, row.first.neighbour]
        self._leaving.difference_update(_hops(row))

    def _faults_of_entry(self, entry: Entry) -> list[str]:
        faults = _faults_of_limit(entry.service_class, entry.limit) + _faults_of_label(entry.label)
        if entry.previous not in self._neighbours:
            faults.append(f"previous {entry.previous!r} is no neighbour of {self._own}")
        if entry.next is None and not self._delivers:
            faults.append(f"delivers here, but {self._own} has no AKMS")
        if entry.next is None and entry.detour is not None:
            faults.append("has a detour though it delivers here")
        if entry.service_class == SPLIT and entry.detour is not None:
            faults.append("has a detour, where another share may pass")
        if entry.service_class == SPLIT and entry.serial is None:
            faults.append("is for class split: who says which paths meet nowhere is the controller alone")
        for hop in _hops(entry):
            faults += self._faults_of_hop(hop)
            if hop.neighbour == entry.previous:
                faults.append("sends back to where it came from")
        if entry.next is not None and entry.detour is not None and entry.next.neighbour == entry.detour.neighbour:
            faults.append("has a detour over the link that it should avoid")
        if (entry.label, entry.previous) in self.entries:
            faults.append("there is another entry for this label and neighbour")
        return faults

    def _faults_of_path(self, path: Path) -> list[str]:
        faults = self._faults_of_hop(path.first) + _faults_of_limit(path.service_class, path.limit)
        if not self._delivers:
            faults.append(f"starts here, but {self._own} has no AKMS")
        if path.destination == self._own:
            faults.append(f"leads to {self._own} itself")
        if path.rank < 0:
            faults.append("a rank is 0 or more")
        if (path.shares > 1) is not (path.service_class == SPLIT) or not 0 <= path.share < path.shares:
            faults.append("class split has two shares or more, other classes one")
        if any(other.rank == path.rank for other in self.ranked.get(_end(path), ())):
            faults.append("there is another path of this rank")
        if any(other.share != path.share for other in self._shares.get((path.group, path.first.neighbour), ())):
            faults.append(f"{path.first.neighbour} would see two shares of one key")
        return faults

    def _faults_of_hop(self, hop: Hop) -> list[str]:
        """Two paths that leave under one label would be one path to the next hop."""
        faults = _faults_of_label(hop.label)
        if hop.neighbour not in self._neighbours:
            faults.append(f"next {hop.neighbour!r} is no neighbour of {self._own}")
        if hop in self._leaving:
            faults.append(f"label {hop.label}: two paths leave to {hop.neighbour} under it")
        return faults


def _end(path: Path) -> tuple[str, str | None, bool]:
    return path.destination, path.service_class, path.serial is None


def _hops(row: Row) -> list[Hop]:
    """Where what a row is for may leave."""
    return [row.first] if isinstance(row, Path) else [hop for hop in (row.next, row.detour) if hop is not None]


def _faults_of_label(label: str) -> list[str]:
    return [] if _LABEL.fullmatch(label) else [f"{label!r} is not a label (16 hexadecimal digits)"]


def _faults_of_limit(service_class: str | None, limit: Limit) -> list[str]:
    faults = [] if limit.rate > 0 and limit.burst > 0 else ["rate and burst are more than 0"]
    if service_class is not None and service_class not in SERVICE_CLASSES:
        faults.append(f"{service_class!r} is no class ({', '.join(sorted(SERVICE_CLASSES))})")
    return faults


def _name(row: Row) -> str:
    if isinstance(row, Entry):
        return f"entry {row.label} from {row.previous}"
    return f"path to {row.destination} of rank {row.rank}" + (f" for {row.service_class}" * bool(row.service_class))
