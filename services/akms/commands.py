"""What an operator may ask on the local socket: links, pools, counts of batches, protections. No key, no user."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

from keyhaul.link.interface import LinkCalls
from keyhaul.runtime.interface import Runtime
from services.akms.service import AccessKms


class OperatedLinks(Protocol):
    """The links as an operator sees and changes them."""

    def all(self) -> list[LinkCalls]:
        """All of them."""
        ...

    def protect(self, link_id: str, suites: list[str]) -> None:
        """Change a link's list of suites; KeyError where there is no such link, ValueError for unknown suites."""
        ...


class Answers:
    """Answers to local commands."""

    def __init__(self, links: OperatedLinks, service: AccessKms) -> None:
        self._links = links
        self._service = service

    def register(self, runtime: Runtime) -> None:
        """Answer `links`, `protect`, `pools` and `batches`."""
        runtime.command("protect", self._protect)
        runtime.command("links", self._show_links)
        runtime.command("pools", self._show_pools)
        runtime.command("batches", self._show_batches)

    async def _show_links(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"links": [asdict(link.status()) for link in self._links.all()]}

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

    async def _show_pools(self, _: dict[str, Any]) -> dict[str, Any]:
        return dict(self._service.carrier.levels())

    async def _show_batches(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"batches": await self._service.reconciling.counts()}
