"""What users do in the tapped network: what is allowed, everything that is refused, and all of it while parts fail."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

from keyhaul.transport.etsi014 import Client014, Etsi014Error, Etsi014Unreachable
from keyhaul.transport.tls import classic_client
from tests.privacy.network import Town

PAIRS = (
    ("kestrel-w", "kestrel-e"),
    ("kestrel-e", "kestrel-w2"),
    ("kestrel-w", "kestrel-w2"),
    ("peregrine-w", "peregrine-e"),
)

PATIENCE = 90.0
"""Seconds: one-time pads that were used up, and then burned, must grow again."""

REFUSALS_FORGOTTEN = 3.5
"""Seconds after which an AKMS asks AAA again."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that was no success."""

    what: str
    status: int
    body: bytes


async def share(town: Town, *, number: int = 3, sizes: Sequence[int | None] = (None,)) -> int:
    """Keys for every pair, at both ends; returns how many."""
    count = 0
    for master, slave in PAIRS:
        first, second = town.client(master), town.client(slave)
        try:
            for size in sizes:
                made = await _patiently(first, slave, number, size)
                names = [key.key_ID for key in made]
                taken = await second.get_key_with_ids(master, names, deadline=10)
                assert {key.key_ID: key.key for key in taken.keys} == {key.key_ID: key.key for key in made}
                count += len(names)
        finally:
            await first.close()
            await second.close()
    return count


async def _patiently(client: Client014, slave: str, number: int, size: int | None) -> list[Any]:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return (await client.get_key(slave, number=number, size=size, deadline=10)).keys
        except (Etsi014Error, Etsi014Unreachable) as error:
            if time.monotonic() > end or (isinstance(error, Etsi014Error) and error.status != 503):
                raise


class Asker:
    """Raw requests of one SAE."""

    def __init__(self, town: Town, sae: str) -> None:
        entry = town.sae(sae)
        tls: ssl.SSLContext = classic_client(Path(entry["certificate"]), Path(entry["key"]), Path(entry["ca"]))
        self._base = entry["ukms"]
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, limit=64))

    async def ask(self, path: str, body: bytes | None = None, method: str | None = None) -> tuple[int, bytes, float]:
        """Status, body and seconds of one request."""
        method = method or ("GET" if body is None else "POST")
        begun = time.perf_counter()
        async with self._session.request(
            method, self._base + path, data=body, timeout=aiohttp.ClientTimeout(total=20)
        ) as answer:
            content = await answer.read()
            return answer.status, content, time.perf_counter() - begun

    async def close(self) -> None:
        """Hang up."""
        await self._session.close()


async def refusals(town: Town) -> list[Refused]:
    """Every error that a UKMS has words for, without faults of the network."""
    asker = Asker(town, "kestrel-w")
    other = town.client("kestrel-e")
    keys = "/api/v1/keys/"
    made = (await _patiently(other, "kestrel-w2", 1, None))[0]
    await other.close()
    cases: list[tuple[str, str, bytes | None, str | None]] = [
        ("unknown slave", f"{keys}nobody-anywhere/enc_keys", None, None),
        ("unknown slave, status", f"{keys}nobody-anywhere/status", None, None),
        ("forbidden slave", f"{keys}peregrine-e/enc_keys", None, None),
        ("forbidden slave, status", f"{keys}peregrine-w/status", None, None),
        ("itself", f"{keys}kestrel-w/enc_keys", None, None),
        ("impossible name", f"{keys}a%20b/enc_keys", None, None),
        ("additional slave unknown", f"{keys}kestrel-e/enc_keys", b'{"additional_slave_SAE_IDs":["nobody"]}', None),
        ("too many keys", f"{keys}kestrel-e/enc_keys?number=100000", None, None),
        ("no keys", f"{keys}kestrel-e/enc_keys?number=0", None, None),
        ("odd size", f"{keys}kestrel-e/enc_keys?size=77", None, None),
        ("great size", f"{keys}kestrel-e/enc_keys?size=800000", None, None),
        ("not JSON", f"{keys}kestrel-e/enc_keys", b"{", None),
        ("wrong type", f"{keys}kestrel-e/enc_keys", b'{"number":"x"}', None),
        ("extension", f"{keys}kestrel-e/enc_keys", b'{"extension_mandatory":[{"route":"all"}]}', None),
        ("unknown parameter", f"{keys}kestrel-e/enc_keys?path=1", None, None),
        ("unknown key", f"{keys}kestrel-e/dec_keys?key_ID={uuid4()}", None, None),
        ("key of another SAE", f"{keys}kestrel-e/dec_keys?key_ID={made.key_ID}", None, None),
        ("no UUID", f"{keys}kestrel-e/dec_keys?key_ID=1", None, None),
        ("empty list", f"{keys}kestrel-e/dec_keys", b'{"key_IDs":[]}', None),
        ("unknown URL", "/api/v2/topology", None, None),
        ("root", "/", None, None),
        ("method", f"{keys}kestrel-e/enc_keys", None, "DELETE"),
        ("great body", f"{keys}kestrel-e/enc_keys", b" " * 300_000, None),
    ]
    found = []
    try:
        for what, path, body, method in cases:
            status, content, _ = await asker.ask(path, body, method)
            found.append(Refused(what, status, content))
    finally:
        await asker.close()
    return found


async def failures(town: Town) -> list[Refused]:
    """What users hear while AAA, the carrier and the AKMS are away, and when all keys are used up."""
    found = []
    asker = Asker(town, "kestrel-w")
    gold = Asker(town, "peregrine-w")
    keys = "/api/v1/keys/"
    try:
        with town.frozen("aaa-cardington"):
            status, content, _ = await asker.ask(f"{keys}kestrel-e2/enc_keys")
            found.append(Refused("AAA down", status, content))
        with town.frozen("ckms-middlewich", "ckms-droitwich"):
            greedy = [gold.ask(f"{keys}peregrine-e/enc_keys?number=128&size=1024") for _ in range(8)]
            for status, content, _ in await asyncio.gather(*greedy):
                if status != 200:
                    found.append(Refused("carrier down, keys used up", status, content))
        with town.frozen("akms-abbeywood"):
            for path in ("kestrel-e/enc_keys?number=100", "kestrel-e/status", "nobody-else/enc_keys"):
                status, content, _ = await asker.ask(keys + path)
                if status != 200:
                    found.append(Refused("AKMS down", status, content))
    finally:
        await asker.close()
        await gold.close()
    return found


async def silver_pattern(town: Town, seconds: float, seed: int) -> list[float]:
    """Requests of a silver user in a random pattern; returns when each was sent, by CLOCK_MONOTONIC."""
    generator = random.Random(seed)
    asker = Asker(town, "kestrel-w")
    times: list[float] = []
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(generator.choice((0.005, 0.01, 0.01, 0.4)))
            times.append(time.monotonic())
            status, content, _ = await asker.ask("/api/v1/keys/kestrel-e/enc_keys?number=4")
            assert status == 200, json.loads(content)
    finally:
        await asker.close()
    return times


@dataclass(slots=True)
class Lookups:
    """Seconds that refused lookups took, in the same random order for both kinds."""

    first: dict[str, list[float]]
    """Names asked about for the first time, `unknown` and `forbidden`."""
    again: dict[str, list[float]]
    """The same names at once again: answered from the UKMS's memory."""
    answers: set[bytes]


async def lookups(town: Town, rounds: int, seed: int) -> Lookups:
    """Ask about SAEs that do not exist and about such as are not for this user, mixed at random."""
    generator = random.Random(seed)
    found = Lookups({"unknown": [], "forbidden": []}, {"unknown": [], "forbidden": []}, set())
    for number in range(rounds):
        for master in ("kestrel-w", "kestrel-w2", "peregrine-w"):
            names = [("forbidden", f"sandpiper-{one}") for one in range(10, 50)]
            names += [("unknown", f"sandpiper-{one}") for one in generator.sample(range(50, 100), 40)]
            generator.shuffle(names)
            asker = Asker(town, master)
            try:
                await asker.ask("/api/v1/keys/sandpiper-00/status")
                for kind, name in names:
                    for times in (found.first, found.again):
                        status, body, seconds = await asker.ask(f"/api/v1/keys/{name}/status")
                        assert status == 400
                        found.answers.add(body)
                        times[kind].append(seconds)
            finally:
                await asker.close()
        if number + 1 < rounds:
            await asyncio.sleep(REFUSALS_FORGOTTEN)
    return found
