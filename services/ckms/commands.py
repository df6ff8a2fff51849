"""What an operator may ask a CKMS on the local socket beside its links: its paths and forwarding entries."""

from __future__ import annotations

from typing import Any

from keyhaul.runtime.interface import Runtime
from services.ckms.choice import PathChoice
from services.ckms.forwarding import Entry, ForwardingTable, Path
from services.ckms.policing import Police, Traffic


class Answers:
    """Answers to local commands."""

    def __init__(self, table: ForwardingTable, choice: PathChoice, police: Police) -> None:
        self._table = table
        self._choice = choice
        self._police = police

    def register(self, runtime: Runtime) -> None:
        """Answer `paths`."""
        runtime.command("paths", self._show_paths)

    async def _show_paths(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "paths": [self._path(path) for path in self._table.paths],
            "entries": [self._entry(entry) for entry in self._table.entries],
        }

    def _path(self, path: Path) -> dict[str, Any]:
        return {
            "destination": path.destination,
            "rank": path.rank,
            "next": path.first.neighbour,
            "label": path.first.label,
            "share": path.share,
            **_place(path, self._police.traffic((path.first.neighbour, path.first.label))),
            "on_probation": self._choice.on_probation(path),
        }

    def _entry(self, entry: Entry) -> dict[str, Any]:
        return {
            "label": entry.label,
            "previous": entry.previous,
            "next": entry.next.neighbour if entry.next else None,
            "next_label": entry.next.label if entry.next else None,
            "detour": entry.detour.neighbour if entry.detour else None,
            "detour_label": entry.detour.label if entry.detour else None,
            **_place(entry, self._police.traffic((entry.previous, entry.label))),
        }


def _place(place: Entry | Path, traffic: Traffic) -> dict[str, Any]:
    """What entries and paths have in common; `serial` is that of the controller's statement."""
    return {
        "class": place.service_class,
        "rate": place.limit.rate,
        "burst": place.limit.burst,
        "serial": place.serial,
        "batches": traffic.batches,
        "bytes": traffic.bytes,
        "refused": traffic.refused,
    }
