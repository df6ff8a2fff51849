"""What a role gets from the process that runs it, and what it gives back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry

if TYPE_CHECKING:
    from keyhaul.store.interface import Schema

LocalCommand = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Answers a command on the local socket: JSON object in, JSON object out; raises LookupError or ValueError."""

Take = Callable[[Any], Awaitable[Sequence[str]]]
"""Puts a changed configuration in force, and returns what of it only a restart brings; raises NotTaken."""


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

    def on_reload(self, tables: Iterable[str], take: Take) -> None:
        """Have a changed configuration taken while the service runs.

        Args:
            tables: what of the file is taken; all else needs a restart.
            take: called with the whole configuration, checked, once the service is ready; one call at a time.
        """
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


class NotTaken(ValueError):
    """A changed configuration cannot be put in force, and the former one goes on; the message says why."""
