"""The forwarding table: what to do with a label that comes in over a neighbour, and which paths start here.

Sans-IO. Whoever sets entries (today the configuration, later a controller) gives whole tables to `replace`,
which takes all of one or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NewType

from keyhaul.keys.grants import SERVICE_CLASSES
from services.ckms.policing import USUAL, Limit

PathLabel = NewType("PathLabel", str)
"""16 hexadecimal digits that name a path on one hop; the next hop knows it under another."""

_LABEL = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Hop:
    """A neighbour and the label under which it knows the path."""

    neighbour: str
    """Service id, e.g. ``ckms-9``."""
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


class InvalidForwarding(ValueError):
    """A table that was refused whole; `errors` says everything that is wrong with it."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


class ForwardingTable:
    """The entries and paths in force.

    Args:
        own: this CKMS's service id.
        neighbours: service ids of the CKMSs at the other ends of its links.
        delivers: whether there is an AKMS at this node to deliver to.
    """

    def __init__(self, own: str, neighbours: Iterable[str], *, delivers: bool) -> None:
        self._own = own
        self._neighbours = frozenset(neighbours)
        self._delivers = delivers
        self._entries: dict[tuple[str, str], Entry] = {}
        self._paths: dict[tuple[str, str | None], tuple[Path, ...]] = {}

    def lookup(self, label: str, previous: str) -> Entry | None:
        """The entry for a label that came in over that neighbour, None where there is none."""
        return self._entries.get((label, previous))

    def paths_to(self, destination: str, service_class: str | None = None) -> tuple[Path, ...]:
        """The paths to a CKMS for a class, in the order of rank; empty where there is none.

        A class without paths of its own takes those that are for any.
        """
        own = self._paths.get((destination, service_class), ())
        return own or self._paths.get((destination, None), ())

    def places(self) -> Iterator[tuple[str, str]]:
        """Where batches are policed: (previous hop, label) of each entry, (first hop, label) of each path."""
        yield from ((previous, label) for label, previous in self._entries)
        yield from ((path.first.neighbour, path.first.label) for path in self.paths)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries in force."""
        return tuple(self._entries.values())

    @property
    def paths(self) -> tuple[Path, ...]:
        """All paths in force."""
        return tuple(path for paths in self._paths.values() for path in paths)

    def replace(self, entries: Iterable[Entry], paths: Iterable[Path]) -> None:
        """Put another table in force, whole.

        Raises:
            InvalidForwarding: anything in it is wrong; the old table stays.
        """
        errors: list[str] = []
        by_label: dict[tuple[str, str], Entry] = {}
        for entry in entries:
            errors.extend(self._faults_of_entry(entry))
            if (entry.label, entry.previous) in by_label:
                errors.append(f"{_entry_name(entry)}: there is another entry for this label and neighbour")
            by_label[entry.label, entry.previous] = entry
        by_destination: dict[tuple[str, str | None], dict[int, Path]] = {}
        for path in paths:
            errors.extend(self._faults_of_path(path))
            ranks = by_destination.setdefault((path.destination, path.service_class), {})
            if path.rank in ranks:
                errors.append(f"{_path_name(path)}: there is another path of this rank")
            ranks[path.rank] = path
        errors.extend(_shared_labels(by_label.values(), by_destination.values()))
        if errors:
            raise InvalidForwarding(errors)
        self._entries = by_label
        self._paths = {end: tuple(ranks[rank] for rank in sorted(ranks)) for end, ranks in by_destination.items()}

    def _faults_of_entry(self, entry: Entry) -> list[str]:
        name = _entry_name(entry)
        faults = _faults_of_label(name, entry.label) + _faults_of_limit(name, entry.service_class, entry.limit)
        if entry.previous not in self._neighbours:
            faults.append(f"{name}: previous {entry.previous!r} is no neighbour of {self._own}")
        if entry.next is None:
            if not self._delivers:
                faults.append(f"{name}: delivers here, but {self._own} has no AKMS")
            return faults
        faults.extend(self._faults_of_hop(name, entry.next))
        if entry.next.neighbour == entry.previous:
            faults.append(f"{name}: sends back to where it came from")
        return faults

    def _faults_of_path(self, path: Path) -> list[str]:
        name = _path_name(path)
        faults = self._faults_of_hop(name, path.first) + _faults_of_limit(name, path.service_class, path.limit)
        if path.destination == self._own:
            faults.append(f"{name}: leads to {self._own} itself")
        if path.rank < 0:
            faults.append(f"{name}: a rank is 0 or more")
        return faults

    def _faults_of_hop(self, name: str, hop: Hop) -> list[str]:
        faults = _faults_of_label(name, hop.label)
        if hop.neighbour not in self._neighbours:
            faults.append(f"{name}: next {hop.neighbour!r} is no neighbour of {self._own}")
        return faults


def _faults_of_label(name: str, label: str) -> list[str]:
    return [] if _LABEL.fullmatch(label) else [f"{name}: {label!r} is not a label (16 hexadecimal digits)"]


def _faults_of_limit(name: str, service_class: str | None, limit: Limit) -> list[str]:
    faults = [] if limit.rate > 0 and limit.burst > 0 else [f"{name}: rate and burst are more than 0"]
    if service_class is not None and service_class not in SERVICE_CLASSES:
        faults.append(f"{name}: {service_class!r} is no class ({', '.join(sorted(SERVICE_CLASSES))})")
    return faults


def _shared_labels(entries: Iterable[Entry], paths: Iterable[dict[int, Path]]) -> list[str]:
    """Two paths that leave under one label would be one path to the next hop."""
    leaving = [entry.next for entry in entries if entry.next is not None]
    leaving += [path.first for ranks in paths for path in ranks.values()]
    seen: set[Hop] = set()
    shared: list[str] = []
    for hop in leaving:
        if hop in seen:
            shared.append(f"label {hop.label}: two paths leave to {hop.neighbour} under it")
        seen.add(hop)
    return shared


def _entry_name(entry: Entry) -> str:
    return f"entry {entry.label} from {entry.previous}"


def _path_name(path: Path) -> str:
    return f"path to {path.destination} of rank {path.rank}" + (f" for {path.service_class}" * bool(path.service_class))
