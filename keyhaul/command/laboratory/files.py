"""Where a laid-out network keeps what its tools need."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyhaul.config.addresses import parse_address

START_ORDER = ("qkdm", "aaa", "ckms", "controller", "akms", "ukms")
"""Roles in the order in which they start; others come last."""


class NoNetwork(Exception):
    """A directory holds no network that can be run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class LaboratoryService:
    """One service of `network.json`."""

    role: str
    node: str
    id: str
    metrics: str
    config: Path
    socket: Path


@dataclass(frozen=True, slots=True)
class Laboratory:
    """A directory that `keyhaul network init` made."""

    directory: Path
    name: str
    services: tuple[LaboratoryService, ...]
    """In the order in which they start."""
    links: tuple[str, ...]

    @classmethod
    def read(cls, directory: Path) -> Laboratory:
        """Read `network.json`.

        Raises:
            NoNetwork: it is missing or not what `keyhaul network init` writes.
        """
        directory = directory.absolute()
        path = directory / "network.json"
        try:
            facts = json.loads(path.read_bytes())
            services = [_service(entry) for entry in facts["services"]]
            links = tuple(str(link["id"]) for link in facts.get("links", ()))
            name = str(facts.get("name", directory.name))
        except OSError as error:
            raise NoNetwork(
                f"{path}: {error.strerror}; lay a network out by `keyhaul network init DESCRIPTION --out {directory}`"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise NoNetwork(
                f"{path} is not what `keyhaul network init` writes ({_fault(error)}); "
                f"lay the network out again by `keyhaul network init DESCRIPTION --out {directory} --force`"
            ) from error
        return cls(directory, name, tuple(sorted(services, key=_order)), links)

    @property
    def run(self) -> Path:
        """Process ids."""
        return self.directory / "run"

    @property
    def logs(self) -> Path:
        """One log file a service."""
        return self.directory / "logs"

    @property
    def supervisor(self) -> Path:
        """The process id of whoever keeps the network up."""
        return self.run / "network.pid"

    def pid_file(self, service: LaboratoryService) -> Path:
        """Where the process id of a service is written."""
        return self.run / f"{service.id}.pid"

    def log_file(self, service: LaboratoryService) -> Path:
        """Where a service logs."""
        return self.logs / f"{service.id}.log"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which services of a network to run; as made, all."""

    roles: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    def of(self, laboratory: Laboratory) -> tuple[LaboratoryService, ...]:
        """The services that there are of these roles and nodes."""
        return tuple(
            service
            for service in laboratory.services
            if (not self.roles or service.role in self.roles) and (not self.nodes or service.node in self.nodes)
        )


def _service(entry: dict[str, Any]) -> LaboratoryService:
    role, node, name, metrics, config, socket = (
        _string(entry, field) for field in ("role", "node", "id", "metrics", "config", "socket")
    )
    parse_address(metrics)
    return LaboratoryService(role, node, name, metrics, Path(config), Path(socket))


def _string(entry: dict[str, Any], field: str) -> str:
    value = entry[field]
    if not isinstance(value, str):
        raise TypeError(f"{field} of a service is no string")
    return value


def _fault(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def _order(service: LaboratoryService) -> tuple[int, int, str]:
    rank = START_ORDER.index(service.role) if service.role in START_ORDER else len(START_ORDER)
    return rank, int(service.node) if service.node.isdigit() else 0, service.node
