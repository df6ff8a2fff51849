"""A small laboratory, laid out once for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyhaul.command.init import initialise

SMALL = Path(__file__).parents[2] / "network" / "small.toml"


@pytest.fixture(scope="session")
def laid_out() -> Iterator[Path]:
    """Its directory; nothing runs in it. Loopback addresses are this test process's own."""
    scratch = Path(tempfile.mkdtemp(prefix="kc-", dir="/tmp"))
    number = os.getpid() % (56 * 256)
    initialise(SMALL, scratch / "n", loopback=f"127.{192 + number // 256}.{number % 256}.0")
    yield scratch / "n"
    shutil.rmtree(scratch)
