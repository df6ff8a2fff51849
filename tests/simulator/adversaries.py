"""Those who belong to the network and are not honest: a carrier KMS, a user KMS, and an access KMS that was stolen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from keyhaul.keys.grants import encode
from keyhaul.link.link import Link
from keyhaul.transport.messages.aaa import Authorise, Grant, SignedGrant
from keyhaul.transport.messages.access import Describe, Held, Purpose, Report, RequestKeys
from keyhaul.transport.messages.base import ServiceError
from keyhaul.transport.messages.peer import BatchState, KeyRequest, Query, Voided, VoidKeys
from keyhaul.transport.operations import (
    AAA_AUTHORISE,
    ACCESS_REPORT,
    DELIVERY_PUSH,
    DELIVERY_VOID,
    PEER_QUERY,
    PEER_REQUEST,
    PEER_VOID,
    RELAY_FORWARD,
)
from services.akms.ephemeral import EphemeralKeys
from services.ukms.access import Akms
from tests.simulator.air import Server, SimulatedCalls
from tests.simulator.loop import Died, Life
from tests.simulator.processes import CkmsProcess, SimulatedProcess, UkmsProcess, name

if TYPE_CHECKING:
    from tests.simulator.world import World

CARRIER = "ckms-3"
LIAR = "ukms-7"
THIEF = "akms-9"

BURST = 6
"""Requests of the thief at once."""


class Stranger:
    """What the air needs to know of the thief."""

    def __init__(self) -> None:
        self.name = name(THIEF)
        self.life: Life | None = None
        self.server: Server | None = None
        self.serves = False


class Adversaries:
    """Does harm until it is told to stop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._settings = world.settings
        self._chance = Random(f"{world.seed} adversaries")
        self._active = True
        self._buried: set[str] = set()
        self._last: tuple[Any, bytes] | None = None
        world.begun = self._begun

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """What they do by themselves."""
        works = []
        if self._settings.liar:
            works.append(self._lie())
        if self._settings.thief:
            works.append(self._steal())
        return works

    def stop(self) -> None:
        """They are found out, and honest from now on."""
        self._active = False

    def _begun(self, process: SimulatedProcess) -> None:
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
        push, void = link._handlers[DELIVERY_PUSH.name], link._handlers[DELIVERY_VOID.name]

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

        link._handlers[DELIVERY_PUSH.name] = lying_push
        link._handlers[DELIVERY_VOID.name] = lying_void

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
                lies["withdraws foreign keys"] = partial(akms.withdraw, key.batch, [key.key_id], 3.0)
                lies["reports foreign batches"] = partial(_report, akms, process.disk.store_id, [key.batch])
            kind, lie = chance.choice(list(lies.items()))
            self._world.faults.count(f"liar {kind}")
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

    # The access KMS

    async def _steal(self) -> None:
        chance, world = self._chance, self._world
        thief = Stranger()
        thief.life = Life(THIEF)
        to_aaa = SimulatedCalls(world.air, thief, name(world.aaa))
        to_maker = SimulatedCalls(world.air, thief, name("akms-5"))
        keys = EphemeralKeys(THIEF, world.private_key(THIEF))
        grants: list[bytes] = []
        while True:
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            foreign = [
                bytes(row[0])
                for row in world.processes["akms-2"].disk.raw.execute("SELECT signed FROM grants").fetchall()
            ]
            try:
                async with asyncio.timeout(5.0):
                    if not grants or chance.random() < 0.02:
                        right = Authorise(ukms="ukms-9", master="stolen-west", slaves=["stolen-east"])
                        grants.append(encode(await to_aaa.call(AAA_AUTHORISE, right, deadline=2.0)))
                        await self._overreach(to_aaa)
                    kind = chance.choice(("own", "own", "foreign", "altered", "spy"))
                    if kind == "spy":
                        await self._spy(to_maker)
                        continue
                    signed = chance.choice(foreign) if kind == "foreign" and foreign else chance.choice(grants)
                    world.faults.count(f"thief uses a grant: {kind}")
                    altered = kind == "altered"
                    requests = [self._request(keys, signed, altered=altered) for _ in range(BURST)]
                    calls = [to_maker.call(PEER_REQUEST, request, deadline=2.0) for request in requests]
                    outcomes = await asyncio.gather(*calls, return_exceptions=True)
                    if all(isinstance(outcome, BaseException) for outcome in outcomes):
                        continue
            except (ServiceError, TimeoutError):
                continue
            if kind == "altered":
                world.oracle.finding("granted", "a maker took a request on under a grant that was altered")

    async def _overreach(self, to_aaa: SimulatedCalls) -> None:
        right = Authorise(ukms="ukms-1", master="first-west-1", slaves=["first-east-1"])
        self._world.faults.count("thief asks for a foreign grant")
        try:
            await to_aaa.call(AAA_AUTHORISE, right, deadline=2.0)
        except ServiceError:
            return
        self._world.oracle.finding("granted", "AAA granted a foreign master's right to the stolen AKMS")

    async def _spy(self, to_maker: SimulatedCalls) -> None:
        batches = sorted({key.batch for key in self._world.oracle.keys.values() if THIEF not in key.akms})
        if not self._settings.squat:
            maker = self._world.processes["akms-5"].disk.raw
            known = {row[0] for row in maker.execute("SELECT batch FROM batches").fetchall()}
            batches = [batch for batch in batches if batch in known]
        if not batches:
            return
        batch = self._chance.choice(batches)
        self._world.faults.count("thief queries and voids foreign batches")
        reply = await to_maker.call(PEER_QUERY, Query(batches=[batch]), deadline=2.0)
        if reply.states != [BatchState.UNKNOWN] and batch not in self._buried:
            self._world.oracle.finding("granted", "a foreign batch's state was told to the stolen AKMS")
        self._buried.add(batch)  # the maker remembers that this peer spoke of it, where it knows nothing itself
        voided = await to_maker.call(PEER_VOID, VoidKeys(batch=batch), deadline=2.0)
        if voided.voided:
            self._world.oracle.finding("granted", "a foreign batch was voided for the stolen AKMS")

    def _request(self, keys: EphemeralKeys, signed: bytes, *, altered: bool) -> KeyRequest:
        message = msgspec.json.decode(signed, type=SignedGrant)
        grant = msgspec.json.decode(message.grant, type=Grant)
        if altered:
            grant = msgspec.structs.replace(grant, allowance=10**9)
            signed = encode(SignedGrant(grant=msgspec.json.encode(grant), signature=message.signature))
        key = keys.borrow("akms-5", self._world.loop.time())
        return KeyRequest(
            request=self._chance.randbytes(16).hex(),
            grant=signed,
            number=self._chance.choice((1, 10)),
            size=256,
            slaves=grant.slaves,
            destination="ckms-9",
            kem_key=key.public,
            kem_signature=key.signature,
            remaining_ms=3_000,
        )


def _terms() -> Describe:
    return Describe(master="second-west", slaves=["second-east"])


async def _report(akms: Akms, store: str, unsettled: list[str]) -> None:
    await akms._link.call(ACCESS_REPORT, Report(store=store, unsettled=unsettled), deadline=3.0)
