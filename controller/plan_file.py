"""The planned network as the operator's tools give it to the controller: a file beside its configuration."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from controller.planned import PlannedNetwork, planned
from keyhaul.config.carrier import load

_Stamp = tuple[int, int, int]


def load_plan(path: Path) -> tuple[PlannedNetwork, str]:
    """Read the plan; return it with the SHA-256 of the file, hexadecimal, by which its versions are told apart.

    Raises:
        ConfigurationError: the file cannot be read, or holds no plan; what is wrong is listed.
    """
    plan, content = load(path)
    return planned(plan.nodes, plan.links), hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Plan:
    """What was read."""

    network: PlannedNetwork
    digest: str
    """SHA-256 of the file, hexadecimal."""


class PlanFile:
    """The file, which may be replaced while the controller runs: so nodes and links come and go, and nothing is
    restarted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: _Stamp | None = None

    def changed(self) -> bool:
        """Whether it is another file than the one that was last read, or tried to be."""
        return self._stamp() != self._read

    def read(self) -> Plan:
        """Read it. Blocks.

        Raises:
            ConfigurationError: as `load_plan`.
        """
        self._read = self._stamp()
        return Plan(*load_plan(self._path))

    def _stamp(self) -> _Stamp | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
