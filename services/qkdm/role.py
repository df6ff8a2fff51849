"""The role `qkdm`: the simulated modules of one node in one process."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from keyhaul.config.services import ModuleConfig, QkdmConfig
from keyhaul.randomness import Source, random_bytes
from keyhaul.runtime.interface import Role, Runtime, StartError
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
        modules = {section.link: self._module(section, directory) for section in config.module}
        tasks: list[asyncio.Task[None]] = []
        try:
            for module in modules.values():
                await _open(module)
                tasks.append(runtime.task(module.run(), f"module {module.link}"))
            runtime.registry.register(ModuleCollector(modules.values()))
            _answer_commands(runtime, modules)
            runtime.health(lambda: {"modules": [_health(module) for module in modules.values()]})
            runtime.ready()
            await stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(module.close() for module in modules.values()))

    def _module(self, section: ModuleConfig, directory: Path) -> Module:
        kind = TransmittingModule if section.transmitter else ReceivingModule
        return kind(section, directory, self._source, self._clock)


async def _open(module: Module) -> None:
    try:
        await module.start()
    except UnusablePath as error:
        raise StartError(f"module {module.link}: {error}; change `channel`, or remove what is there") from None
    except OSError as error:
        raise StartError(
            f"module {module.link} cannot listen at {module.config.address} or {module.path}: {error.strerror or error}"
        ) from None


def _answer_commands(runtime: Runtime, modules: dict[str, Module]) -> None:
    async def link(arguments: dict[str, Any]) -> dict[str, Any]:
        name = arguments.get("link")
        if name not in modules:
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
