"""What an operator may ask a CKMS on the local socket beside its links: its paths and forwarding entries."""

from __future__ import annotations

from typing import Any

from keyhaul.runtime.interface import Runtime
from services.ckms.choice import PathChoice
from services.ckms.forwarding import Entry, ForwardingTable, Path


class Answers:
    """Answers to local commands."""

    def __init__(self, table: ForwardingTable, choice: PathChoice) -> None:
        self._table = table
        self._choice = choice

    def register(self, runtime: Runtime) -> None:
        """Answer `paths`."""
        runtime.command("paths", self._show_paths)

    async def _show_paths(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "paths": [self._path(path) for path in self._table.paths],
            "entries": [_entry(entry) for entry in self._table.entries],
        }

    def _path(self, path: Path) -> dict[str, Any]:
        return {
            "destination": path.destination,
            "rank": path.rank,
            "next": path.first.neighbour,
            "label": path.first.label,
            "share": path.share,
            **_place(path),
            "on_probation": self._choice.on_probation(path),
        }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "label": entry.label,
        "previous": entry.previous,
        "next": entry.next.neighbour if entry.next else None,
        "next_label": entry.next.label if entry.next else None,
        "detour": entry.detour.neighbour if entry.detour else None,
        "detour_label": entry.detour.label if entry.detour else None,
        **_place(entry),
    }


def _place(place: Entry | Path) -> dict[str, Any]:
    """What entries and paths have in common; `serial` is that of the controller's statement."""
    return {
        "class": place.service_class,
        "rate": place.limit.rate,
        "burst": place.limit.burst,
        "serial": place.serial,
    }
