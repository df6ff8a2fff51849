"""Processes by id and start time, so that a stranger who got an old id is never taken for a service."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LOOK_AGAIN = signal.SIGUSR1
"""To whoever keeps a network up: its list of services has changed."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of this machine."""

    pid: int
    started: int
    """Clock ticks since the machine's boot (proc(5), stat field 22)."""

    @property
    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        return _started(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self.alive:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)

    def memory(self) -> int | None:
        """Bytes of memory: its share of what it shares with others where that may be read, else what is resident."""
        try:
            for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return None


def of(pid: int) -> Process | None:
    """The process with this id, None where there is none."""
    started = _started(pid)
    return None if started is None else Process(pid, started)


def write(path: Path, process: Process) -> None:
    """Keep a process in a file."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(f"{process.pid} {process.started}\n")
    draft.replace(path)


def read(path: Path) -> Process | None:
    """The process that a file keeps, None where there is none or it has ended."""
    try:
        pid, started = path.read_text().split()
        process = Process(int(pid), int(started))
    except (OSError, ValueError):
        return None
    return process if process.alive else None


def stop(running: Iterable[Process], patience: float) -> list[Process]:
    """Send SIGTERM to all; after `patience` seconds SIGKILL to those left, which are returned. Blocks."""
    left = [process for process in running if process.alive]
    for process in left:
        process.send(signal.SIGTERM)
    end = time.monotonic() + patience
    while left and time.monotonic() < end:
        time.sleep(0.05)
        left = [process for process in left if process.alive]
    for process in left:
        process.send(signal.SIGKILL)
    return left


def _started(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
