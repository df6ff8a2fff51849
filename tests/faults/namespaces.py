"""Namespaces of the kernel that processes of a test live in; they end with the process that holds them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

_CLONE_NEWNET = 0x40000000


class Namespaces:
    """A mount or a network namespace of its own, or both."""

    def __init__(self, *, mount: bool = False, network: bool = False) -> None:
        self._flags = [flag for flag, wanted in (("--mount", mount), ("--net", network)) if wanted]
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *self._flags, "sh", "-c", "echo; exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.read(1) != b"\n":
            self.close()
            raise OSError(f"unshare {self._flags} was refused")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What comes before a command that is to run inside."""
        return ("nsenter", "--target", str(self._holder.pid), *self._flags, f"--wd={os.getcwd()}")

    @property
    def pid(self) -> int:
        """The process that holds them."""
        return self._holder.pid

    def path(self, outside: Path) -> Path:
        """A path inside, as it is reached from outside."""
        return Path(f"/proc/{self._holder.pid}/root{outside}")

    def run(self, *command: str) -> None:
        """Run a command inside."""
        subprocess.run([*self.prefix, *command], check=True, capture_output=True, text=True, timeout=30)

    def run_loop(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Run an event loop in a thread whose sockets are in the network namespace."""
        outcome: list[Result] = []
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                with open(f"/proc/{self._holder.pid}/ns/net") as place:
                    if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                outcome.append(asyncio.run(work()))
            except BaseException as error:  # handed to the thread that waits
                failure.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def close(self) -> None:
        """End the holder; the namespaces go with the last process in them."""
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()
