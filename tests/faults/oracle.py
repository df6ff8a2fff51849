"""Judges, from outside the services, what users saw and what was recorded."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, closing
from pathlib import Path
from uuid import UUID

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import Ground
from tests.network.conftest import keyhaul
from tests.network.load import Load, load

PAIRS = (("first-west-1", "first-east-1"), ("second-west-1", "second-east-1"))
"""One pair of each class that crosses the carrier: silver under AEAD, gold under one-time pad."""

CALL = 5.0
"""Seconds of one call: a frozen site must not stop its user for long."""

PACE = 0.05
"""Seconds between requests: some load, but services that start must get the processors too."""

SETTLING = 45.0
"""Seconds until everything that was delivered must be recorded."""

HARMLESS = frozenset({"link-burns-repeated", "cn-bits-unknown"})
"""Alarms that restarts and cut connections may raise."""


class Case:
    """One fault, under load, and what may come of it."""

    def __init__(self, ground: Ground, seen: Load, allowed: Collection[str]) -> None:
        self.ground = ground
        self.seen = seen
        self.allowed = set(allowed)
        """Alarms that may be raised."""
        self.wanted: set[str] = set()
        """Alarms that must have been raised."""
        self.unsure = 0
        """Keys whose delivery may stay unknown: those on their way to an encryptor when its site fell."""
        self.lost = False
        """Whether keys that a site held are lost with its store."""
        self.unrecorded: set[UUID] = set()
        """Keys whose record may be lost."""
        self.marks = ground.marks()

    async def judge(self) -> None:
        """Judge, after the load has ended."""
        seen, ground = self.seen, self.ground
        faults = dict(seen.faults)
        if self.lost:
            faults.pop("missing", None)
        again = ground.issued.intersection(map(str, seen.issued))
        ground.issued.update(map(str, seen.issued))
        assert not faults, f"{faults}, of {seen.delivered} delivered"
        assert not again, f"{len(again)} keys were issued a second time"
        assert self.lost or len(seen.unsure) <= self.unsure, f"{len(seen.unsure)} keys vanished"
        await recorded(ground, seen, exempt=self.unrecorded)
        raised = ground.alarms(self.marks)
        strange = {name: count for name, count in raised.items() if name not in HARMLESS | self.allowed | self.wanted}
        assert not strange, f"alarms: {strange}"
        assert self.wanted <= raised.keys(), f"not alarmed: {self.wanted - raised.keys()}"


@asynccontextmanager
async def under_load(
    ground: Ground, clients: dict[str, Client014], *, alarms: Collection[str] = ()
) -> AsyncIterator[Case]:
    """Load around a fault; when the block ends everything serves again, and the oracle judges.

    Args:
        ground: the network.
        clients: by SAE ID.
        alarms: those that may be raised.
    """
    await ground.serving()
    async with load(clients, PAIRS, deadline=CALL, pace=PACE) as seen:
        case = Case(ground, seen, alarms)
        yield case
        await ground.serving()
    await case.judge()


async def recorded(ground: Ground, seen: Load, *, exempt: Collection[UUID] = ()) -> None:
    """Wait until AAA has every key that a master got in exactly one record, and its sums say the same.

    Args:
        ground: the network.
        seen: what masters got.
        exempt: keys whose record may be lost.
    """
    config = Path(ground.network.service("aaa-dc")["config"])
    end = time.monotonic() + SETTLING
    while True:
        before = states(ground)
        shown = await asyncio.to_thread(keyhaul, "aaa", "show", "usage", "--json", "--config", config)
        delivered = sum(row["delivered"] for row in json.loads(shown.stdout)["rows"])
        after = states(ground)
        missing = [key for key in seen.issued if key not in after and key not in exempt]
        void = [key for key in seen.issued if after.get(key, "delivered") == "void"]
        assert not void, f"{len(void)} keys that masters have are recorded as void"
        low, high = (sum(state != "void" for state in found.values()) for found in (before, after))
        if not missing and min(low, high) <= delivered <= max(low, high):
            return
        assert time.monotonic() < end, (
            f"{len(missing)} of {len(seen.issued)} keys are not recorded; the sums say {delivered}, records {high}"
        )
        await asyncio.sleep(0.2)


def states(ground: Ground) -> dict[UUID, str]:
    """What AAA's database says of every key; the key's ID is the primary key there."""
    (place,) = (file for file in ground.directory("aaa-dc").rglob("aaa.db"))
    with closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True, timeout=10)) as database:
        rows = database.execute("SELECT key_id, state FROM usage_keys").fetchall()
    return {UUID(hex=str(key)): state for key, state in rows}
