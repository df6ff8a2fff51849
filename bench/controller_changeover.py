"""From the end of the leading controller until every CKMS of Berlin–Bonn has accepted a word of the other, under load.

Two controllers share a PostgreSQL database. In half of the rounds the leader is killed, in the others it is frozen, and
woken up after the change-over; the supervisor starts a killed one again, which then stands by. Nobody is told of the
end: the other waits until the lease has run out, 6 s after its last renewal, which is at most 1.5 s old.
Detail also says when the other led, before CKMSs had heard it, and whether any request failed meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path

from bench.encryptor import Encryptor
from bench.figure import Figure, spread
from bench.load import Load
from bench.network import BERLIN_BONN, Network, running
from bench.observe import metrics, until
from keyhaul.runtime.local import LocalSocketError, ask
from tests.postgresql import running as database_server

CONTROLLERS = ("controller-dc", "controller-spare")
ROUNDS = 4
"""Of each kind."""

KINDS = {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP}
ENCRYPTORS = 2
SETTLED_KEYS = 20
LIMIT = 120.0
LOOK_EVERY = 0.02

SPARE = """
[[node]]
name = "spare"
number = 101
roles = ["controller"]
"""


async def measure() -> Figure:
    """Return the median of the rounds in which the leader was killed, in milliseconds."""
    took: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    with database_server() as server, tempfile.TemporaryDirectory(prefix="kh-", dir="/tmp") as scratch:
        description = Path(scratch) / "two.toml"
        description.write_text(_with_two_controllers(BERLIN_BONN.read_text(), server.database()))
        with running(description=description) as network:
            first, second = network.far_pair()
            async with Encryptor(first) as master, Encryptor(second) as slave, Load(master, slave, ENCRYPTORS) as load:
                for _ in range(ROUNDS):
                    for kind, number in KINDS.items():
                        await load.more(SETTLED_KEYS, LIMIT)
                        took[kind].append(await _round(network, number))
            failed, keys = load.failed, load.keys
    heard = {kind: spread([1e3 * one for _, one in rounds]) for kind, rounds in took.items()}
    return Figure(
        "controller_changeover",
        heard["killed"]["median"],
        "ms",
        None,
        "lower",
        {
            "until_every_ckms_has_heard_it": heard,
            "until_the_other_leads": {kind: spread([1e3 * one for one, _ in rounds]) for kind, rounds in took.items()},
            "rounds_of_each": ROUNDS,
            "keys_delivered_in_all": keys,
            "requests_refused_in_all": failed,
            "looked_every_ms": 1e3 * LOOK_EVERY,
        },
    )


def _with_two_controllers(description: str, database: str) -> str:
    head, found, rest = description.partition("[modules]")
    if not found:
        raise LookupError("the description has no table [modules]")
    return f'{head}[controller]\ndatabase = "{database}"\n\n{found}{rest}{SPARE}'


async def _round(network: Network, number: signal.Signals) -> tuple[float, float]:
    """End the leader; return seconds until the other leads, and until every CKMS has heard it."""

    async def settled() -> bool:
        epochs = await asyncio.gather(*(_epoch(network, name) for name in CONTROLLERS))
        standing = [epoch for epoch in epochs if epoch is not None]
        return sorted(bool(epoch) for epoch in standing) == [False, True] and max(standing) <= await _heard(network)

    await until(settled, LIMIT)
    leader, other = CONTROLLERS if await _epoch(network, CONTROLLERS[0]) else reversed(CONTROLLERS)
    before = await _heard(network)
    pid = network.processes()[leader]
    begin = time.perf_counter()
    os.kill(pid, number)
    try:

        async def leads() -> bool:
            return bool(await _epoch(network, other))

        async def heard() -> bool:
            return await _heard(network) > before

        await until(leads, LIMIT, LOOK_EVERY)
        leading = time.perf_counter()
        await until(heard, LIMIT, LOOK_EVERY)
        return leading - begin, time.perf_counter() - begin
    finally:
        if number is signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)


async def _epoch(network: Network, controller: str) -> int | None:
    """In which a controller leads; 0 where it stands by, None where it does not answer."""
    try:
        facts = await ask(network.socket(controller), "status", deadline=2.0)
    except LocalSocketError:
        return None
    return (facts["epoch"] or 0) if facts["leads"] else 0


async def _heard(network: Network) -> float:
    """The oldest epoch that some CKMS has heard last."""
    nodes = [entry["id"] for entry in network.facts["services"] if entry["role"] == "ckms"]
    found = await asyncio.gather(*(metrics(network, node) for node in nodes))
    return min(one["keyhaul_ckms_statement_epoch"] for one in found)
