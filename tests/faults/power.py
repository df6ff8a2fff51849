"""Power cuts: what a service wrote and did not synchronise is gone."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

from tests.faults.ground import Circumstances, Ground


class Mains:
    """The power supply of one service."""

    def __init__(self, ground: Ground, service: str, library: Path, scratch: Path, *, lies: bool = False) -> None:
        """Prepare.

        Args:
            ground: the network.
            service: one of it, which does not run.
            library: `power.c`.
            scratch: an empty directory.
            lies: the disk says that it synchronised, and did not.
        """
        self._ground = ground
        self._service = service
        self._directory = ground.directory(service)
        self._shadow = scratch / service
        self._shadow.mkdir()
        environment = {
            "LD_PRELOAD": str(library),
            "POWER_DIRECTORY": f"{self._directory}/",
            "POWER_SHADOW": str(self._shadow),
            "POWER_LIES": "1" if lies else "0",
        }
        self._under = Circumstances(environment)

    def on(self) -> None:
        """Start the service; all that its directory holds now is on the disk."""
        shutil.rmtree(self._shadow)
        self._shadow.mkdir()
        for file in self._files():
            shutil.copyfile(file, self._shadow / str(file.stat().st_ino))
        self._ground.put_under(self._service, self._under)
        self._ground.start(self._service)

    def cut(self) -> int:
        """Stop the service in the middle of whatever it does; return how many files lost something."""
        self._ground.kill(self._service)
        changed = 0
        for file in self._files():
            kept = self._shadow / str(file.stat().st_ino)
            if not kept.exists():
                file.unlink()
                changed += 1
            elif kept.read_bytes() != file.read_bytes():
                file.write_bytes(kept.read_bytes())
                changed += 1
        return changed

    def _files(self) -> list[Path]:
        return [file for file in self._directory.rglob("*") if stat.S_ISREG(file.lstat().st_mode)]
