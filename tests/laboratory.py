"""Networks of real processes on this machine: laid out, started and stopped by the command line, as a user would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyhaul.transport.etsi014 import Client014
from keyhaul.transport.tls import classic_client

ROOT = Path(__file__).resolve().parents[1]
SMALL = ROOT / "tests/network/small.toml"
BERLIN_BONN = ROOT / "deploy/berlin-bonn.toml"


def keyhaul(
    *arguments: str | Path, timeout: float = 120, check: bool = True, tree: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would; `tree`: whose code."""
    done = subprocess.run(
        [sys.executable, "-m", "keyhaul.command.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=tree,
    )
    if check and done.returncode:
        raise AssertionError(f"keyhaul {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


@dataclass(frozen=True, slots=True)
class Sae:
    """One SAE of `network.json`."""

    id: str
    node: str
    ukms: str
    certificate: Path
    key: Path
    ca: Path
    peers: tuple[str, ...]
    loopback: bool

    def client(self) -> Client014:
        """A client that is this SAE."""
        return Client014(self.ukms, classic_client(self.certificate, self.key, self.ca), expected_kme=None)


@dataclass(frozen=True, slots=True)
class Network:
    """A running network."""

    directory: Path
    facts: dict[str, Any]

    def sae(self, name: str) -> Sae:
        entry = next(entry for entry in self.facts["saes"] if entry["id"] == name)
        return Sae(
            id=entry["id"],
            node=entry["node"],
            ukms=entry["ukms"],
            certificate=Path(entry["certificate"]),
            key=Path(entry["key"]),
            ca=Path(entry["ca"]),
            peers=tuple(entry["peers"]),
            loopback=entry["loopback"],
        )

    @property
    def saes(self) -> list[Sae]:
        return [self.sae(entry["id"]) for entry in self.facts["saes"]]

    def pairs(self) -> list[tuple[Sae, Sae]]:
        """Every (master, slave) at two different sites that may share keys."""
        return [
            (master, self.sae(peer))
            for master in self.saes
            for peer in master.peers
            if peer != master.id and self.sae(peer).node != master.node
        ]

    def service(self, identifier: str) -> dict[str, Any]:
        found: dict[str, Any] = next(entry for entry in self.facts["services"] if entry["id"] == identifier)
        return found

    def pid(self, identifier: str) -> int:
        """The process of a service, as `keyhaul network status` tells."""
        status = json.loads(keyhaul("network", "status", self.directory, "--json").stdout)
        for entry in status["services"]:
            if entry["id"] == identifier:
                return int(entry["pid"] or 0)
        raise LookupError(identifier)


def loopback_for(worker: int) -> str:
    """A loopback range of this test process's own: 127.64.0.0 to 127.127.255.0, by process id."""
    number = (os.getpid() * 4 + worker) % (64 * 256)
    return f"127.{64 + number // 256}.{number % 256}.0"


def with_controller(description: str) -> str:
    """A description's text with a controller in its data centre."""
    changed = description.replace('roles = ["aaa"]', 'roles = ["aaa", "controller"]')
    assert changed != description
    return changed


@contextmanager
def laid_out(description: str, loopback: str, *, tree: Path = ROOT) -> Iterator[Path]:
    """Lay a network out under a short path; remove it at the end. What runs of it must be stopped before that.

    Args:
        description: its text.
        loopback: the range of its addresses.
        tree: whose code does it.
    """
    scratch = Path(tempfile.mkdtemp(prefix="kh-", dir="/tmp"))
    try:
        (scratch / "network.toml").write_text(description)
        where = ("--out", scratch / "n", "--loopback", loopback)
        keyhaul("network", "init", scratch / "network.toml", *where, tree=tree)
        yield scratch / "n"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def running(
    description: str, loopback: str, prepare: Callable[[Path], None] | None = None, *, roles: Iterable[str] = ()
) -> Iterator[Network]:
    """Lay a network out, start it, and stop it at the end.

    Args:
        description: its text.
        loopback: the range of its addresses.
        prepare: changes the configuration files before the start.
        roles: of the services that are started; all unless given.
    """
    with laid_out(description, loopback) as directory:
        if prepare is not None:
            prepare(directory)
        keyhaul("network", "up", directory, "--detach", *(word for role in roles for word in ("--role", role)))
        try:
            yield Network(directory, json.loads((directory / "network.json").read_text()))
        finally:
            keyhaul("network", "down", directory, check=False)
