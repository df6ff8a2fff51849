"""Networks with a controller: what CKMSs have in force, as they tell it themselves, and what controllers record."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, select

from controller.state.schema import statements
from controller.steering.events import Event
from keyhaul.agents.gnmi.client import Client
from keyhaul.agents.gnmi.models.ckms import TOP
from keyhaul.config.loader import load
from keyhaul.config.services import CkmsConfig
from keyhaul.identity.names import ServiceName
from keyhaul.transport.tls import TlsFiles
from tests.faults.ground import BACK, Ground
from tests.laboratory import SMALL, keyhaul, laid_out, with_controller

FORWARDING = f"/{TOP}/forwarding"

LEADER = "controller-dc"

SWITCHED = frozenset({Event.INSTALLED, Event.MOVED, Event.RENEWED})
"""Events after which a demand's traffic may take other paths."""

CALM = 15.0
"""Seconds without a new statement after which none comes without a reason."""

ASKED = 10.0
"""Seconds for a CKMS to answer."""

Way = tuple[str, str, str, int]
"""Source, destination, class and rank of a path."""

_THIRD = """
[[node]]
name = "e"
number = 7
roles = ["ckms"]

[[link]]
a = "a"
b = "e"
km = 40
skr = 100_000

[[link]]
a = "e"
b = "b"
km = 40
skr = 100_000
"""


UNASKED = {"statements-not-accepted", "statement-refused", "topology-disagrees", "node-silent"}
"""Alarms when a controller goes: its last Set may come after the next one's first word; the rest if nobody listens."""


def three_ways() -> str:
    """The small network with a controller and a third way through the carrier: a – (m | d | e) – b."""
    return with_controller(SMALL.read_text()) + _THIRD


def loopback(number: int) -> str:
    """A loopback range of this test process's own for each of several networks, by process id: 127.234.0.0 and on."""
    return f"127.234.{(os.getpid() * 8 + number) % 256}.0"


@contextmanager
def ground_of(description: str, number: int, prepare: Callable[[Ground], None] | None = None) -> Iterator[Ground]:
    """A network of single services, started.

    Args:
        description: its text.
        number: of its loopback range.
        prepare: changes files and circumstances before the start.
    """
    with laid_out(description, loopback(number)) as directory:
        made = Ground(directory)
        try:
            if prepare is not None:
                prepare(made)
            asyncio.run(made.up())
            yield made
        finally:
            made.down()


@dataclass
class Held:
    """What one CKMS says that it has in force of its controller's statements."""

    incarnation: str = ""
    epoch: int = 0
    serial: int = 0
    bodies: dict[int, bytes] = field(default_factory=dict)
    """What was stated, by serial."""
    entries: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """By previous hop and label."""
    paths: list[dict[str, Any]] = field(default_factory=list)


class Carrier:
    """The CKMSs of a network as its controllers see them. Made by `carrier`."""

    def __init__(self, ground: Ground, clients: Mapping[str, Client], database: str) -> None:
        self.ground = ground
        self.unasked: set[str] = set()
        """CKMSs that are not to be asked."""
        self._clients = clients
        self._database = create_engine(database)

    @property
    def nodes(self) -> list[str]:
        """Service ids of the CKMSs that may be asked."""
        return [node for node in self._clients if node not in self.unasked]

    async def held(self) -> dict[str, Held]:
        """What each CKMS has."""
        return dict(zip(self.nodes, await asyncio.gather(*map(self._held, self.nodes)), strict=True))

    async def ways(self) -> dict[Way, list[str]]:
        """The nodes of every path in force, label by label; each leads to where it says, and none in a circle."""
        sources = await self.held()
        # Read later: what a path needs was there before it, and stays for a while after it.
        held = await self.held()
        return {
            (source, path["destination"], path["service-class"], path["rank"]): follow(held, source, path)
            for source, one in sources.items()
            for path in one.paths
        }

    async def stated(self) -> dict[str, dict[int, bytes]]:
        """What was stated to each CKMS and is in force, by serial."""
        return {node: one.bodies for node, one in (await self.held()).items()}

    async def agrees(self) -> str:
        """How what CKMSs have differs from what is recorded that they have; empty if it does not."""
        recorded = await asyncio.to_thread(self.recorded)
        held = await self.held()
        there = {(node, serial): body for node, one in held.items() for serial, body in one.bodies.items()}
        unknown, lacking = there.keys() - recorded.keys(), recorded.keys() - there.keys()
        if unknown or lacking:
            return f"not recorded: {sorted(unknown)}, recorded only: {sorted(lacking)}"
        return "" if there == recorded else "other statements are in force than those recorded under their serials"

    def recorded(self) -> dict[tuple[str, int], bytes]:
        """What controllers recorded that CKMSs were told, by node and serial."""
        with self._database.connect() as connection:
            rows = connection.execute(select(statements.c.node, statements.c.serial, statements.c.body))
            return {(row.node, row.serial): bytes(row.body) for row in rows if row.node not in self.unasked}

    async def accepted(self) -> Counter[str]:
        """Statements that each CKMS accepted since its process started."""
        return await self._counted("keyhaul_ckms_statements_accepted_total")

    async def refused(self) -> Counter[str]:
        """Sets of statements that each CKMS refused."""
        return await self._counted("keyhaul_ckms_statements_refused_total")

    def close(self) -> None:
        """Close the database."""
        self._database.dispose()

    async def _counted(self, name: str) -> Counter[str]:
        counts = await asyncio.gather(*(self.ground.metric(node, name) for node in self.nodes))
        return Counter({node: int(count) for node, count in zip(self.nodes, counts, strict=True)})

    async def _held(self, node: str) -> Held:
        asked = (
            f"/{TOP}/incarnation",
            f"{FORWARDING}/epoch",
            f"{FORWARDING}/serial",
            f"{FORWARDING}/statement[serial=*]",
            f"{FORWARDING}/entry[previous=*][label=*]",
            f"{FORWARDING}/path[destination=*][service-class=*][rank=*][origin=statement]",
        )
        found = await self._clients[node].get(asked, deadline=ASKED)
        (incarnation,), (epoch,), (serial,), *lists = [[json.loads(one.value) for one in part] for part in found]
        told, entries, paths = ([_plain(one) for one in part] for part in lists)
        keys = [dict(update.path[-1].keys) for update in found[4]]
        of_paths = [dict(update.path[-1].keys) for update in found[5]]
        serials = [dict(update.path[-1].keys)["serial"] for update in found[3]]
        return Held(
            incarnation,
            int(epoch),
            int(serial),
            {int(number): base64.b64decode(one["body"]) for number, one in zip(serials, told, strict=True)},
            {(key["previous"], key["label"]): row for key, row in zip(keys, entries, strict=True)},
            [row | key | {"rank": int(key["rank"])} for key, row in zip(of_paths, paths, strict=True)],
        )


def follow(held: Mapping[str, Held], source: str, path: Mapping[str, Any]) -> list[str]:
    """The nodes of a path, by the labels that each has; up to the first that is not asked."""
    nodes, label, following = [source], path["next-label"], path["next"]
    while following is not None:
        previous, node = nodes[-1], following
        assert node not in nodes, f"a circle: {[*nodes, node]}"
        nodes.append(node)
        if node not in held:
            return nodes
        entry = held[node].entries.get((previous, label))
        assert entry is not None, f"{node} does not know {label} from {previous}: {nodes}"
        label, following = entry.get("next-label"), entry.get("next")
    assert nodes[-1] == path["destination"], f"a path to {path['destination']} ends at {nodes}"
    return nodes


@asynccontextmanager
async def carrier(ground: Ground, database: str | None = None, controller: str = LEADER) -> AsyncIterator[Carrier]:
    """Look at a network with the certificate of a controller.

    Args:
        ground: the network.
        database: URL of the controllers'; a single one has a file.
        controller: whose certificate, and whose file.
    """
    own = ground.directory(controller)
    files = TlsFiles(own / "classic-certificate.pem", own / "classic-key.pem", own / "services.pem")
    async with AsyncExitStack() as closing:
        clients = {}
        for service in ground.services:
            if service.startswith("ckms-"):
                config = load(Path(ground.network.service(service)["config"]), CkmsConfig)
                assert config.gnmi is not None
                peer = ServiceName.of(config.service.domain, service)
                clients[service] = await closing.enter_async_context(Client(config.gnmi.address, peer, files))
        found = Carrier(ground, clients, database or f"sqlite:///{own / 'controller.db'}")
        closing.callback(found.close)
        yield found


def primaries(events: Iterable[Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """By demand: its first paths one after the other, as a controller's log tells; the same again counts once."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    for event in events:
        if event["event"] in SWITCHED and found[event["subject"]][-1:] != event["paths"][:1]:
            found[event["subject"]].append(event["paths"][0])
    return dict(found)


async def link(verb: str, name: str, ground: Ground) -> None:
    """Cut or restore a link."""
    await asyncio.to_thread(keyhaul, "link", verb, name, "--network", ground.network.directory)


@asynccontextmanager
async def mended(ground: Ground, *names: str) -> AsyncIterator[None]:
    """Whatever happens in the block: afterwards none of these links is cut."""
    try:
        yield
    finally:
        for name in names:
            await link("restore", name, ground)


async def until(condition: Callable[[], Awaitable[Any]], what: str, seconds: float = BACK) -> float:
    """Wait until something holds; return the seconds it took."""
    begun = time.monotonic()
    while not await condition():
        assert time.monotonic() < begun + seconds, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.05)
    return time.monotonic() - begun


async def settled(there: Carrier) -> None:
    """Wait until CKMSs have what is recorded, and nothing else."""
    difference = ""

    async def same() -> bool:
        nonlocal difference
        difference = await there.agrees()
        return not difference

    try:
        await until(same, "CKMSs have what is recorded")
    except AssertionError as late:
        raise AssertionError(f"{late}; {difference}") from None


async def calm(there: Carrier) -> None:
    """Wait until CKMSs have what is recorded, and nobody has stated anything new for a while: paths are laid once
    more, with detours, when they have stood for some seconds.
    """
    end = time.monotonic() + BACK
    stated, since = await there.stated(), time.monotonic()
    while time.monotonic() < since + CALM:
        assert time.monotonic() < end, "what is in force keeps changing"
        await asyncio.sleep(0.2)
        if (now := await there.stated()) != stated:
            stated, since = now, time.monotonic()
    await settled(there)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Members of an object without their module."""
    return {name.rpartition(":")[2]: value for name, value in row.items()}
