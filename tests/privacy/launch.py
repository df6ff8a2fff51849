"""Runs a laid-out network, or one service, with the tap installed: ``launch.py TAPS network DIRECTORY [LEAK...]``.

``launch.py TAPS serve ROLE CONFIG`` runs one service in a process that has read nothing but its own configuration.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from pathlib import Path


def drop_capabilities() -> None:
    """Keep none of root's, so that it is not they that keep others of the same user out of the services."""
    version_3 = 0x20080522
    if ctypes.CDLL(None, use_errno=True).capset(struct.pack("=Ii", version_3, 0), bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def main() -> int:
    """Install the tap and the leaks that are named, then run what a user would run."""
    taps, what, *arguments = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.privacy.tap import install

    install(Path(taps))
    drop_capabilities()
    if what == "serve":
        import keyhaul.runtime.process as process
        from keyhaul.runtime.roles import load_role

        return int(process.serve(load_role(arguments[0]), Path(arguments[1])))
    from keyhaul.command.main import run

    directory, *rest = arguments
    leaks = [name for name in rest if not name.startswith("--")]
    if leaks:
        from tests.privacy.leaks import LEAKS

        for name in leaks:
            LEAKS[name].install()
    return run(["network", "up", directory, *(option for option in rest if option.startswith("--"))])


if __name__ == "__main__":
    sys.exit(main())
