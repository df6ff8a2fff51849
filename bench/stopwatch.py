"""Starts a laid-out network whose services note when messages and commits pass: ``stopwatch.py NOTES DIRECTORY``.

Every process appends to one file of its own in NOTES, a line a moment: nanoseconds of CLOCK_MONOTONIC (the same in
all processes), service, `in` or `commit`, and the operation or the nanoseconds that a commit took.
"""

from __future__ import annotations

import os
import sys
import time
import tomllib
from pathlib import Path
from typing import Any


class Notes:
    """Where one process writes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = -1
        self.service = ""

    def write(self, at: int, kind: str, what: str) -> None:
        """Append a moment; it is with the kernel when this returns."""
        if self._file < 0:
            path = self._directory / f"{self.service}.notes"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.write(self._file, f"{at} {self.service} {kind} {what}\n".encode())


def install(directory: Path) -> None:
    """Note what passes in this process and in those that it forks."""
    import keyhaul.runtime.process as process
    from keyhaul.store.embedded import EmbeddedStore
    from keyhaul.transport.serving import Service

    notes = Notes(directory)
    serve, answer, write = process.serve, Service.answer, EmbeddedStore.write

    def named_serve(role: Any, config_path: Path) -> int:
        section = tomllib.loads(config_path.read_text())["service"]
        notes.service = f"{section['role']}-{section['node']}"
        return serve(role, config_path)

    async def noted_answer(service: Service, peer: Any, request: Any) -> Any:
        notes.write(time.monotonic_ns(), "in", request.path.decode().rpartition("/")[2])
        return await answer(service, peer, request)

    async def noted_write(store: EmbeddedStore, change: Any) -> Any:
        began = time.monotonic_ns()
        result = await write(store, change)
        notes.write(began, "commit", str(time.monotonic_ns() - began))
        return result

    process.serve = named_serve
    Service.answer = noted_answer  # type: ignore[assignment, method-assign]
    EmbeddedStore.write = noted_write  # type: ignore[assignment, method-assign]


def main() -> int:
    """Start the network and return when it serves."""
    directory, network = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    install(Path(directory))
    from keyhaul.command.main import run

    return run(["network", "up", network, "--detach"])


if __name__ == "__main__":
    sys.exit(main())
