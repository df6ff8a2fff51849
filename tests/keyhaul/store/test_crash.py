"""Acknowledged writes survive the death of their process; a disk that refuses is reported, not ignored."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from sqlalchemy import select

from tests.keyhaul.store.conftest import KEYS, Opener

WRITER = """
import asyncio, resource, signal, sys
from pathlib import Path
from sqlalchemy import insert
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import StoreUnavailable
from tests.keyhaul.store.conftest import KEYS, SCHEMA, SECTION

async def main(directory, limit):
    store = await EmbeddedStore.open(SECTION, Path(directory), SCHEMA)
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    async def write(start):
        number = start
        while True:
            await store.write(lambda c: c.execute(insert(KEYS).values(number=number, state="held", bits=bytes(500))))
            print(number, flush=True)
            number += 8
    try:
        await asyncio.gather(*(write(start) for start in range(8)))
    except StoreUnavailable as error:
        print("refused:", error, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""

ROOT = Path(__file__).parents[3]


def writer(directory: Path, limit: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), str(limit)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


async def test_every_acknowledged_write_survives_kill_9(opener: Opener, tmp_path: Path) -> None:
    acknowledged: set[int] = set()
    for goal in (100, 300):
        with writer(tmp_path) as process:
            assert process.stdout is not None
            fresh: set[int] = set()
            for line in process.stdout:
                if not line.strip().isdigit():
                    break
                fresh.add(int(line))
                if len(fresh) == goal:
                    process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        acknowledged |= fresh
        store = await opener()
        numbers = await store.read(lambda connection: set(connection.execute(select(KEYS.c.number)).scalars()))
        assert acknowledged <= numbers
        await store.write(lambda connection: connection.execute(KEYS.delete()))
        acknowledged = set()
        await store.close()


async def test_a_disk_that_refuses_is_reported_and_what_was_acknowledged_stays(opener: Opener, tmp_path: Path) -> None:
    with writer(tmp_path, limit=400_000) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    acknowledged = {int(line) for line in lines if line.isdigit()}
    assert acknowledged
    assert any("refused: the outcome is unknown" in line for line in lines)
    store = await opener()
    numbers = await store.read(lambda connection: set(connection.execute(select(KEYS.c.number)).scalars()))
    assert acknowledged <= numbers
