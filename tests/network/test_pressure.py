"""Under more load than there is room for, on real processes: nothing locks, and contracts get what they say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyhaul.transport.etsi014 import Client014, Etsi014Error
from tests.laboratory import SMALL, Network, loopback_for, running

pytestmark = [pytest.mark.network, pytest.mark.long, pytest.mark.xdist_group("network")]

PAIR = ("first-west-1", "first-east-1")
METERED = ("second-west-1", "second-east-1")
RATE, BURST = 5.0, 10
DEADLINE = 20.0


@pytest.fixture(scope="module")
def crowded() -> Iterator[Network]:
    """The small network with one credit of each kind between its AKMSs, and a contract of a rate."""
    metered = f'class = "gold"\nrate = {RATE}\nburst = {BURST}\nmaximum_keys_per_request = {BURST}'

    def tighten(directory: Path) -> None:
        for config in directory.glob("nodes/*/akms/config.toml"):
            config.write_text("requests_per_peer = 1\n" + config.read_text())
        for config in directory.glob("nodes/*/ukms/config.toml"):
            config.write_text(config.read_text() + "\n[buffer]\nminimum = 0\nmaximum = 0\n")

    with running(SMALL.read_text().replace('class = "gold"', metered), loopback_for(2), tighten) as network:
        yield network


async def ask(client: Client014, slave: str, number: int = 1) -> float:
    """Ask for keys: 0 if they came, else the seconds of Retry-After."""
    try:
        await client.get_key(slave, number=number, deadline=DEADLINE)
    except Etsi014Error as refusal:
        if refusal.status != 503 or not refusal.retry_after:
            raise
        return refusal.retry_after
    return 0.0


async def test_two_akmss_that_ask_each_other_at_full_speed_never_lock(crowded: Network) -> None:
    """Both sites want far more at once than one credit serves; in any five seconds both get keys."""
    last = {PAIR: time.monotonic(), PAIR[::-1]: time.monotonic()}
    gaps = dict.fromkeys(last, 0.0)
    clients = {pair: [crowded.sae(pair[0]).client() for _ in range(12)] for pair in last}
    end = time.monotonic() + 30

    async def want(client: Client014, pair: tuple[str, str]) -> None:
        while time.monotonic() < end:
            if await ask(client, pair[1]):
                await asyncio.sleep(0.02)
                continue
            now = time.monotonic()
            gaps[pair] = max(gaps[pair], now - last[pair])
            last[pair] = now

    try:
        await asyncio.gather(*(want(client, pair) for pair in last for client in clients[pair]))
    finally:
        await asyncio.gather(*(client.close() for pair in last for client in clients[pair]))
    assert all(gap < 5 for gap in gaps.values()), gaps


async def test_beyond_its_rate_a_contract_gets_503_with_a_time_that_holds(crowded: Network) -> None:
    clients = [crowded.sae(METERED[0]).client() for _ in range(8)]
    begin = time.monotonic()
    served = told = held = 0

    async def want(client: Client014) -> None:
        nonlocal served, told, held
        back = False
        while time.monotonic() - begin < 40:
            retry_after = await ask(client, METERED[1], BURST)
            served += not retry_after
            held += back and not retry_after
            told += back
            back = bool(retry_after)
            await asyncio.sleep(retry_after)

    try:
        await asyncio.gather(*map(want, clients))
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    seconds = time.monotonic() - begin
    assert told >= 5
    assert held >= 0.9 * told, (held, told)
    assert 0.7 * RATE * 40 <= BURST * served <= 2 * BURST + RATE * seconds, (served, seconds)
