"""What a UKMS answers on its local socket: its link, its buffers, and a change of protection."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from keyhaul.link.links import Links
from keyhaul.runtime.interface import Runtime
from keyhaul.transport.messages.access import Purpose
from services.ukms.supply import Supply


class Answers:
    """Local commands of one UKMS."""

    def __init__(self, links: Links, supply: Supply) -> None:
        self._links = links
        self._supply = supply

    def register(self, runtime: Runtime) -> None:
        """Answer from now on."""
        runtime.command("links", self.links)
        runtime.command("buffers", self.buffers)
        runtime.command("protect", self.protect)

    async def links(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        """The state of the access link."""
        return {"links": [asdict(link.status()) for link in self._links.all()]}

    async def buffers(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        """The levels of all buffers; the site's own operator may see whose they are."""
        return {
            "buffers": [
                {
                    "master": buffer.key.master,
                    "slaves": sorted(buffer.key.slaves),
                    "size": buffer.key.size,
                    "class": buffer.key.service_class,
                    "stored": buffer.stored,
                    "waiting": buffer.waiting,
                    "demanded": buffer.under_way(Purpose.DEMAND),
                    "prefetched": buffer.under_way(Purpose.PREFETCH),
                }
                for buffer in self._supply.buffers
            ]
        }

    async def protect(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Change the access link's protections: `link`, `suites` (best first).

        Raises:
            LookupError: there is no such link.
            ValueError: the suites are not names, unknown, or below the floor.
        """
        link, suites = arguments.get("link"), arguments.get("suites")
        if not isinstance(link, str) or not isinstance(suites, list) or not all(isinstance(one, str) for one in suites):
            raise ValueError("protect takes `link`, a name, and `suites`, a list of names")
        try:
            self._links.protect(link, suites)
        except KeyError:
            raise LookupError(f"there is no link {link!r} here") from None
        return {"link": link, "suites": suites}
