"""A Berlin–Bonn network of real processes on this machine, made for one measurement."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BERLIN_BONN = ROOT / "deploy" / "berlin-bonn.toml"


@dataclass(frozen=True, slots=True)
class Network:
    """A running network: where its files are and what `network.json` says."""

    directory: Path
    facts: dict[str, Any]

    def far_pair(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The first two SAEs at different sites that may share keys."""
        by_id = {entry["id"]: entry for entry in self.facts["saes"]}
        for master in self.facts["saes"]:
            for peer in master["peers"]:
                if by_id[peer]["node"] != master["node"]:
                    return master, by_id[peer]
        raise LookupError("no two SAEs at different sites may share keys")


def keyhaul(*arguments: str | Path) -> str:
    """Run the command line; its standard error is shown."""
    command = [sys.executable, "-m", "keyhaul.command.main", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout


@contextlib.contextmanager
def running(
    *, without_pools: bool = False, description: Path = BERLIN_BONN, loopback: str = "127.48.0.0"
) -> Iterator[Network]:
    """Start a network, stop it at the end.

    Args:
        without_pools: no CN pools and no buffers: every request pays for its own relay.
        description: the network description.
        loopback: the range of loopback addresses to use.
    """
    scratch = Path(tempfile.mkdtemp(prefix="kh-", dir="/tmp"))
    directory = scratch / "n"
    try:
        keyhaul("network", "init", description, "--out", directory, "--loopback", loopback)
        if without_pools:
            _without_pools(directory)
        keyhaul("network", "up", directory, "--detach")
        try:
            yield Network(directory, json.loads((directory / "network.json").read_text()))
        finally:
            keyhaul("network", "down", directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _without_pools(directory: Path) -> None:
    for path in directory.glob("nodes/*/akms/config.toml"):
        _append(path, "[pool]\nminimum = 0\nmaximum = 0\n")
    for path in directory.glob("nodes/*/ukms/config.toml"):
        _append(path, "[buffer]\nminimum = 0\nmaximum = 0\n")


def _append(path: Path, table: str) -> None:
    with path.open("a") as file:
        file.write("\n" + table)
