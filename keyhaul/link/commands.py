"""What an operator may ask of a service's links on its local socket: their state, their protection, on or off."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

from keyhaul.link.interface import LinkCalls
from keyhaul.runtime.interface import Runtime


class OperatedLinks(Protocol):
    """The links as an operator sees and changes them (`keyhaul.link.links.Links`)."""

    def all(self) -> list[LinkCalls]:
        """All of them."""
        ...

    async def protect(self, link_id: str, suites: list[str]) -> None:
        """Change a link's list of suites, empty for the configuration's.

        Raises:
            KeyError: there is no such link.
            ValueError: suites are unknown, or too weak.
        """
        ...

    async def enable(self, link_id: str, enabled: bool) -> None:
        """Use a link or not; KeyError where there is no such link."""
        ...

    def cut(self, link_id: str, cut: bool) -> None:
        """Let nothing cross a link, or mend it; KeyError where there is no such link."""
        ...


class LinkCommands:
    """Answers to the local commands `links`, `protect`, `enable` and `cut`. No key, no user."""

    def __init__(self, links: OperatedLinks) -> None:
        self._links = links

    def register(self, runtime: Runtime) -> None:
        """Answer from now on."""
        runtime.command("links", self._show)
        runtime.command("protect", self._protect)
        runtime.command("enable", self._enable)
        runtime.command("cut", self._cut)

    async def _show(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"links": [asdict(link.status()) for link in self._links.all()]}

    async def _protect(self, arguments: dict[str, Any]) -> dict[str, Any]:
        link, suites = arguments.get("link"), arguments.get("suites")
        if not isinstance(link, str) or not isinstance(suites, list) or not all(isinstance(s, str) for s in suites):
            raise ValueError("protect takes link, an id, and suites, a list of names, best first (none: as configured)")
        try:
            await self._links.protect(link, suites)
        except KeyError:
            raise self._unknown(link) from None
        return {"link": link, "suites": suites}

    async def _enable(self, arguments: dict[str, Any]) -> dict[str, Any]:
        link, enabled = arguments.get("link"), arguments.get("enabled")
        if not isinstance(link, str) or not isinstance(enabled, bool):
            raise ValueError("enable takes link, an id, and enabled, true or false")
        try:
            await self._links.enable(link, enabled)
        except KeyError:
            raise self._unknown(link) from None
        return {"link": link, "enabled": enabled}

    async def _cut(self, arguments: dict[str, Any]) -> dict[str, Any]:
        link, cut = arguments.get("link"), arguments.get("cut")
        if not isinstance(link, str) or not isinstance(cut, bool):
            raise ValueError("cut takes link, an id, and cut, true or false")
        try:
            self._links.cut(link, cut)
        except KeyError:
            raise self._unknown(link) from None
        return {"link": link, "cut": cut}

    def _unknown(self, link: str) -> LookupError:
        known = ", ".join(one.id for one in self._links.all())
        return LookupError(f"there is no link {link!r} here; there are {known}")
