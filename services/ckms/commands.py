"""What an operator may ask on the local socket: links, paths, a change of protection."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

from keyhaul.link.interface import LinkCalls
from keyhaul.runtime.interface import Runtime
from services.ckms.choice import PathChoice
from services.ckms.forwarding import Entry, ForwardingTable, Path


class OperatedLinks(Protocol):
    """The links as an operator sees and changes them."""

    def all(self) -> list[LinkCalls]:
        """All of them."""
        ...

    def protect(self, link_id: str, suites: list[str]) -> None:
        """Change a link's suites; raises KeyError where there is no such link, ValueError for unknown suites."""
        ...


class Answers:
    """Answers to local commands."""

    def __init__(self, links: OperatedLinks, table: ForwardingTable, choice: PathChoice) -> None:
        self._links = links
        self._table = table
        self._choice = choice

    def register(self, runtime: Runtime) -> None:
        """Answer `links`, `paths` and `protect`."""
        runtime.command("links", self._show_links)
        runtime.command("paths", self._show_paths)
        runtime.command("protect", self._protect)

    async def _show_links(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"links": [asdict(link.status()) for link in self._links.all()]}

    async def _show_paths(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "paths": [self._path(path) for path in self._table.paths],
            "entries": [_entry(entry) for entry in self._table.entries],
        }

    async def _protect(self, arguments: dict[str, Any]) -> dict[str, Any]:
        link, suites = arguments.get("link"), arguments.get("suites")
        if not isinstance(link, str) or not isinstance(suites, list) or not all(isinstance(s, str) for s in suites):
            raise ValueError("protect takes link, an id, and suites, a list of names, best first")
        try:
            self._links.protect(link, suites)
        except KeyError:
            known = ", ".join(one.id for one in self._links.all())
            raise LookupError(f"there is no link {link!r} here; there are {known}") from None
        return {"link": link, "suites": suites}

    def _path(self, path: Path) -> dict[str, Any]:
        return {
            "destination": path.destination,
            "rank": path.rank,
            "next": path.first.neighbour,
            "label": path.first.label,
            "on_probation": self._choice.on_probation(path),
        }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "label": entry.label,
        "previous": entry.previous,
        "next": entry.next.neighbour if entry.next else None,
        "next_label": entry.next.label if entry.next else None,
    }
