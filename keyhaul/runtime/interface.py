"""What a role gets from the process that runs it, and what it gives back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry

if TYPE_CHECKING:
    from keyhaul.store.interface import Schema

LocalCommand = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Answers a command on the local socket: JSON object in, JSON object out; raises LookupError or ValueError."""


class Runtime(Protocol):
    """The process around a role."""

    @property
    def registry(self) -> CollectorRegistry:
        """Where the role registers its metrics."""
        ...

    def task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run work that belongs to the service: an exception in it stops the service with an error."""
        ...

    def alarm(self, name: str, **facts: Any) -> None:
        """What section 4 calls alarmed: a counted metric (`keyhaul_alarms_total{alarm}`) and an event in the log."""
        ...

    def ready(self) -> None:
        """The service serves; health says so from now on."""
        ...

    def health(self, check: Callable[[], dict[str, Any]]) -> None:
        """Set what the health page tells besides ready or not."""
        ...

    def command(self, name: str, answer: LocalCommand) -> None:
        """Answer a command on the local socket."""
        ...


class Role(Protocol):
    """A service as `keyhaul serve` runs it; the entry point `keyhaul.roles` names an instance."""

    name: str
    config: type[Any]
    """The configuration type from `keyhaul.config.services`."""

    @property
    def schema(self) -> Schema | None:
        """Of its key store; None for a role that has none."""
        ...

    async def run(self, config: Any, directory: Path, runtime: Runtime, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish within 4 s without losing what was acknowledged.

        Args:
            config: the checked configuration.
            directory: where the configuration file is; its paths are relative to this.
            runtime: the process around.
            stop: set on SIGTERM or SIGINT.

        Raises:
            StartError: the service cannot start; the message says what to do.
        """
        ...


class StartError(Exception):
    """A service cannot start, with what its operator should do."""
