"""Judges, from outside the services, what users saw and what was recorded."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import BACK, Ground
from tests.laboratory import keyhaul
from tests.network.load import Load, Way, drain, fetched_again, load

CALL = 20.0
"""Seconds of one call: a frozen site does not stop its user for ever, and a slow one loses no answer."""

PACE = 0.05
"""Seconds between requests: some load, but services that start must get the processors too."""

SETTLING = 150.0
"""Seconds until everything that was delivered must be recorded."""

AGAIN = 200
"""Keys of a case that their slaves ask for once more."""

QUIET = 2.0
"""Seconds without an errand after which AKMSs have told everybody what they had to."""

HARMLESS = frozenset({"link-burns-repeated", "cn-bits-unknown"})
"""Alarms that restarts and cut connections may raise."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long something took after the end of a fault."""

    fault: str
    keys: float
    """Seconds until both SAEs of every pair had keys asked for after the fault, both ways."""


recoveries: list[Recovery] = []
"""Of the faults of this run; shown, and not judged."""

shown: list[tuple[str, float]] = []
"""What else was measured in this run, seconds; likewise."""


def show(what: str, seconds: float) -> None:
    """Have something that was measured shown at the end."""
    shown.append((what, seconds))


class Case:
    """One fault, under load, and what may come of it."""

    def __init__(
        self,
        ground: Ground,
        clients: dict[str, Client014],
        pairs: Sequence[Way],
        seen: Load,
        allowed: Collection[str],
    ) -> None:
        self.ground = ground
        self.clients = clients
        self.pairs = pairs
        self.seen = seen
        self.allowed = set(allowed)
        """Alarms that may be raised."""
        self.wanted: set[str] = set()
        """Alarms that must have been raised."""
        self.unsure = 0
        """Keys whose delivery may stay unknown: those on their way to an encryptor when its site fell."""
        self.lost = False
        """Whether keys that a site held are lost with its store: until the other side knows, it may issue them."""
        self.on_record: set[UUID] | None = None
        """Keys whose record must be there; None: all that masters got."""
        self.marks = ground.marks()
        self._ends: list[float] = []

    def over(self) -> None:
        """The fault ends now: the service was started again, say."""
        self._ends.append(time.monotonic())

    async def come_back(self) -> None:
        """Wait until keys asked for after the last fault were complete on every way."""
        async with asyncio.timeout(BACK):
            while self._ends and self.seen.back(self._ends[-1]) is None:
                await asyncio.sleep(0.02)

    async def drain(self) -> None:
        """Issue and fetch what stands in the buffers."""
        await drain(self.clients, self.pairs, self.seen, deadline=CALL)

    async def judge(self) -> None:
        """Judge, after the load has ended; what stands in the buffers is issued before, so that nothing comes later."""
        seen, ground = self.seen, self.ground
        back = [seconds for end in self._ends if (seconds := seen.back(end)) is not None]
        if back:
            recoveries.append(Recovery(os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0], max(back)))
        early = seen.missing
        if self.lost:
            await quiet(ground)
        await self.drain()
        faults = dict(seen.faults)
        if self.lost and seen.missing == early:
            faults.pop("missing", None)
        again = ground.issued.intersection(map(str, seen.issued))
        ground.issued.update(map(str, seen.issued))
        some = sorted(seen.fetched) if len(seen.fetched) <= AGAIN else random.sample(sorted(seen.fetched), AGAIN)
        twice = await fetched_again(self.clients, some, seen, deadline=CALL)
        assert not faults, f"{faults}, of {seen.delivered} delivered, {seen.missing - early} of those from buffers"
        assert not again, f"{len(again)} keys were issued a second time"
        assert not twice, f"{twice} of {len(some)} keys were fetched a second time"
        assert self.lost or len(seen.unsure) <= self.unsure, f"{len(seen.unsure)} keys vanished"
        await recorded(ground, seen.issued if self.on_record is None else self.on_record, seen)
        raised = ground.alarms(self.marks)
        strange = {name: count for name, count in raised.items() if name not in HARMLESS | self.allowed | self.wanted}
        assert not strange, f"alarms: {strange}"
        assert self.wanted <= raised.keys(), f"not alarmed: {self.wanted - raised.keys()}"


@asynccontextmanager
async def under_load(
    ground: Ground,
    clients: dict[str, Client014],
    *,
    alarms: Collection[str] = (),
    pairs: Sequence[Way] = (),
) -> AsyncIterator[Case]:
    """Load around a fault; when the block ends everything serves again, and the oracle judges.

    Args:
        ground: the network.
        clients: by SAE ID.
        alarms: those that may be raised.
        pairs: of encryptors; one of each customer unless given.
    """
    ground.start_rest()
    await ground.serving()
    pairs = pairs or ground.pairs
    async with load(clients, pairs, deadline=CALL, pace=PACE) as seen:
        case = Case(ground, clients, pairs, seen, alarms)
        yield case
        await ground.serving()
        await case.come_back()
    await case.judge()


async def quiet(ground: Ground) -> None:
    """Wait until no AKMS has told anybody for a while that keys are void."""
    akmss = [service for service in ground.services if service.startswith("akms")]

    async def done() -> float:
        return sum([await ground.metric(akms, "keyhaul_akms_errands_total") for akms in akmss])

    end = time.monotonic() + SETTLING
    count, since = await done(), time.monotonic()
    while time.monotonic() < since + QUIET:
        assert time.monotonic() < end, "AKMSs do not come to an end with what they have to tell"
        await asyncio.sleep(0.1)
        if (now := await done()) != count:
            count, since = now, time.monotonic()


async def recorded(ground: Ground, wanted: Collection[UUID], seen: Load) -> None:
    """Wait until AAA has these keys in one record each, and its sums say the same; none that was issued is void."""
    config = Path(ground.network.service("aaa-dc")["config"])
    end = time.monotonic() + SETTLING
    while True:
        before = states(ground)
        shown = await asyncio.to_thread(keyhaul, "aaa", "show", "usage", "--json", "--config", config)
        delivered = sum(row["delivered"] for row in json.loads(shown.stdout)["rows"])
        after = states(ground)
        missing = [key for key in wanted if key not in after]
        void = [key for key in seen.issued if after.get(key, "delivered") == "void"]
        assert not void, f"{len(void)} keys that masters have are recorded as void"
        low, high = (sum(state != "void" for state in found.values()) for found in (before, after))
        if not missing and min(low, high) <= delivered <= max(low, high):
            return
        assert time.monotonic() < end, (
            f"{len(missing)} of {len(wanted)} keys are not recorded; the sums say {delivered}, records {high}"
        )
        await asyncio.sleep(0.2)


def states(ground: Ground) -> dict[UUID, str]:
    """What AAA's database says of every key; the key's ID is the primary key there."""
    (place,) = (file for file in ground.directory("aaa-dc").rglob("aaa.db"))
    with closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True, timeout=10)) as database:
        rows = database.execute("SELECT key_id, state FROM usage_keys").fetchall()
    return {UUID(hex=str(key)): state for key, state in rows}
