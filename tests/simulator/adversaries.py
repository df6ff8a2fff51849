"""Those who belong to the network and are not honest: a carrier KMS and a user KMS; and the thief (`thief`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from keyhaul.link.link import Link
from keyhaul.transport.messages.access import Describe, Held, Purpose, Report, RequestKeys
from keyhaul.transport.messages.base import ServiceError
from keyhaul.transport.messages.peer import Voided, VoidKeys
from keyhaul.transport.operations import (
    ACCESS_REPORT,
    DELIVERY_PUSH,
    DELIVERY_VOID,
    RELAY_FORWARD,
)
from services.ukms.access import Akms
from tests.simulator.carriers import CkmsProcess
from tests.simulator.loop import Died
from tests.simulator.processes import AkmsProcess, SimulatedProcess, UkmsProcess
from tests.simulator.thief import MAKER, Thief

if TYPE_CHECKING:
    from tests.simulator.world import World

CARRIER = "ckms-3"
LIAR = "ukms-7"

WITHDRAWS = "withdraws foreign keys"


class Adversaries:
    """Does harm until it is told to stop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._settings = world.settings
        self._chance = Random(f"{world.seed} adversaries")
        self._active = True
        self._last: tuple[Any, bytes] | None = None
        self._thief = Thief(world) if self._settings.thief else None
        world.begun = self._begun

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """What they do by themselves."""
        works = []
        if self._settings.liar:
            works.append(self._lie())
        if self._thief is not None:
            works.append(self._thief.steal())
        return works

    def stop(self) -> None:
        """They are found out, and honest from now on."""
        self._active = False

    def _begun(self, process: SimulatedProcess) -> None:
        if process.name.id == MAKER and self._thief is not None:
            assert isinstance(process, AkmsProcess)
            self._thief.reach(process)
        if process.name.id == CARRIER and self._settings.compromised_carrier:
            assert isinstance(process, CkmsProcess)
            for link in process.links.all():
                assert isinstance(link, Link)
                self._compromise(link)
        if process.name.id == LIAR and self._settings.liar:
            assert isinstance(process, UkmsProcess)
            for link in process.links.all():
                assert isinstance(link, Link)
                self._deceive(link)

    # The carrier KMS

    def _compromise(self, link: Link) -> None:
        honest: Any = link.send

        async def send(operation: Any, request: Any, secret: bytes = b"", **options: Any) -> None:
            harm = self._chance.random() < self._settings.compromised_carrier
            if operation is not RELAY_FORWARD or not self._active or not harm:
                self._last = (request, secret) if operation is RELAY_FORWARD else self._last
                await honest(operation, request, secret, **options)
                return
            kind = self._chance.choice(("alter", "replay", "swap", "withhold"))
            self._world.faults.count(f"carrier {kind}s")
            match kind:
                case "alter":
                    place = self._chance.randrange(len(secret))
                    secret = secret[:place] + bytes([secret[place] ^ 4]) + secret[place + 1 :]
                    await honest(operation, request, secret, **options)
                case "replay":
                    await honest(operation, request, secret, **options)
                    again = msgspec.structs.replace(request, reference=self._chance.randbytes(8).hex())
                    await honest(operation, again, secret, **options)
                case "swap" if self._last is not None and len(self._last[1]) == len(secret):
                    other = self._last[1]
                    await honest(operation, request, other, **options)
                case _:
                    return

        link.send = send  # type: ignore[method-assign]

    # The user KMS

    def _deceive(self, link: Link) -> None:
        push, void = link._serving._handlers[DELIVERY_PUSH.name], link._serving._handlers[DELIVERY_VOID.name]

        async def lying_push(akms: Any, message: Any, secret: bytes) -> tuple[Any, bytes]:
            if self._active and self._chance.random() < 0.3:
                self._world.faults.count("liar pretends to hold")
                return Held(batch=message.batch, store=self._world.processes[LIAR].disk.store_id), b""
            return await push(akms, message, secret)

        async def lying_void(akms: Any, message: VoidKeys, secret: bytes) -> tuple[Any, bytes]:
            answer: Any
            answer, rest = await void(akms, message, secret)
            if self._active and self._chance.random() < 0.5:
                self._world.faults.count("liar reports wrong states")
                return Voided(voided=answer.issued, issued=answer.voided, store=answer.store), rest
            return answer, rest

        link._serving._handlers[DELIVERY_PUSH.name] = lying_push
        link._serving._handlers[DELIVERY_VOID.name] = lying_void

    async def _lie(self) -> None:
        chance = self._chance
        while True:
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            process = self._world.ukms(LIAR)
            if process.life is None or not process.serves:
                continue
            others = [key for key in self._world.oracle.keys.values() if not key.master.startswith("third")]
            akms = process.akms
            lies: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
                "asks for a foreign master": partial(akms.request, self._foreign(), 3.0),
                "asks the terms of a foreign master": partial(akms.describe, _terms(), 3.0),
                "reports another store": partial(_report, akms, chance.randbytes(16).hex(), []),
            }
            if others:
                key = chance.choice(others)
                lies[WITHDRAWS] = partial(akms.withdraw, key.batch, [key.key_id], 3.0)
                lies["reports foreign batches"] = partial(_report, akms, process.disk.store_id, [key.batch])
            kind, lie = chance.choice(list(lies.items()))
            self._world.faults.count(f"liar {kind}")
            if kind == WITHDRAWS:
                self._world.oracle.withdrawn_by_liar.add(key.batch)
            try:
                async with asyncio.timeout(5.0):
                    await process.life.ask(lie())
            except (ServiceError, Died, TimeoutError):
                continue
            if kind == "asks the terms of a foreign master":
                self._world.oracle.finding("granted", "a UKMS was told the terms of a master that is not its own")

    def _foreign(self) -> RequestKeys:
        return RequestKeys(
            request=self._chance.randbytes(16).hex(),
            master="first-west-1",
            slaves=["first-east-1"],
            number=1,
            size=256,
            purpose=Purpose.DEMAND,
            remaining_ms=5_000,
        )


def _terms() -> Describe:
    return Describe(master="second-west", slaves=["second-east"])


async def _report(akms: Akms, store: str, unsettled: list[str]) -> None:
    await akms._link.call(ACCESS_REPORT, Report(store=store, unsettled=unsettled), deadline=3.0)
