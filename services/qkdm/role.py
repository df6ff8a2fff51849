"""The role `qkdm`: the simulated modules of one node in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from keyhaul.config.services import ModuleConfig, QkdmConfig
from keyhaul.randomness import Source, random_bytes
from keyhaul.runtime.interface import NotTaken, Role, Runtime, StartError
from services.qkdm.channel import UnusablePath
from services.qkdm.condition import Change
from services.qkdm.metrics import ModuleCollector
from services.qkdm.module import Clock, Module
from services.qkdm.receiving import ReceivingModule
from services.qkdm.transmitting import TransmittingModule


class QkdmRole:
    """Runs every module of the configuration."""

    name = "qkdm"
    config: type[Any] = QkdmConfig
    schema = None

    def __init__(self, source: Source = random_bytes, clock: Clock = time.monotonic) -> None:
        self._source = source
        self._clock = clock

    async def run(self, config: QkdmConfig, directory: Path, runtime: Runtime, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Raises:
            StartError: a module cannot be opened.
        """
        modules = _Modules(directory, runtime, self._source, self._clock)
        try:
            for section in config.module:
                await modules.open(section)
            runtime.registry.register(ModuleCollector(modules.open_now))
            _answer_commands(runtime, modules.open_now)
            runtime.on_reload(["module"], modules.take)
            runtime.health(lambda: {"modules": [_health(module) for module in modules.open_now.values()]})
            runtime.ready()
            await stop.wait()
        finally:
            await modules.close()


class _Modules:
    """The modules of this node, each with its task; they come and go with the configuration."""

    def __init__(self, directory: Path, runtime: Runtime, source: Source, clock: Clock) -> None:
        self.open_now: dict[str, Module] = {}
        """By link."""
        self._directory = directory
        self._runtime = runtime
        self._source = source
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def open(self, section: ModuleConfig) -> None:
        """Open a module.

        Raises:
            StartError: it cannot be opened.
        """
        kind = TransmittingModule if section.transmitter else ReceivingModule
        module = kind(section, self._directory, self._source, self._clock)
        try:
            await _open(module)
        except StartError:
            await module.close()
            raise
        self.open_now[section.link] = module
        self._tasks[section.link] = self._runtime.task(module.run(), f"module {section.link}")

    async def take(self, config: QkdmConfig) -> list[str]:
        """Open and close what a changed configuration says; a module that stays is left alone.

        Raises:
            NotTaken: one cannot be opened; those that were open are.
        """
        wanted = {section.link: section for section in config.module}
        new = [section for link, section in wanted.items() if link not in self.open_now]
        try:
            for section in new:
                await self.open(section)
        except StartError as error:
            for section in new:
                await self._end(section.link)
            raise NotTaken(str(error)) from None
        for link in self.open_now.keys() - wanted.keys():
            await self._end(link)
        kept = {link: module.config for link, module in self.open_now.items()}
        return [
            f"module {link}: {field.encode_name}"
            for link, before in kept.items()
            for field in msgspec.structs.fields(ModuleConfig)
            if getattr(before, field.name) != getattr(wanted[link], field.name)
        ]

    async def close(self) -> None:
        """Close them all."""
        await asyncio.gather(*map(self._end, tuple(self.open_now)))

    async def _end(self, link: str) -> None:
        module = self.open_now.pop(link, None)
        if module is not None:
            task = self._tasks.pop(link)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await module.close()


async def _open(module: Module) -> None:
    try:
        await module.start()
    except UnusablePath as error:
        raise StartError(f"module {module.link}: {error}; change `channel`, or remove what is there") from None
    except OSError as error:
        raise StartError(
            f"module {module.link} cannot listen at {module.config.address} or {module.path}: {error.strerror or error}"
        ) from None


def _answer_commands(runtime: Runtime, modules: Mapping[str, Module]) -> None:
    async def link(arguments: dict[str, Any]) -> dict[str, Any]:
        name = arguments.get("link")
        if not isinstance(name, str) or name not in modules:
            raise LookupError(f"no module of this node is at a link {name!r}; there are: {', '.join(modules)}")
        await modules[name].change(Change.read(arguments))
        return modules[name].facts()

    async def status(_arguments: dict[str, Any]) -> dict[str, Any]:
        return {"modules": [module.facts() for module in modules.values()]}

    runtime.command("link", link)
    runtime.command("modules", status)


def _health(module: Module) -> dict[str, Any]:
    facts = module.facts()
    return {name: facts[name] for name in ("link", "synchronised", "cut", "rate", "qber")}


ROLE: Role = QkdmRole()
