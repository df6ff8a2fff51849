"""What runs of a network on this machine, and how it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from keyhaul.command.laboratory import probe, processes
from keyhaul.command.laboratory.files import Laboratory, LaboratoryService


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What is seen of one service; memory in bytes."""

    id: str
    role: str
    node: str
    pid: int | None
    state: str
    memory: int | None
    links_up: int
    links: int
    alarms: dict[str, int]
    log: str
    restart: tuple[str, ...] = ()
    """What its configuration says and only a restart brings."""
    refused: str = ""
    """Why its configuration was refused when it had changed."""


async def look(laboratory: Laboratory) -> list[ServiceState]:
    """Ask all services of a network for their health."""
    return list(await asyncio.gather(*(_ask_one(laboratory, service) for service in laboratory.services)))


async def _ask_one(laboratory: Laboratory, service: LaboratoryService) -> ServiceState:
    from keyhaul.runtime.local import LocalSocketError, ask

    process = processes.read(laboratory.pid_file(service))
    facts: dict[str, Any] = {}
    if process is None:
        state = "stopped"
    else:
        try:
            facts = await ask(service.socket, "status", deadline=5.0)
            state = probe.missing(facts) or "serving"
        except LocalSocketError:
            state = "does not answer"
    links_up, links = probe.links(facts)
    configuration = facts.get("configuration", {})
    return ServiceState(
        id=service.id,
        role=service.role,
        node=service.node,
        pid=process.pid if process else None,
        state=state,
        memory=process.memory() if process else None,
        links_up=links_up,
        links=links,
        alarms=facts.get("alarms", {}),
        log=str(laboratory.log_file(service)),
        restart=tuple(configuration.get("restart", ())),
        refused=configuration.get("refused", ""),
    )
