"""A network of real processes on this machine, made for one measurement and stopped after it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyhaul.command.laboratory import processes
from keyhaul.command.laboratory.files import Laboratory

ROOT = Path(__file__).resolve().parents[1]
BERLIN_BONN = ROOT / "deploy" / "berlin-bonn.toml"

loopback = "127.48.0.0"
"""The range of loopback addresses to use; `python -m bench --loopback` sets it."""


@dataclass(frozen=True, slots=True)
class Network:
    """A laid-out network: where its files are and what `network.json` says."""

    directory: Path
    facts: dict[str, Any]

    def far_pair(self, prefix: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """The first two SAEs at different sites that may share keys; only those whose ID begins so."""
        by_id = {entry["id"]: entry for entry in self.facts["saes"]}
        for master in self.facts["saes"]:
            for peer in master["peers"]:
                if by_id[peer]["node"] != master["node"] and master["id"].startswith(prefix):
                    return master, by_id[peer]
        raise LookupError("no two SAEs at different sites may share keys")

    def config(self, service: str) -> Path:
        """The configuration file of a service, e.g. ``ckms-8``."""
        role, _, node = service.partition("-")
        return self.directory / "nodes" / node / role / "config.toml"

    def socket(self, service: str) -> Path:
        """The local socket of a service."""
        return self.config(service).with_name("socket")

    def processes(self) -> dict[str, int]:
        """The process ids of all services that run, and of their supervisor as ``supervisor``."""
        laboratory = Laboratory.read(self.directory)
        files = {service.id: laboratory.pid_file(service) for service in laboratory.services}
        found = {name: processes.read(path) for name, path in (files | {"supervisor": laboratory.supervisor}).items()}
        return {name: process.pid for name, process in found.items() if process is not None}


def on_static_paths(description: str) -> str:
    """Leave the controller out of a description's text: keys go over configured paths, and return to them at once."""
    without, found = re.subn(r', "controller"(?=[],])', "", description)
    if not found:
        raise LookupError("the description has no controller to be left out")
    return without


def keyhaul(*arguments: str | Path, detached: bool = False) -> str:
    """Run the command line; its standard error is shown. `detached`: it does not hear Ctrl-C."""
    command = [sys.executable, "-m", "keyhaul.command.main", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT, start_new_session=detached)
    if done.returncode in (130, -signal.SIGINT):
        raise KeyboardInterrupt
    done.check_returncode()
    return done.stdout


@contextlib.contextmanager
def laid_out(*, without_pools: bool = False, description: Path = BERLIN_BONN) -> Iterator[Network]:
    """Lay a network out; at the end stop what runs of it and remove it.

    Args:
        without_pools: no CN pools and no buffers: every request pays for its own relay.
        description: the network description.
    """
    scratch = Path(tempfile.mkdtemp(prefix="kh-", dir="/tmp"))
    directory = scratch / "n"
    try:
        keyhaul("network", "init", description, "--out", directory, "--loopback", loopback)
        if without_pools:
            _without_pools(directory)
        network = Network(directory, json.loads((directory / "network.json").read_text()))
        try:
            yield network
        finally:
            keyhaul("network", "down", directory, detached=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def start(network: Network, *roles: str) -> None:
    """Start a network, or its services of some roles only; returns when they serve."""
    keyhaul("network", "up", network.directory, "--detach", *(word for role in roles for word in ("--role", role)))


@contextlib.contextmanager
def running(
    *,
    without_pools: bool = False,
    description: Path = BERLIN_BONN,
    prepare: Callable[[Network], None] | None = None,
) -> Iterator[Network]:
    """Start a network, stop it at the end.

    Args:
        without_pools: as `laid_out`.
        description: as `laid_out`.
        prepare: changes the configuration files before the start.
    """
    with laid_out(without_pools=without_pools, description=description) as network:
        if prepare is not None:
            prepare(network)
        start(network)
        yield network


def append(path: Path, table: str) -> None:
    """Add a table to a configuration file."""
    with path.open("a") as file:
        file.write("\n" + table)


def _without_pools(directory: Path) -> None:
    for path in directory.glob("nodes/*/akms/config.toml"):
        append(path, "[pool]\nminimum = 0\nmaximum = 0\n")
    for path in directory.glob("nodes/*/ukms/config.toml"):
        append(path, "[buffer]\nminimum = 0\nmaximum = 0\n")
