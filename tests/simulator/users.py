"""SAEs: they ask for keys, fetch them by ID, repeat themselves, and give up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

from keyhaul.identity.names import SaeId
from keyhaul.keys.etsi014 import KeyContainer, KeyRequest
from keyhaul.store.interface import StoreError
from services.ukms.etsi014 import Refusal
from services.ukms.kme import Kme
from tests.simulator.loop import Died

if TYPE_CHECKING:
    from tests.simulator.oracle import Oracle
    from tests.simulator.world import World

GONE = (Died, StoreError)
"""What an SAE sees as a connection that broke, or an answer 500."""


class NotServing(Exception):
    """Nobody answers at the UKMS's address."""


class Users:
    """All SAEs of the network."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = Random(f"{world.seed} users")
        self._tasks: set[asyncio.Task[None]] = set()
        self.refusals = 0

    def pairs(self) -> list[tuple[str, str]]:
        """Every master and slave that may share keys."""
        from tests.simulator.world import SAES

        return [
            (master, slave)
            for master in SAES
            for slave in SAES
            if master != slave
            and master.partition("-")[0] == slave.partition("-")[0]
            and not master.startswith("stolen")
        ]

    def pairs_of_sites(self) -> list[tuple[str, str]]:
        """A master and a slave for every two sites that share keys, either way."""
        return list({(_site(master), _site(slave)): (master, slave) for master, slave in self.pairs()}.values())

    async def run(self) -> None:
        """Ask for keys at random until cancelled."""
        pairs = self.pairs()
        if self._world.settings.pairs:
            pairs = self._chance.sample(pairs, self._world.settings.pairs)
        while True:
            await asyncio.sleep(self._chance.expovariate(self._world.settings.requests))
            master, slave = self._chance.choice(pairs)
            slaves = [slave]
            if master.startswith("first") and self._chance.random() < 0.2:
                others = [other for one, other in self.pairs() if one == master and other != slave]
                slaves.append(self._chance.choice(others))
            self._begin(self._share(master, slaves))

    async def ask(self, master: str, slaves: Sequence[str], number: int, patience: float = 30.0) -> list[UUID]:
        """Have a master ask for keys; returns the IDs that came.

        Raises:
            Refusal, NotServing, Died, StoreError, TimeoutError: none came, as far as the SAE knows.
        """
        process = self._world.ukms(_site(master))
        if process.life is None or not process.serves:
            raise NotServing
        oracle, kme = self._world.oracle, process.kme

        async def serve() -> list[UUID]:
            request = KeyRequest(number=number, additional_slave_SAE_IDs=list(slaves[1:]))
            container = await kme.enc_keys(SaeId(master), slaves[0], request)
            for key in container.keys:
                oracle.handed(master, list(slaves), key.key_ID, key.key)
            return [key.key_ID for key in container.keys]

        async with asyncio.timeout(patience):
            return await process.life.ask(serve())

    async def fetch(self, slave: str, master: str, key_ids: Sequence[UUID]) -> bool:
        """Have a slave fetch keys; False where it heard nothing definite."""
        process = self._world.ukms(_site(slave))
        if process.life is None or not process.serves:
            return False
        oracle = self._world.oracle
        keys = [oracle.keys[key_id] for key_id in key_ids]
        before = [slave in key.uncertain for key in keys]
        for key in keys:
            key.uncertain.add(slave)
        try:
            async with asyncio.timeout(self._chance.choice((0.001, 5.0, 30.0, 30.0, 30.0))):
                await process.life.ask(_dec_keys(process.kme, oracle, slave, master, key_ids))
        except Refusal as refusal:
            if refusal.status == 503:
                return False
            for key, uncertain in zip(keys, before, strict=True):
                if not uncertain:
                    key.uncertain.discard(slave)
            if len(keys) == 1:
                oracle.refused(slave, keys[0].key_id)
            return True
        except (*GONE, TimeoutError):
            return False
        return True

    async def take_the_rest(self) -> None:
        """Fetch, one by one, what masters got and slaves did not yet."""
        oracle = self._world.oracle
        for key in list(oracle.keys.values()):
            if key.handed is None:
                continue
            for slave in key.slaves:
                if slave in key.taken or _site(slave) == "ukms-9":
                    continue
                for _ in range(5):
                    if await self.fetch(slave, key.master, [key.key_id]):
                        break
                    await asyncio.sleep(0.5)

    def stop(self) -> None:
        """Everybody goes."""
        for task in self._tasks:
            task.cancel()

    async def _share(self, master: str, slaves: list[str]) -> None:
        chance = self._chance
        number = chance.choice((1, 1, 1, 1, 1, 3, 12))
        patience = chance.choice((0.02, 2.0, 30.0, 30.0, 30.0, 30.0))
        try:
            key_ids = await self.ask(master, slaves, number, patience)
        except Refusal as refusal:
            self.refusals += 1
            if refusal.status not in (400, 503):
                raise
            return
        except (*GONE, NotServing, TimeoutError):
            return
        for slave in slaves:
            await asyncio.sleep(chance.choice((0.0, 0.01, 1.0)))
            self._begin(self._fetch_all(slave, master, key_ids))

    async def _fetch_all(self, slave: str, master: str, key_ids: list[UUID]) -> None:
        chance = self._chance
        if chance.random() < 0.3:
            await self.fetch(slave, master, key_ids)
        for key_id in key_ids:
            if chance.random() < 0.1:
                continue  # it gives this key up, for now
            for _ in range(4):
                if await self.fetch(slave, master, [key_id]):
                    break
                await asyncio.sleep(chance.uniform(0.1, 2.0))
            if chance.random() < 0.1:
                await self.fetch(slave, master, [key_id])

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._world.oracle.finding("user", f"{type(error).__name__}: {error}")


async def _dec_keys(kme: Kme, oracle: Oracle, slave: str, master: str, key_ids: Sequence[UUID]) -> KeyContainer:
    container = await kme.dec_keys(SaeId(slave), master, key_ids)
    for key in container.keys:
        oracle.taken(slave, key.key_ID, key.key)
    return container


def _site(sae: str) -> str:
    from tests.simulator.world import SAES

    return SAES[sae]
