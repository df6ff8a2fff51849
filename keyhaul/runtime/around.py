"""The `Runtime` that a role gets: its metrics, owned tasks, alarms, health and local commands."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import prometheus_client
import structlog
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from keyhaul.runtime.interface import LocalCommand, Take
from keyhaul.runtime.local import LocalServer
from keyhaul.runtime.notification import notify
from keyhaul.runtime.reloading import Reloading
from keyhaul.runtime.version import suite_version
from keyhaul.store import opened

_log = structlog.get_logger(__name__)


class ServiceRuntime:
    """The process around one role."""

    def __init__(self, role: str, service: str, local: LocalServer, path: Path, config: Any) -> None:
        """Surround a role.

        Args:
            role: its name.
            service: its service id.
            local: answers its commands.
            path: of its configuration.
            config: what that says.
        """
        self._role = role
        self._service = service
        self._local = local
        self._registry = CollectorRegistry()
        self._started = time.monotonic()
        self._ready = False
        self._check: Callable[[], dict[str, Any]] = dict
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarms: Counter[str] = Counter()
        self._version = suite_version()
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        """The first error of a task of the service."""
        ProcessCollector(registry=self._registry)
        build = Gauge("keyhaul_build_info", "The release that runs.", ("role", "version"), registry=self._registry)
        build.labels(role, self._version).set(1)
        ready = Gauge("keyhaul_ready", "Whether the service serves.", registry=self._registry)
        ready.set_function(lambda: float(self._ready))
        self._alarm_counter = prometheus_client.Counter(
            "keyhaul_alarms", "What an operator should look at.", ("alarm",), registry=self._registry
        )
        self.reloading = Reloading(path, config, self.alarm)
        """Takes the configuration when it has changed."""
        local.command("status", self._status)
        local.command("reload", self._reload)
        local.command("store", self._stores)

    @property
    def registry(self) -> CollectorRegistry:
        """Where the role registers its metrics."""
        return self._registry

    def task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run work that belongs to the service: an exception in it stops the service with an error."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def alarm(self, name: str, **facts: Any) -> None:
        """Count and log what an operator should look at."""
        self._alarms[name] += 1
        self._alarm_counter.labels(name).inc()
        _log.warning("alarm", alarm=name, **{f"fact_{key}" if key in _TAKEN else key: facts[key] for key in facts})

    def ready(self) -> None:
        """The service serves; health and the service manager hear of it."""
        if not self._ready:
            self._ready = True
            _log.info("ready", seconds=round(time.monotonic() - self._started, 3))
            notify("READY=1")
            self.reloading.ready()

    def stopping(self) -> None:
        """The service serves no more."""
        self._ready = False
        notify("STOPPING=1")

    def health(self, check: Callable[[], dict[str, Any]]) -> None:
        """Set what the health page tells besides ready or not."""
        self._check = check

    def command(self, name: str, answer: LocalCommand) -> None:
        """Answer a command on the local socket."""
        self._local.command(name, answer)

    def on_reload(self, tables: Iterable[str], take: Take) -> None:
        """See `Runtime.on_reload`."""
        self.reloading.on_reload(tables, take)

    def state(self) -> tuple[bool, dict[str, Any]]:
        """Whether the service is ready, and what the health page says."""
        facts = {"ready": self._ready, "service": self._service, "role": self._role, "version": self._version}
        return self._ready, {**self._check(), **facts}

    async def end_tasks(self) -> None:
        """Cancel the tasks that the role left, and wait for them."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def unfinished(self) -> list[str]:
        """The names of tasks that still run."""
        return sorted(task.get_name() for task in self._tasks if not task.done())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        if self.failure.done():
            _log.error("a further task failed", task=task.get_name(), exc_info=error)
        else:
            error.add_note(f"in task {task.get_name()}")
            self.failure.set_result(error)

    async def _status(self, arguments: dict[str, Any]) -> dict[str, Any]:
        _, health = self.state()
        uptime = round(time.monotonic() - self._started, 1)
        own = {"pid": os.getpid(), "uptime": uptime, "memory": _memory(), "alarms": dict(self._alarms)}
        return {**health, **own, "configuration": self.reloading.facts()}

    async def _reload(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return await self.reloading.reload()

    async def _stores(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"stores": [dataclasses.asdict(await store.status()) for store in opened.stores()]}


_TAKEN = frozenset({"event", "alarm", "service", "level", "timestamp", "exc_info", "stack_info", "logger"})


def _memory() -> int:
    """Resident bytes of this process."""
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return resident_pages * os.sysconf("SC_PAGE_SIZE")
