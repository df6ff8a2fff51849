"""What a UKMS answers on its local socket beside its link: its buffers."""

from __future__ import annotations

from typing import Any

from keyhaul.runtime.interface import Runtime
from keyhaul.transport.messages.access import Purpose
from services.ukms.supply import Supply


class Answers:
    """Local commands of one UKMS."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply

    def register(self, runtime: Runtime) -> None:
        """Answer from now on."""
        runtime.command("buffers", self.buffers)

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
                    "set_aside": len(buffer.lease),
                    "waiting": buffer.waiting,
                    "demanded": buffer.under_way(Purpose.DEMAND),
                    "prefetched": buffer.under_way(Purpose.PREFETCH),
                }
                for buffer in self._supply.buffers
            ]
        }
