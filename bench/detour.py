"""What benchmarks of a detour have in common: keys from Bonn to Berlin under load, and node 16, which only detours use.

Pools and buffers are off, so that each key needs a relay of its own. There is no controller: what is measured is
what the CKMSs do by themselves over configured paths, and traffic returns to the first of them between rounds.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bench.encryptor import Encryptor
from bench.load import Load
from bench.network import BERLIN_BONN, Network, on_static_paths, running
from bench.observe import link, metrics, until
from keyhaul.runtime.local import ask

ROUNDS = 7
ENCRYPTORS = 4
DETOUR = "ckms-16"
SOURCE = "ckms-14"
SETTLED_KEYS = 20
LIMIT = 90.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """A network, and encryptors that ask for one key after the other."""

    network: Network
    load: Load

    async def flows(self) -> None:
        """Wait until some more keys were shared."""
        await self.load.more(SETTLED_KEYS, LIMIT)

    async def forwarded(self, service: str = DETOUR) -> float:
        """Batches that a CKMS has sent on."""
        return (await metrics(self.network, service))["keyhaul_ckms_forwarded_total"]

    async def detoured(self, before: float, every: float) -> float:
        """When the first key was complete after the detour was seen to have sent on more than before (perf_counter)."""

        async def used() -> bool:
            return await self.forwarded() > before

        await until(used, LIMIT, every)
        return await self.load.first(finished_after=time.perf_counter(), limit=LIMIT)

    async def back(self, name: str, *ends: str) -> None:
        """Wait until these ends have the link up, and its path is first choice again at the source."""

        async def settled() -> bool:
            up = [(await link(self.network, end, name))["state"] == "up" for end in ends]
            paths = (await ask(self.network.socket(SOURCE), "paths"))["paths"]
            return all(up) and not any(path["on_probation"] for path in paths)

        await until(settled, LIMIT)


@contextlib.asynccontextmanager
async def traffic(text: str | None = None) -> AsyncIterator[Traffic]:
    """Run a network and the load on it; `text`: its description, Berlin–Bonn unless given."""
    with tempfile.TemporaryDirectory(prefix="kh-", dir="/tmp") as scratch:
        description = Path(scratch) / "detour.toml"
        description.write_text(on_static_paths(BERLIN_BONN.read_text() if text is None else text))
        with running(without_pools=True, description=description) as network:
            first, second = network.far_pair()
            async with Encryptor(first) as master, Encryptor(second) as slave, Load(master, slave, ENCRYPTORS) as load:
                yield Traffic(network, load)
