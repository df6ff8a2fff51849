"""One service, one process: configuration, hardening, logs, pages, local socket, the role, and a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvloop

from keyhaul.config.loader import load, resolve
from keyhaul.config.problems import ConfigurationError, Problem
from keyhaul.runtime.around import ServiceRuntime
from keyhaul.runtime.exits import Exit, known_failure
from keyhaul.runtime.hardening import harden
from keyhaul.runtime.interface import NotTaken, Role
from keyhaul.runtime.local import LocalServer
from keyhaul.runtime.logging import set_up
from keyhaul.runtime.metrics import OperationsPages

ROLE_STOP = 4.0
"""Seconds that a role has to finish after its stop was asked for; then it is cancelled."""

HARD_STOP = 4.8
"""Seconds after which the process ends with a list of what its threads were doing, whatever hangs."""

_log = structlog.get_logger(__name__)


def serve(role: Role, config_path: Path) -> int:
    """Run one service until SIGTERM or SIGINT; return the exit code (`Exit`) with which the process must now end.

    On SIGHUP it takes its changed configuration.

    Errors that an operator can mend are one line each, on standard error or in the log.
    """
    # Whoever changes the file and says so while it is read here is heard once there is a loop.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    try:
        harden()
        config = load(config_path, role.config)
        section = config.service
        if section.role != role.name:
            problem = Problem("service", "role", f'"{section.role}" is not the role to serve, "{role.name}"')
            raise ConfigurationError(config_path, [problem])
    except ConfigurationError as error:
        print(f"Error: {error}", file=sys.stderr)
        return Exit.CONFIGURATION
    except OSError as error:
        print(f"Error: {role.name}: {error}", file=sys.stderr)
        return Exit.FAILURE
    service = f"{section.role}-{section.node}"
    set_up(service, config.operations.log_level, config.operations.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Process(role, config, Path(os.path.abspath(config_path)), service).run())


async def _reload(runtime: ServiceRuntime, changed: asyncio.Event) -> None:
    """Take the configuration each time that somebody says it has changed, for ever."""
    while True:
        await changed.wait()
        changed.clear()
        with contextlib.suppress(NotTaken):  # an alarm says so
            await runtime.reloading.reload()


class _TooLate(Exception):
    """The role had to be cancelled; the log says so already."""


class _Process:
    """The life of the process, from the start of its loop to its end."""

    def __init__(self, role: Role, config: Any, path: Path, service: str) -> None:
        self._role = role
        self._config = config
        self._path = path
        self._directory = path.parent
        self._service = service
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._asked = False

    async def run(self) -> int:
        """Serve, and return the exit code."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not the loop's own handler: this one runs even while the loop is busy.
            signal.signal(number, self._on_signal)
        changed = asyncio.Event()
        signal.signal(signal.SIGHUP, lambda *_: self._loop.call_soon_threadsafe(changed.set))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))
        try:
            await self._serve(changed)
        except _TooLate:
            return Exit.FAILURE
        except Exception as error:  # the end of the process: whatever it was is logged, and the exit code tells
            known = known_failure(error)
            if known is None:
                _log.error("the service failed", exc_info=error)
                return Exit.FAILURE
            code, reason = known
            _log.error("the service cannot go on", reason=reason, exit_code=int(code))
            return code
        _log.info("stopped")
        return Exit.OK

    async def _serve(self, changed: asyncio.Event) -> None:
        operations = self._config.operations
        local = LocalServer(resolve(self._directory, operations.socket))
        runtime = ServiceRuntime(self._role.name, self._service, local, self._path, self._config)
        pages = OperationsPages(operations.metrics, runtime.registry, runtime.state)
        _log.info("starting", pid=os.getpid(), metrics=operations.metrics)
        async with contextlib.AsyncExitStack() as stack:
            await pages.start()
            stack.push_async_callback(pages.close)
            await local.start()
            stack.push_async_callback(local.close)
            stack.push_async_callback(runtime.end_tasks)
            runtime.task(_reload(runtime, changed), "reload")
            await self._attend(runtime)
        if runtime.failure.done():
            raise runtime.failure.result()

    async def _attend(self, runtime: ServiceRuntime) -> None:
        """Run the role until it ends, a task of it fails, or a stop was asked for and the role had its time."""
        work = self._role.run(self._config, self._directory, runtime, self._stop)
        serving = self._loop.create_task(work, name=f"role {self._role.name}")
        stopping = self._loop.create_task(self._stop.wait(), name="stop")
        ends: set[asyncio.Future[Any]] = {serving, stopping, runtime.failure}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        self._arm()
        runtime.stopping()
        self._stop.set()
        await asyncio.wait({serving}, timeout=ROLE_STOP)
        late = not serving.done()
        if late:
            _log.error("the role does not stop and is cancelled", seconds=ROLE_STOP, tasks=runtime.unfinished())
            serving.cancel()
            await asyncio.wait({serving})
        error = None if serving.cancelled() else serving.exception()
        if runtime.failure.done():
            if error is not None:
                _log.error("the role failed as well", error=error)
            raise runtime.failure.result()
        if error is not None:
            raise error
        if late:
            raise _TooLate
        if not self._asked:
            raise RuntimeError("the role ended without having been asked to")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._asked:
            self._asked = True
            self._arm()
            _log.info("stopping", signal=signal.Signals(number).name)
            self._loop.call_soon_threadsafe(self._stop.set)

    @staticmethod
    def _arm() -> None:
        """From now on the process has `HARD_STOP` seconds; a watchdog outside Python's reach ends it after that."""
        global _armed
        if not _armed:
            _armed = True
            faulthandler.dump_traceback_later(HARD_STOP, exit=True)


_armed = False
