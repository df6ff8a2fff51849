"""Metrics and health over HTTP, on a loopback address only: counters without identities of users."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from keyhaul.config.addresses import parse_address
from keyhaul.runtime.interface import StartError


class OperationsPages:
    """Serves ``/metrics`` (Prometheus text) and ``/health`` (JSON; 200 when ready, 503 when not)."""

    def __init__(self, address: str, registry: CollectorRegistry, health: Callable[[], tuple[bool, dict[str, Any]]]):
        self._address = address
        self._registry = registry
        self._health = health
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            StartError: the address is not a loopback address.
            OSError: it is in use.
        """
        host, port = parse_address(self._address)
        if not ipaddress.ip_address(host).is_loopback:
            raise StartError(f"[operations] metrics {self._address} is not a loopback address: use 127.x.y.z or [::1]")
        application = web.Application(client_max_size=1024)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/health", self._healthy)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, keepalive_timeout=30.0, shutdown_timeout=0.5
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, backlog=16).start()

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthy(self, request: web.Request) -> web.Response:
        ready, facts = self._health()
        return web.json_response(facts, status=200 if ready else 503)
