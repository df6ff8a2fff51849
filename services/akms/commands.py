"""What an operator may ask an AKMS on the local socket beside its links: pools, counts of batches, and whose keys were
issued though they are exposed. No key."""

from __future__ import annotations

from typing import Any

from keyhaul.runtime.interface import Runtime
from services.akms.service import AccessKms


class Answers:
    """Answers to local commands."""

    def __init__(self, service: AccessKms) -> None:
        self._service = service

    def register(self, runtime: Runtime) -> None:
        """Answer `pools`, `batches` and `exposed`."""
        runtime.command("pools", self._show_pools)
        runtime.command("batches", self._show_batches)
        runtime.command("exposed", self._show_exposed)

    async def _show_pools(self, _: dict[str, Any]) -> dict[str, Any]:
        return dict(self._service.carrier.levels())

    async def _show_batches(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"batches": await self._service.reconciling.counts()}

    async def _show_exposed(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"issued": await self._service.exposing.issued()}
