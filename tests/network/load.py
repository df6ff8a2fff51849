"""Encryptors that keep asking while something happens, and what they saw."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from keyhaul.transport.etsi014 import Client014, Etsi014Error, Etsi014Unreachable

DEADLINE = 20.0
"""Seconds that one call may take."""

PAUSE = 0.05
"""Seconds after which an encryptor asks again."""

PATIENCE = 60.0
"""Seconds for which a slave tries to get keys that its master has."""

Clients = dict[str, Client014]


@dataclass
class Load:
    """What users saw while something happened."""

    issued: dict[UUID, bytes] = field(default_factory=dict)
    """Every key that a master got."""
    fetched: set[UUID] = field(default_factory=set)
    """Those that their slave got too, with the same bits."""
    unsure: set[UUID] = field(default_factory=set)
    """Those whose slave lost an answer, and then heard that they are gone: it may have been they that were lost."""
    delivered: int = 0
    """Keys that slaves got."""
    refused: int = 0
    """Requests of masters that brought no keys."""
    mismatched: int = 0
    missing: int = 0
    """Keys that a master has, and that their slave was refused without ever having asked in vain."""
    repeated: int = 0
    """Keys that a master got twice."""
    unfetched: int = 0
    """Keys that their slave could not get within `PATIENCE`."""

    @property
    def faults(self) -> dict[str, int]:
        """What must never happen, and how often it did."""
        counts = {
            "mismatched": self.mismatched,
            "missing": self.missing,
            "repeated": self.repeated,
            "unfetched": self.unfetched,
        }
        return {name: count for name, count in counts.items() if count}


@asynccontextmanager
async def load(
    clients: Clients,
    pairs: Sequence[tuple[str, str]],
    *,
    number: int = 4,
    deadline: float = DEADLINE,
    pace: float = 0.0,
) -> AsyncIterator[Load]:
    """Encryptors that keep asking, in both directions of each pair, until the block ends.

    Args:
        clients: by SAE ID.
        pairs: two SAE IDs each.
        number: keys in a request.
        deadline: seconds that one call may take.
        pace: seconds that an encryptor uses its keys before it asks for more.
    """
    seen = Load()
    stop = asyncio.Event()

    async def ask(one: str, other: str) -> None:
        while not stop.is_set():
            try:
                made = await clients[one].get_key(other, number=number, deadline=deadline)
            except (Etsi014Error, Etsi014Unreachable):
                seen.refused += 1
                await asyncio.sleep(PAUSE)
                continue
            wanted = {key.key_ID: key.key for key in made.keys}
            seen.repeated += sum(identifier in seen.issued for identifier in wanted)
            seen.issued.update(wanted)
            await fetch(one, other, wanted)
            if pace:
                await asyncio.sleep(pace)

    async def fetch(one: str, other: str, wanted: dict[UUID, bytes]) -> None:
        lost = False
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                taken = await clients[other].get_key_with_ids(one, list(wanted), deadline=deadline)
            except Etsi014Error as error:
                if error.status != 503:
                    # The answer may be lost after the keys were taken: single delivery forbids another.
                    if lost:
                        seen.unsure.update(wanted)
                    else:
                        seen.missing += len(wanted)
                    return
            except Etsi014Unreachable:
                lost = True
            else:
                seen.delivered += len(taken.keys)
                for key in taken.keys:
                    if wanted[key.key_ID] == key.key:
                        seen.fetched.add(key.key_ID)
                    else:
                        seen.mismatched += 1
                return
            await asyncio.sleep(PAUSE)
        seen.unfetched += len(wanted)

    tasks = [asyncio.create_task(ask(*way)) for pair in pairs for way in (pair, pair[::-1])]
    try:
        yield seen
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def more(seen: Load, keys: int, timeout: float = 60.0) -> None:
    """Wait until that many more keys were delivered."""
    goal = seen.delivered + keys
    async with asyncio.timeout(timeout):
        while seen.delivered < goal:
            await asyncio.sleep(0.02)
