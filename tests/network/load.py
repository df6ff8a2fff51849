"""Encryptors that keep asking while something happens, and what they saw."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from keyhaul.transport.etsi014 import Client014, Etsi014Error, Etsi014Unreachable
from tests.laboratory import Network

DEADLINE = 20.0
"""Seconds that one call may take."""

PAUSE = 0.05
"""Seconds after which an encryptor asks again."""

PATIENCE = 180.0
"""Seconds for which a slave tries to get keys that its master has."""

Clients = dict[str, Client014]


@asynccontextmanager
async def encryptors(network: Network) -> AsyncIterator[Clients]:
    """One 014 client for every SAE of a network, by SAE ID."""
    found = {sae.id: sae.client() for sae in network.saes}
    try:
        yield found
    finally:
        for client in found.values():
            await client.close()


Way = tuple[str, str]
"""SAE IDs of a master and its slave."""


@dataclass
class Load:
    """What users saw while something happened."""

    issued: dict[UUID, bytes] = field(default_factory=dict)
    """Every key that a master got."""
    ways: dict[UUID, Way] = field(default_factory=dict)
    """Who got it, and for whom."""
    fetched: set[UUID] = field(default_factory=set)
    """Those that their slave got too, with the same bits."""
    unsure: set[UUID] = field(default_factory=set)
    """Those whose slave lost an answer, and then heard that they are gone: it may have been they that were lost."""
    complete: defaultdict[Way, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """When each request began whose keys both got, and when both had them, by the monotonic clock."""
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

    def back(self, since: float) -> float | None:
        """Seconds from a moment until keys asked for later were complete on every way; None where they are not yet."""
        first = [min((end for begun, end in ends if begun >= since), default=None) for ends in self.complete.values()]
        ends = [end for end in first if end is not None]
        return max(ends) - since if ends and len(ends) == len(first) else None


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

    async def ask(way: Way) -> None:
        while not stop.is_set():
            if await share(clients, way, seen, number, deadline) and pace:
                await asyncio.sleep(pace)

    tasks = [asyncio.create_task(ask(way)) for way in both_ways(pairs)]
    try:
        yield seen
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def drain(clients: Clients, pairs: Sequence[tuple[str, str]], seen: Load, *, deadline: float = DEADLINE) -> None:
    """Issue and fetch as many keys as stand in the buffers now: buffers give out first what came first.

    Raises:
        TimeoutError: they could not be had within `PATIENCE`.
    """

    async def empty(way: Way) -> None:
        one, other = way
        status = await clients[one].status(other, deadline=deadline)
        left = status.stored_key_count
        while left > 0:
            number = min(left, status.max_key_per_request)
            if await share(clients, way, seen, number, deadline):
                left -= number

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(empty(way) for way in both_ways(pairs)))


async def fetched_again(clients: Clients, keys: Collection[UUID], seen: Load, *, deadline: float = DEADLINE) -> int:
    """Ask once more for keys that their slaves have got; return how many they got again."""

    async def again(way: Way) -> int:
        count = 0
        for key in keys:
            if seen.ways[key] == way:
                try:
                    await clients[way[1]].get_key_with_ids(way[0], [key], deadline=deadline)
                except Etsi014Error as error:
                    if error.status == 503:
                        raise
                else:
                    count += 1
        return count

    return sum(await asyncio.gather(*(again(way) for way in {seen.ways[key] for key in keys})))


async def more(seen: Load, keys: int, timeout: float = 120.0) -> None:
    """Wait until that many more keys were delivered."""
    goal = seen.delivered + keys
    async with asyncio.timeout(timeout):
        while seen.delivered < goal:
            await asyncio.sleep(0.02)


def both_ways(pairs: Sequence[tuple[str, str]]) -> list[Way]:
    """Each pair, and each the other way round."""
    return [way for pair in pairs for way in (pair, pair[::-1])]


async def share(clients: Clients, way: Way, seen: Load, number: int, deadline: float) -> bool:
    """One request, and the slave's fetch; False, after a pause, where the master got nothing."""
    one, other = way
    begun = time.monotonic()
    try:
        made = await clients[one].get_key(other, number=number, deadline=deadline)
    except (Etsi014Error, Etsi014Unreachable):
        seen.refused += 1
        await asyncio.sleep(PAUSE)
        return False
    wanted = {key.key_ID: key.key for key in made.keys}
    seen.repeated += sum(identifier in seen.issued for identifier in wanted)
    seen.issued.update(wanted)
    seen.ways.update(dict.fromkeys(wanted, way))
    if await _fetch(clients, way, seen, wanted, deadline):
        seen.complete[way].append((begun, time.monotonic()))
    return True


async def _fetch(clients: Clients, way: Way, seen: Load, wanted: dict[UUID, bytes], deadline: float) -> bool:
    one, other = way
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
                return False
        except Etsi014Unreachable:
            lost = True
        else:
            seen.delivered += len(taken.keys)
            for key in taken.keys:
                if wanted[key.key_ID] == key.key:
                    seen.fetched.add(key.key_ID)
                else:
                    seen.mismatched += 1
            return True
        await asyncio.sleep(PAUSE)
    seen.unfetched += len(wanted)
    return False
