"""Asks a real controller for paths in the name of a real CKMS, and looks at that CKMS's agent for what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec

from bench.network import Network
from controller.reported import qualified
from keyhaul.agents.gnmi.client import Client
from keyhaul.agents.gnmi.models.ckms import TOP
from keyhaul.agents.gnmi.notices import Wanted
from keyhaul.config.loader import load, resolve
from keyhaul.config.services import CkmsConfig, ControllerConfig
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.names import Role, ServiceName, node_id
from keyhaul.transport.channel import Channel
from keyhaul.transport.messages.path import PathRefusal, PathRequest
from keyhaul.transport.operations import PATH_REQUEST
from keyhaul.transport.tls import TlsFiles, service_client

DEADLINE = 5.0
LIMIT = 60.0
PAUSE = 0.1
AGAIN = 2.0
"""Seconds after which the controller is asked again for paths that do not come."""
_WANTED = (
    Wanted(f"/{TOP}/service-id", heartbeat=1.0),
    Wanted(f"/{TOP}/forwarding/path[destination=*][service-class=*][rank=*][origin=statement]"),
)


class PathTold(msgspec.Struct, rename=qualified):
    """A path in force, as the agent tells it."""

    destination: str
    service_class: str
    rank: int
    next: str = ""
    serial: int = 0


_PATH = msgspec.json.Decoder(PathTold, strict=False)


class Asker:
    """One CKMS, in whose name the controller is asked."""

    def __init__(self, channel: Channel, agent: Client) -> None:
        self._channel = channel
        self._agent = agent
        self.paths: dict[tuple[str, str, int], PathTold] = {}
        """In force, by destination, class and rank."""
        self.refusal: PathRefusal | None = None
        """Of the last question."""
        self._changed = asyncio.Event()

    async def ask(self, destination: str, service_class: str, rate: float) -> float:
        """Ask until the controller takes it on, which needs it to lead and pools to be filled; return when that was
        sent (perf_counter).

        Raises:
            TimeoutError: it did not.
        """
        request = PathRequest(destination=destination, service_class=service_class, rate=rate)
        async with asyncio.timeout(LIMIT):
            while True:
                begin = time.perf_counter()
                reply = await self._channel.call(PATH_REQUEST, request, deadline=DEADLINE)
                self.refusal = reply.refusal
                if reply.refusal is None:
                    return begin
                await asyncio.sleep(PAUSE)

    async def renewed(self, destination: str, service_class: str, rate: float, *, ranks: int) -> None:
        """Ask until new paths of so many ranks are in force: what has failed of late is kept out of paths for a while.

        Raises:
            TimeoutError: they are not.
        """
        async with asyncio.timeout(LIMIT):
            while True:
                before = self.newest()
                await self.ask(destination, service_class, rate)
                try:
                    await self.in_force(destination, service_class, ranks=ranks, after=before, limit=AGAIN)
                except TimeoutError:
                    continue
                return

    async def in_force(
        self, destination: str, service_class: str, *, ranks: int, after: int, limit: float = LIMIT
    ) -> float:
        """Wait for paths of so many ranks with serials beyond `after`; return when the agent told of the last.

        Raises:
            TimeoutError: they were not there within `limit` seconds.
        """

        def there() -> bool:
            found = [self.paths.get((destination, service_class, rank)) for rank in range(ranks)]
            return all(path is not None and path.serial > after for path in found)

        async with asyncio.timeout(limit):
            while not there():
                self._changed.clear()
                await self._changed.wait()
        return time.perf_counter()

    def newest(self) -> int:
        """The highest serial of a path in force, 0 where there is none."""
        return max((path.serial for path in self.paths.values()), default=0)

    async def watch(self) -> None:
        """Follow the agent until cancelled."""
        async with aclosing(self._agent.subscribe(_WANTED)) as notices:
            async for notice in notices:
                for gone in notice.deletes:
                    keys = dict(gone[-1].keys) if gone else {}
                    if keys.get("rank"):
                        self.paths.pop((keys["destination"], keys["service-class"], int(keys["rank"])), None)
                for update in notice.updates:
                    if update.path[-1].name == "path":
                        path = _PATH.decode(update.value)
                        self.paths[path.destination, path.service_class, path.rank] = path
                self._changed.set()


@contextlib.asynccontextmanager
async def asking(network: Network, node: str, controller: str = "dc") -> AsyncIterator[Asker]:
    """Play the CKMS of a node towards the controller of another; both run."""
    own_file, other_file = network.config(f"ckms-{node}"), network.config(f"controller-{controller}")
    own_config, other_config = load(own_file, CkmsConfig), load(other_file, ControllerConfig)
    own = ServiceName(own_config.service.domain, Role.CKMS, node_id(node))
    other = ServiceName(own.domain, Role.CONTROLLER, node_id(controller))
    identity = ServiceIdentity.load(own_config.identity, own_file.parent, own)
    twin = ServiceIdentity.load(other_config.identity, other_file.parent, other)
    assert own_config.gnmi is not None
    assert twin.classic_certificate is not None
    assert twin.classic_key is not None
    files = TlsFiles(twin.classic_certificate, twin.classic_key, resolve(other_file.parent, other_config.gnmi.trust))
    channel = Channel(own, other, other_config.listen.address, service_client(identity))
    async with Client(own_config.gnmi.address, own, files) as agent:
        asker = Asker(channel, agent)
        watching = asyncio.create_task(asker.watch())
        await channel.start()
        try:
            yield asker
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await channel.close()
