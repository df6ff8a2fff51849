"""A thief who has a controller's gRPC certificate and what it said, but not the key with which it signs statements."""

from __future__ import annotations

import asyncio
import base64
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi import paths
from keyhaul.agents.gnmi.models.ckms import TOP
from keyhaul.agents.gnmi.peers import Rpc
from keyhaul.agents.signing import sign
from keyhaul.agents.statements import Statement, Withdrawal
from tests.simulator.gnmi import Aborted, called
from tests.simulator.lies import LYING
from tests.simulator.loop import Died
from tests.simulator.processes import name

if TYPE_CHECKING:
    from tests.simulator.world import World

KINDS = ("replays", "replays", "replays a part", "redirects", "alters", "forges", "deletes")


class StatementThief:
    """Tries to steer, until cancelled."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = Random(f"{world.seed} statement thief")

    async def run(self) -> None:
        """See above."""
        while True:
            await asyncio.sleep(self._chance.expovariate(self._world.settings.statement_thief))
            if not self._world.overheard:
                continue
            node, request = self._chance.choice(list(self._world.overheard))
            kind = self._chance.choice(KINDS)
            self._world.faults.count(f"thief of statements {kind}")
            node, request = self._made(kind, node, request)
            process = self._world.ckms(node)
            if process.life is None or not process.serves:
                continue
            try:
                async with asyncio.timeout(3.0):
                    asked = called(process, name("controller-1"), Rpc.SET, request)
                    await process.life.ask(asked)
            except (Aborted, Died, TimeoutError):
                continue
            if kind in ("redirects", "alters", "forges", "deletes") and not (self._world.lies.told and node == LYING):
                self._world.oracle.finding("steered", f"{node} took what a thief {kind}")

    def _made(self, kind: str, node: str, request: Any) -> tuple[str, Any]:
        chance = self._chance
        made = gnmi_pb2.SetRequest()
        match kind:
            case "replays":
                made.CopyFrom(request)
            case "replays a part":
                made.update.add().CopyFrom(chance.choice(request.update))
            case "redirects":
                made.CopyFrom(request)
                node = chance.choice([one.name.id for one in self._world.carriers if one.name.id != node])
            case "alters":
                update = made.update.add()
                update.CopyFrom(chance.choice(request.update))
                update.val.json_ietf_val = self._altered(update.val.json_ietf_val)
            case "deletes":
                made.delete.add().CopyFrom(chance.choice(request.update).path)
            case _:
                self._forge(made, node)
        return node, made

    def _altered(self, value: bytes) -> bytes:
        said = msgspec.json.decode(value)
        body = bytearray(base64.b64decode(said["body"]))
        body[self._chance.randrange(len(body))] ^= 1
        return msgspec.json.encode(said | {"body": base64.b64encode(body).decode()})

    def _forge(self, made: Any, node: str) -> None:
        """A statement of its own: that everything ends, signed with a key that is not a controller's."""
        process = self._world.ckms(node)
        held = () if process.installed is None else tuple(process.installed.held)
        incarnation = None if process.installed is None else process.installed.incarnation
        serial = 2**40 + self._chance.getrandbits(20)
        statement = Statement(
            v=1,
            node=node,
            incarnation=incarnation,
            epoch=2**30,
            serial=serial,
            lifetime_s=900,
            says=Withdrawal(serials=held),
        )
        (signed,) = sign([statement], self._world.private_key("thief"))
        place = f"/{TOP}/forwarding/statement[serial={serial}]"
        said = {
            "serial": str(serial),
            "body": base64.b64encode(signed.body).decode(),
            "signature": base64.b64encode(signed.signature).decode(),
        }
        update = made.update.add(path=paths.to_proto(paths.parse(place)))
        update.val.json_ietf_val = msgspec.json.encode(said)
