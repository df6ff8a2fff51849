"""Libraries that a test preloads into a service, compiled from the C files beside."""

from __future__ import annotations

import subprocess
from pathlib import Path


def build(name: str, directory: Path) -> Path:
    """Compile `name`.c into a shared library in a directory."""
    library = directory / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return library
