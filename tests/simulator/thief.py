"""An access KMS that was stolen with its keys: it makes the most of its grants, and of those of others.

Its node is not in the network. What makers transfer reaches it all the same, as if a carrier KMS of its own brought
it the CN bits; it has an accomplice among the slaves, and tells makers that it released nothing.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from keyhaul.identity.names import SaeId
from keyhaul.keys.grants import encode
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.messages.aaa import Authorise, Grant, SignedGrant
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import (
    BatchState,
    KeyRequest,
    Query,
    QueryReply,
    Released,
    RequestFailed,
    Transfer,
    Voided,
    VoidKeys,
)
from keyhaul.transport.operations import (
    AAA_AUTHORISE,
    PEER_FAILED,
    PEER_QUERY,
    PEER_REQUEST,
    PEER_TRANSFER,
    PEER_VOID,
)
from services.akms.cn_pool import Taken
from services.akms.ephemeral import EphemeralKeys
from services.ukms.etsi014 import Refusal
from tests.simulator.air import Server, SimulatedCalls
from tests.simulator.loop import Died, Life
from tests.simulator.processes import AkmsProcess, name
from tests.simulator.users import GONE

if TYPE_CHECKING:
    from typing import Any

    from tests.simulator.world import World

THIEF = "akms-9"
MAKER = "akms-5"

BURST = 6
"""Requests at once."""


class Thief:
    """See above."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = Random(f"{world.seed} thief")
        self._buried: set[str] = set()
        self._grants: dict[str, str] = {}
        """By request."""
        self.name = name(THIEF)
        self.life: Life | None = Life(THIEF)
        self.serves = True
        routes = Routes()
        routes.add(PEER_TRANSFER, self._transfer)
        routes.add(PEER_FAILED, self._failed)
        routes.add(PEER_QUERY, self._query)
        routes.add(PEER_VOID, self._void)
        self.server: Server | None = Server(self.name, routes, self._handler_failed, lambda name, **facts: None)
        world.air.processes[THIEF] = self

    def reach(self, maker: AkmsProcess) -> None:
        """Let what a maker transfers come: its CN bits are there."""
        carrier: Any = maker.service.carrier
        honest = carrier.take

        async def take(peer: str, service_class: str, count: int, *others: Any, **options: Any) -> Taken:
            if peer == THIEF:
                return Taken([], maker.source(count), maker.clock())
            taken: Taken = await honest(peer, service_class, count, *others, **options)
            return taken

        carrier.take = take

    async def steal(self) -> None:
        """Ask for keys under any grant there is, until cancelled."""
        chance, world = self._chance, self._world
        to_aaa = SimulatedCalls(world.air, self, name(world.aaa))
        to_maker = SimulatedCalls(world.air, self, name(MAKER))
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
        world = self._world
        batches = sorted({key.batch for key in world.oracle.keys.values() if THIEF not in key.akms})
        if not world.settings.squat:
            known = {row[0] for row in world.processes[MAKER].disk.raw.execute("SELECT batch FROM batches").fetchall()}
            batches = [batch for batch in batches if batch in known]
        if not batches:
            return
        batch = self._chance.choice(batches)
        world.faults.count("thief queries and voids foreign batches")
        reply = await to_maker.call(PEER_QUERY, Query(batches=[batch]), deadline=2.0)
        if reply.states != [BatchState.UNKNOWN] and batch not in self._buried:
            world.oracle.finding("granted", "a foreign batch's state was told to the stolen AKMS")
        self._buried.add(batch)  # the maker remembers that this peer spoke of it, where it knows nothing itself
        voided = await to_maker.call(PEER_VOID, VoidKeys(batch=batch), deadline=2.0)
        if voided.voided:
            world.oracle.finding("granted", "a foreign batch was voided for the stolen AKMS")

    def _request(self, keys: EphemeralKeys, signed: bytes, *, altered: bool) -> KeyRequest:
        message = msgspec.json.decode(signed, type=SignedGrant)
        grant = msgspec.json.decode(message.grant, type=Grant)
        if altered:
            grant = msgspec.structs.replace(grant, allowance=10**9)
            signed = encode(SignedGrant(grant=msgspec.json.encode(grant), signature=message.signature))
        key = keys.borrow(MAKER, self._world.loop.time())
        request = self._chance.randbytes(16).hex()
        self._grants[request] = grant.id
        return KeyRequest(
            request=request,
            grant=signed,
            number=self._chance.choice((1, 10)),
            size=256,
            slaves=grant.slaves,
            destination="ckms-9",
            kem_key=key.public,
            kem_signature=key.signature,
            remaining_ms=3_000,
        )

    # What makers say to it

    async def _transfer(self, _peer: Peer, message: Transfer) -> Released:
        """Take the keys, and sometimes say that they were refused, or say nothing."""
        self._world.faults.count("thief is given keys")
        self._world.oracle.stolen(self._grants[message.request], message.key_ids)
        match self._chance.choice(("takes", "refuses", "is silent")):
            case "takes":
                return Released(batch=message.batch)
            case "refuses":
                if self._chance.random() < 0.5:
                    await self._hand_on(message.key_ids[:3])
                raise ServiceError(ErrorCode.CONFLICT, "refused")
            case _:
                raise ServiceError(ErrorCode.BUSY, "later")

    async def _failed(self, _peer: Peer, _message: RequestFailed) -> Accepted:
        return Accepted()

    async def _query(self, _peer: Peer, message: Query) -> QueryReply:
        return QueryReply(states=[BatchState.UNKNOWN] * len(message.batches))

    async def _void(self, _peer: Peer, _message: VoidKeys) -> Voided:
        self._world.faults.count("thief denies that it has keys")
        return Voided()

    async def _hand_on(self, key_ids: list[UUID]) -> None:
        """Have the accomplice fetch keys before the maker learns that they are not wanted."""
        process = self._world.ukms("ukms-6")
        if process.life is None or not process.serves:
            return
        self._world.faults.count("thief's accomplice fetches keys")
        try:
            async with asyncio.timeout(1.0):
                await process.life.ask(self._fetch(process.kme, key_ids))
        except (Refusal, *GONE, TimeoutError):
            return

    async def _fetch(self, kme: Any, key_ids: list[UUID]) -> None:
        container = await kme.dec_keys(SaeId("stolen-east"), "stolen-west", key_ids)
        for key in container.keys:
            self._world.oracle.taken("stolen-east", key.key_ID, key.key)

    def _handler_failed(self, operation: str, error: Exception) -> None:
        if not isinstance(error, Died):
            self._world.oracle.finding("handler-failed", f"{THIEF}: {operation}: {error!r}")
