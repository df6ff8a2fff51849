"""What runs of a laid-out network, told to take what has changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable
from typing import Any

from keyhaul.command.laboratory import processes
from keyhaul.command.laboratory.files import Laboratory, LaboratoryService
from keyhaul.runtime.local import LocalRefusal, LocalUnreachable, ask

PATIENCE = 30.0
"""Seconds for a process to answer that has just started."""

RELOAD = 60.0
"""Seconds for a service to take a changed configuration: what is in flight over a link that goes is waited for."""

PAUSE = 0.1


class NotApplied(Exception):
    """A service did not take what it was told to, or does not come up; the message says what to do."""


class Running:
    """The processes of a network.

    Args:
        laboratory: the network, as it shall be.
    """

    def __init__(self, laboratory: Laboratory) -> None:
        self._laboratory = laboratory
        self._services = {service.id: service for service in laboratory.services}

    async def anything(self) -> bool:
        """Whether anything runs, or somebody keeps the network up."""
        if processes.read(self._laboratory.supervisor) is not None:
            return True
        return bool(await self._there(self._laboratory.services))

    def look_again(self) -> bool:
        """Have whoever keeps the network up start what is new, and stop what is gone; False: nobody does."""
        supervisor = processes.read(self._laboratory.supervisor)
        if supervisor is not None:
            supervisor.send(processes.LOOK_AGAIN)
        return supervisor is not None

    async def reload(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Have services take their changed configuration; return what of it only a restart of each brings.

        What does not run takes it when it starts.

        Raises:
            NotApplied: one did not.
        """
        known = [self._services[name] for name in names if name in self._services]
        answers = await asyncio.gather(*map(self._reload, known))
        return {service.id: answer["restart"] for service, answer in zip(known, answers, strict=True) if answer}

    async def serving(self, names: Collection[str], links: Collection[tuple[str, str]], timeout: float) -> None:
        """Wait until services serve, and ends of links (service, link) are up.

        Raises:
            NotApplied: they are not in time.
        """
        ends = time.monotonic() + timeout
        while missing := await self._missing(names, links):
            if time.monotonic() >= ends:
                raise NotApplied(f"after {timeout:g} s: {', '.join(missing)}; see the logs, then apply again")
            await asyncio.sleep(PAUSE)

    async def gone(self, services: Collection[LaboratoryService], timeout: float) -> None:
        """Wait until services have ended.

        Raises:
            NotApplied: they have not in time.
        """
        ends = time.monotonic() + timeout
        while left := await self._there(services):
            if time.monotonic() >= ends:
                raise NotApplied(f"still running: {', '.join(left)}; stop them, then apply again")
            await asyncio.sleep(PAUSE)

    async def _reload(self, service: LaboratoryService) -> dict[str, Any]:
        ends = time.monotonic() + PATIENCE
        while True:
            try:
                return await ask(service.socket, "reload", deadline=RELOAD)
            except LocalRefusal as error:
                raise NotApplied(f"{service.id} goes on with its former configuration: {error}") from error
            except LocalUnreachable as error:
                if processes.read(self._laboratory.pid_file(service)) is None:
                    return {}
                if time.monotonic() >= ends:
                    raise NotApplied(f"{service.id} does not answer: {error}; then apply again") from error
            await asyncio.sleep(PAUSE)

    async def _missing(self, names: Collection[str], links: Collection[tuple[str, str]]) -> list[str]:
        asked = {*names, *(service for service, _ in links)}
        answers = await asyncio.gather(*(_status(self._services[name]) for name in asked))
        facts = dict(zip(asked, answers, strict=True))
        return [
            *(f"{name} does not serve" for name in names if not facts[name].get("ready")),
            *(f"link {link} is down at {name}" for name, link in links if not facts[name].get("links", {}).get(link)),
        ]

    async def _there(self, services: Collection[LaboratoryService]) -> list[str]:
        """Those of services that run."""
        answers = await asyncio.gather(*(_status(service) for service in services))
        return [
            service.id
            for service, answer in zip(services, answers, strict=True)
            if answer or processes.read(self._laboratory.pid_file(service)) is not None
        ]


async def _status(service: LaboratoryService) -> dict[str, Any]:
    """What a service says of itself; nothing where it does not answer."""
    try:
        return await ask(service.socket, "status", deadline=5.0)
    except (LocalUnreachable, LocalRefusal):
        return {}
