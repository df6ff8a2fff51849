"""A configuration file that was changed while its service runs: taken whole or not at all, and what needs a restart
is named.

On SIGHUP, and on the local command `reload`, the file is read and checked again. A file with errors changes nothing:
the service goes on with what it has, and says so in its log, by an alarm and on the local command `status`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from keyhaul.config.loader import load
from keyhaul.config.problems import ConfigurationError
from keyhaul.runtime.interface import NotTaken, Take

_log = structlog.get_logger(__name__)


class Reloading:
    """The configuration of one service, which its role takes from here when it has changed.

    Args:
        path: the file.
        config: what it said when the service started.
        alarm: `Runtime.alarm`.
    """

    def __init__(self, path: Path, config: Any, alarm: Callable[..., None]) -> None:
        self._path = path
        self._started = config
        self._alarm = alarm
        self._tables: frozenset[str] = frozenset()
        self._take: Take | None = None
        self._serves = asyncio.Event()
        self._one = asyncio.Lock()
        self._under_way: set[asyncio.Task[dict[str, Any]]] = set()
        self._restart: tuple[str, ...] = ()
        self._refused = ""

    def on_reload(self, tables: Iterable[str], take: Take) -> None:
        """See `Runtime.on_reload`."""
        self._tables = frozenset(tables)
        self._take = take

    def ready(self) -> None:
        """The service serves: from now on changes are taken, and those that were asked for before."""
        self._serves.set()

    def facts(self) -> dict[str, Any]:
        """For the status: what the file says and only a restart brings, and why the file was refused."""
        return {"restart": list(self._restart), "refused": self._refused}

    async def reload(self) -> dict[str, Any]:
        """Read the file and put what it says in force; returns `facts`.

        Whoever asked may go away: what has begun is brought to its end.

        Raises:
            NotTaken: nothing has changed; the message says why.
        """
        work = asyncio.create_task(self._in_turn(), name="reload")
        self._under_way.add(work)
        work.add_done_callback(self._under_way.discard)
        return await asyncio.shield(work)

    async def _in_turn(self) -> dict[str, Any]:
        await self._serves.wait()
        async with self._one:
            try:
                await self._reload()
            except NotTaken as error:
                self._refused = str(error)
                self._alarm("configuration-refused", file=str(self._path), why=str(error))
                raise
            self._refused = ""
            if self._restart:
                _log.warning("the configuration was taken in part: the rest needs a restart", rest=self._restart)
            else:
                _log.info("the configuration was taken")
            return self.facts()

    async def _reload(self) -> None:
        try:
            config = await asyncio.to_thread(load, self._path, type(self._started))
        except ConfigurationError as error:
            raise NotTaken(str(error)) from None
        rest = [
            field.encode_name
            for field in msgspec.structs.fields(self._started)
            if field.encode_name not in self._tables
            and getattr(config, field.name) != getattr(self._started, field.name)
        ]
        if self._take is not None:
            rest += await self._take(config)
        self._restart = tuple(rest)
