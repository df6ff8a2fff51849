"""A chain of CKMS processes, driven by one process that plays the AKMSs of its access nodes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path

from bench.network import Network, laid_out, start
from bench.observe import until, warnings_alone
from keyhaul.config.loader import load
from keyhaul.config.services import AkmsConfig
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.names import Role, ServiceName, node_id
from keyhaul.runtime.local import ask
from keyhaul.transport.channel import Channel
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.listener import Listener
from keyhaul.transport.messages.base import Accepted
from keyhaul.transport.messages.relay import Deliver, Outcome, Submit
from keyhaul.transport.operations import CARRIER_DELIVER, CARRIER_OUTCOME, CARRIER_SUBMIT
from keyhaul.transport.tls import service_client, service_server

DEADLINE = 10.0
SKR = 20_000

_HEAD = """
[network]
name = "chain"
domain = "bench.example"
loopback = "127.48.0.0"

[[carrier]]
rate = 1_000_000_000  # no batch is to be policed here

[[customer]]
name = "nobody"

[[customer.contract]]
name = "none"

[[node]]
name = "dc"
number = 1000
roles = {roles}
"""


class RelayFailed(Exception):
    """A batch did not arrive."""


class AccessNodes:
    """Plays the AKMSs: submits batches of random bits, and takes and compares what is delivered."""

    def __init__(self, network: Network, nodes: Collection[int]) -> None:
        self._listeners: list[Listener] = []
        self._channels: dict[int, Channel] = {}
        self._sent: dict[str, bytes] = {}
        self._delivered: dict[str, float] = {}
        self._outcomes: dict[str, asyncio.Future[None]] = {}
        for node in nodes:
            self._join(network, node)

    async def listen(self) -> None:
        """Let the CKMSs dial."""
        for listener in self._listeners:
            await listener.start()

    async def dial(self) -> None:
        """Dial the CKMSs, which must be up; returns when all are connected."""
        for channel in self._channels.values():
            await channel.start()
        await until(self._connected, DEADLINE)

    async def close(self) -> None:
        """Stop."""
        for channel in self._channels.values():
            await channel.close()
        for listener in self._listeners:
            await listener.close()

    async def carry(self, source: int, destination: int, length: int) -> tuple[float, float]:
        """Send a batch of `length` random bytes.

        Returns:
            seconds from submitting it until it was delivered, and until its outcome was known at the source.

        Raises:
            RelayFailed: it did not arrive, or other bits did.
        """
        name, bits = secrets.token_hex(16), os.urandom(length)
        self._sent[name] = bits
        outcome = self._outcomes[name] = asyncio.get_running_loop().create_future()
        message = Submit(
            batch=name,
            destination=f"ckms-{destination}",
            bits=bits,
            service_class="silver",
            remaining_ms=int(1000 * DEADLINE),
        )
        begin = time.perf_counter()
        try:
            await self._channels[source].call(CARRIER_SUBMIT, message, deadline=DEADLINE)
            async with asyncio.timeout(DEADLINE):
                await outcome
            return self._delivered.pop(name) - begin, time.perf_counter() - begin
        finally:
            self._sent.pop(name, None)
            self._outcomes.pop(name, None)

    async def _connected(self) -> bool:
        return all(channel.connected for channel in self._channels.values())

    def _join(self, network: Network, node: int) -> None:
        path = network.config(f"akms-{node}")
        config = load(path, AkmsConfig)
        own = ServiceName(config.service.domain, Role.AKMS, node_id(config.service.node))
        ckms = ServiceName(own.domain, Role.CKMS, own.node)
        identity = ServiceIdentity.load(config.identity, path.parent, own)
        routes = Routes()
        routes.add(CARRIER_DELIVER, self._on_deliver)
        routes.add(CARRIER_OUTCOME, self._on_outcome)
        self._listeners.append(Listener(own, config.listen.address, service_server(identity), routes))
        self._channels[node] = Channel(own, ckms, config.ckms.address, service_client(identity))

    async def _on_deliver(self, _: Peer, message: Deliver) -> Accepted:
        now = time.perf_counter()
        if self._sent.get(message.batch) != message.bits:
            self._settle(message.batch, RelayFailed("other bits arrived than were sent"))
        self._delivered[message.batch] = now
        return Accepted()

    async def _on_outcome(self, _: Peer, message: Outcome) -> Accepted:
        failure = None if message.failure is None else RelayFailed(message.failure.value)
        self._settle(message.batch, failure)
        return Accepted()

    def _settle(self, batch: str, failure: RelayFailed | None) -> None:
        outcome = self._outcomes.get(batch)
        if outcome is None or outcome.done():
            return
        if failure is None:
            outcome.set_result(None)
        else:
            outcome.set_exception(failure)


@contextlib.asynccontextmanager
async def chain(
    hops: int, access: Collection[int], *, controller: bool = False
) -> AsyncIterator[tuple[Network, AccessNodes]]:
    """Run a chain of hops + 1 CKMSs, numbered from 1, with modules; stop it at the end.

    Args:
        hops: links of the chain.
        access: numbers of the nodes that have an AKMS, played by the calling process.
        controller: whether there is one; it starts with the CKMSs.
    """
    links = [(node, node + 1) for node in range(1, hops + 1)]
    async with carrier(links, access, controller=controller) as running:
        yield running


@contextlib.asynccontextmanager
async def carrier(
    links: Collection[tuple[int, int]], access: Collection[int], *, controller: bool = False, skr: int = SKR
) -> AsyncIterator[tuple[Network, AccessNodes]]:
    """Run CKMSs, joined as `links` says by modules of a secret key rate (bits per second); the rest as `chain`."""
    warnings_alone()
    with tempfile.TemporaryDirectory(prefix="kh-", dir="/tmp") as scratch:
        description = Path(scratch) / "chain.toml"
        description.write_text(_description(links, access, controller, skr))
        with laid_out(description=description) as network:
            nodes = AccessNodes(network, access)
            try:
                await nodes.listen()
                await asyncio.to_thread(start, network, "qkdm", "ckms", *(["controller"] if controller else []))
                await nodes.dial()
                await _linked(network)
                yield network, nodes
            finally:
                await nodes.close()


async def _linked(network: Network) -> None:
    """Wait until all links stand: a network of which some roles run only is not waited for so long."""
    carriers = [entry["id"] for entry in network.facts["services"] if entry["role"] == "ckms"]

    async def linked() -> bool:
        found = [link for service in carriers for link in (await ask(network.socket(service), "links"))["links"]]
        return all(link["state"] == "up" for link in found)

    await until(linked, 60)


def _description(links: Collection[tuple[int, int]], access: Collection[int], controller: bool, skr: int) -> str:
    text = [_HEAD.format(roles='["aaa", "controller"]' if controller else '["aaa"]')]
    for node in sorted({end for link in links for end in link}):
        roles = '"akms", "ckms"' if node in access else '"ckms"'
        text.append(f'[[node]]\nname = "{node}"\nnumber = {node}\nroles = [{roles}]\n')
    for one, other in links:
        text.append(f'[[link]]\na = "{one}"\nb = "{other}"\nkm = 77\nskr = {skr}\n')
    return "\n".join(text)
