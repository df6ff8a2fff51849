"""All links of one service: who may speak on which, and one set of tasks for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from keyhaul.config.services import LinkSection
from keyhaul.identity.names import ServiceName
from keyhaul.link.bootstrap import bootstrap_secret
from keyhaul.link.core import Core, Pace
from keyhaul.link.establishing import Establishing
from keyhaul.link.handshake import LinkEnd
from keyhaul.link.interface import LinkCalls, SealedHandler
from keyhaul.link.link import Link
from keyhaul.link.lookup import Lookup, Module
from keyhaul.link.protection.registry import UnknownSuite
from keyhaul.link.refill import Refill
from keyhaul.link.sealing import Sealing
from keyhaul.link.settings import LinkSettings
from keyhaul.link.state import LinkState
from keyhaul.link.telemetry import LinkMetrics, Telemetry
from keyhaul.randomness import Source, random_bytes
from keyhaul.runtime.interface import Runtime, StartError
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls, Peer, Routes
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.link import Establish, Established, Sealed, SignedHello, Wake
from keyhaul.transport.operations import (
    LINK_CONTROL,
    LINK_ESTABLISH,
    LINK_HELLO,
    LINK_WAKE,
    Operation,
    Reply,
    Request,
)

CLOSING = 2.0
"""Seconds that tasks may take to stop."""

SealedWire = Callable[[Peer, Sealed], Awaitable[Sealed | None]]


class Links:
    """The links of a service. `serve` comes before `start`; a link that is added after that is begun by itself."""

    def __init__(
        self,
        own: ServiceName,
        routes: Routes,
        store: Store,
        link_key: MLDSA65PrivateKey,
        runtime: Runtime,
        *,
        source: Source = random_bytes,
        clock: Callable[[], float] = time.monotonic,
        directory: Path = Path(),
        pace: Pace | None = None,
    ) -> None:
        """Register the operations of link establishment and control.

        Args:
            own: this service.
            routes: where neighbours' calls come in.
            store: its schema includes the tables of `keyhaul.link.tables`.
            link_key: of this service.
            runtime: for tasks, metrics and alarms.
            source: of random bits.
            clock: monotonic seconds.
            directory: what paths in link sections are relative to.
            pace: how often things are tried again.
        """
        self._own = own
        self._routes = routes
        self._store = store
        self._key = link_key
        self._runtime = runtime
        self._source = source
        self._clock = clock
        self._directory = directory
        self._pace = pace or Pace()
        self._metrics = LinkMetrics(runtime.registry)
        self._links: dict[ServiceName, Link] = {}
        self._started = False
        self._coming: dict[str, Link] = {}
        """By id: links that were added after the start, and whose state is not loaded yet."""
        self._former: dict[str, Link] = {}
        """By service id: links that were removed, which are never up."""
        self._cores: dict[str, Core] = {}
        self._served: set[str] = set()
        self._common: dict[str, tuple[Operation[Any, Any], SealedHandler[Any, Any]]] = {}
        self._callbacks: list[Callable[[LinkCalls], None]] = []
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        routes.add(LINK_HELLO, self._on_hello)
        routes.add(LINK_ESTABLISH, self._on_establish)
        routes.add(LINK_WAKE, self._on_wake)
        self._register(LINK_CONTROL)

    def add(self, section: LinkSection, calls: Calls, peer_key: MLDSA65PublicKey, module: Module | None) -> LinkCalls:
        """Add a link.

        Args:
            section: its configuration.
            calls: the way to the neighbour.
            peer_key: the neighbour's pinned link key.
            module: the QKD module of this end, None while there is none.

        Raises:
            StartError: its suites, bootstrap secret or neighbour make no sense.
        """
        neighbour = calls.peer
        if neighbour.id != section.neighbour:
            raise StartError(f"link {section.id}: the channel leads to {neighbour.id}, not to {section.neighbour}")
        if neighbour in self._links or section.id in self._cores:
            raise StartError(f"link {section.id}: there is a link of this name or to {neighbour.id} already")
        bootstrap = bootstrap_secret(section, self._directory)
        end = LinkEnd(section.id, self._own.id, neighbour.id, self._key, peer_key, bootstrap)
        try:
            core = Core(
                section,
                end,
                calls,
                LinkState(self._store, section.id),
                LinkSettings(self._store, section.id),
                Telemetry(section.id, self._metrics, self._runtime, self._clock),
                clock=self._clock,
                source=self._source,
                pace=self._pace,
            )
        except UnknownSuite as error:
            raise StartError(f"link {section.id}: {error}") from error
        lookup = None if module is None else Lookup(module, section.module.peer_sae)
        sealing = Sealing(core)
        link = Link(core, sealing, Establishing(core), Refill(core, sealing, module, lookup), neighbour, self._register)
        for operation, handler in self._common.values():
            link.serve(operation, handler)
        core.on_session = lambda: self._notify(link)
        self._cores[section.id] = core
        if self._started:
            self._coming[section.id] = link
        else:
            self._links[neighbour] = link
        return link

    def serve(self, operation: Operation[Request, Reply], handler: SealedHandler[Request, Reply]) -> None:
        """Serve a sealed operation on all links."""
        self._common[operation.name] = (operation, handler)
        self._register(operation)
        for link in self._links.values():
            link.serve(operation, handler)

    def to(self, service_id: str) -> LinkCalls:
        """The link to a neighbour; where it was removed, the former one, which is never up.

        Raises:
            KeyError: there was none.
        """
        for neighbour, link in self._links.items():
            if neighbour.id == service_id:
                return link
        return self._former[service_id]

    def all(self) -> list[LinkCalls]:
        """Every link."""
        return list(self._links.values())

    def health(self) -> dict[str, bool]:
        """For the health page: whether each link is up, by its id; without those that are off by configuration."""
        return {link.id: link.up for link in self._links.values() if self._cores[link.id].allowed}

    def on_session(self, callback: Callable[[LinkCalls], None]) -> None:
        """Be told of each new session, with its link; the callback must not block."""
        self._callbacks.append(callback)

    def on_store_older(self, link_id: str, callback: Callable[[], Awaitable[None]]) -> None:
        """Have done what follows from a store that the neighbour's record shows to be an older copy.

        The link's own pads are burned in any case. The callback is awaited before the link remembers that they are: if
        it fails, or the process dies, the next session finds the same. A store that was lost and made anew is older,
        too.

        Raises:
            KeyError: there is no such link.
        """
        self._cores[link_id].on_store_older = callback

    async def protect(self, link_id: str, suites: list[str]) -> None:
        """Change a link's list of suites, best first, at run time and for good; empty: back to the configuration.

        Raises:
            KeyError: there is no such link.
            UnknownSuite: a name is unknown, or none is as strong as the link's floor.
            StoreUnavailable: nothing has changed yet.
        """
        await self._named(link_id).protect(suites)

    async def enable(self, link_id: str, enabled: bool) -> None:
        """Use a link or not, from now on and through restarts.

        Raises:
            KeyError: there is no such link.
            StoreUnavailable: nothing has changed yet.
        """
        await self._named(link_id).enable(enabled)

    def allow(self, link_id: str, allowed: bool) -> None:
        """Use a link or not, as the configuration says now.

        Raises:
            KeyError: there is no such link.
        """
        self._named(link_id).allow(allowed)

    def cut(self, link_id: str, cut: bool) -> None:
        """Let nothing cross a link, as if its fibre were cut, or mend it; until the process ends.

        Raises:
            KeyError: there is no such link.
        """
        self._named(link_id).cut(cut)

    def _named(self, link_id: str) -> Link:
        for link in self._links.values():
            if link.id == link_id:
                return link
        raise KeyError(link_id)

    async def start(self) -> None:
        """Load every link's state, then keep the links going.

        Raises:
            StoreError: the store failed.
        """
        self._started = True
        for core in self._cores.values():
            await core.load()
        for link in self._links.values():
            self._keep_going(link)

    async def begin(self, link_id: str) -> None:
        """Load the state of a link that was added after the start, then keep it going; nobody sees it before.

        Raises:
            StoreError: the store failed.
        """
        await self._cores[link_id].load()
        link = self._coming.pop(link_id)
        self._links[link.neighbour] = link
        self._keep_going(link)

    async def remove(self, link_id: str) -> None:
        """Take a link out, after what must not be cut. What the store has of it stays: no pad of it is used twice,
        should there be a link of this name again.

        Raises:
            KeyError: there is no such link.
        """
        link = self._coming.pop(link_id, None) or self._named(link_id)
        self._links.pop(link.neighbour, None)
        self._former[link.neighbour.id] = link
        core = self._cores.pop(link_id)
        core.cut = True
        await _stop(self._tasks.pop(link_id, []))
        await link.close()
        core.telemetry.forget()

    async def close(self) -> None:
        """Stop the tasks, after what must not be cut."""
        await _stop([task for tasks in self._tasks.values() for task in tasks])
        for link in self._links.values():
            await link.close()

    def _keep_going(self, link: Link) -> None:
        self._tasks[link.id] = [
            self._runtime.task(link.maintain(), f"link {link.id}: session and leases"),
            self._runtime.task(link.fill(), f"link {link.id}: refill"),
        ]

    def _notify(self, link: Link) -> None:
        for callback in self._callbacks:
            callback(link)

    def _register(self, operation: Operation[Any, Any]) -> None:
        if operation.name in self._served:
            return
        self._served.add(operation.name)

        async def handle(peer: Peer, sealed: Sealed) -> Sealed | None:
            return await self._link(peer).receive(operation, sealed)

        self._routes.add_sealed(operation, handle)

    def _link(self, peer: Peer) -> Link:
        link = self._links.get(peer.name)
        if link is None:
            raise ServiceError(ErrorCode.FORBIDDEN, "there is no link with this service")
        return link

    async def _on_hello(self, peer: Peer, message: SignedHello) -> SignedHello:
        return await self._link(peer).establishing.on_hello(message)

    async def _on_establish(self, peer: Peer, message: Establish) -> Established:
        return await self._link(peer).establishing.on_establish(message)

    async def _on_wake(self, peer: Peer, message: Wake) -> Accepted:
        return self._link(peer).establishing.on_wake(message)


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CLOSING)
