"""The operations that read: status, nodes, links and their past, demands, reservations, what disagrees, events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from itertools import islice
from typing import TypeVar

from controller.northbound import facts
from controller.northbound.interface import Controller
from controller.state.events import Event, Forgotten
from controller.state.rollup import DAY, HOUR, MINUTE
from controller.topology import Discovery
from keyhaul.database.errors import DatabaseUnavailable
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.messages import network as messages
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.measured import AskHistory, History
from keyhaul.transport.operations import (
    NETWORK_DEMANDS,
    NETWORK_DISAGREEMENTS,
    NETWORK_EVENTS,
    NETWORK_HISTORY,
    NETWORK_LINKS,
    NETWORK_NODES,
    NETWORK_RESERVATIONS,
    NETWORK_STATUS,
)

Item = TypeVar("Item")

POLL = 1.0
"""Seconds after which events are looked for that another controller may have told."""

PATIENCE = 1.0
"""Seconds for the database, where there is something to say without it."""

LEVELS = {"minute": MINUTE, "hour": HOUR, "day": DAY}

WAITING = 64
"""Tools that may wait for events at once."""


def seen(controller: Controller) -> Discovery:
    """The network as it is believed to be.

    Raises:
        ServiceError: nothing was looked at yet.
    """
    found = controller.discovery()
    if found is None:
        raise ServiceError(ErrorCode.BUSY, "the controller has not looked at the network yet", retry_after_ms=1_000)
    return found


def promised(controller: Controller) -> Discovery:
    """The network as it is believed to be, at the one controller that knows what is promised of it.

    Raises:
        ServiceError: that is another one, or nothing was looked at yet.
    """
    if not controller.leader().leads:
        raise elsewhere(controller)
    return seen(controller)


def elsewhere(controller: Controller) -> ServiceError:
    """What is asked is another controller's to say, or do."""
    leader = controller.leader().address or "nobody, at this moment"
    return ServiceError(ErrorCode.CONFLICT, f"this controller does not lead; {leader} does")


class Reading:
    """Serves what is there."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._waiting = 0
        self._closing = asyncio.Event()

    def serve(self, routes: Routes) -> None:
        """Add the operations to what a listener serves."""
        routes.add(NETWORK_STATUS, self._status)
        routes.add(NETWORK_NODES, self._nodes)
        routes.add(NETWORK_LINKS, self._links)
        routes.add(NETWORK_DISAGREEMENTS, self._disagreements)
        routes.add(NETWORK_DEMANDS, self._demands)
        routes.add(NETWORK_RESERVATIONS, self._reservations)
        routes.add(NETWORK_EVENTS, self._events)
        routes.add(NETWORK_HISTORY, self._history)

    def close(self) -> None:
        """Answer those who wait for events now."""
        self._closing.set()

    async def _status(self, peer: Peer, request: messages.Ask) -> messages.Status:
        controller = self._controller
        leader, found = controller.leader(), controller.discovery()
        demands = controller.demands()
        reply = messages.Status(
            leads=leader.leads,
            epoch=leader.epoch,
            led_s=round(leader.since_s, 1),
            leader=leader.address,
            alone=leader.alone,
            plan=controller.plan_version(),
            quarantined=dict(controller.quarantined()),
            demands=len(demands),
            unserved=sum(not one.is_served for one in demands),
        )
        if found is not None:
            reply.version = found.view.version
            reply.nodes = len(found.planned.nodes)
            reply.silent = sorted(facts.silent_nodes(found))
            reply.links = len(found.view.links)
            reply.links_up = sum(link.up for link in found.view.links)
            reply.disagreements = len(found.disagreements)
        try:
            async with asyncio.timeout(PATIENCE):
                reply.position = await controller.position()
        except (DatabaseUnavailable, TimeoutError):
            reply.database = False
        return reply

    async def _nodes(self, peer: Peer, request: messages.Page) -> messages.Nodes:
        found = seen(self._controller)
        total = len(found.planned.nodes)
        return messages.Nodes(
            version=found.view.version,
            total=total,
            next=_next(request, total),
            nodes=_part(facts.nodes(found), request),
        )

    async def _links(self, peer: Peer, request: messages.Page) -> messages.Links:
        found = seen(self._controller)
        promised = self._controller.reservations()
        links = found.view.links
        chosen = links[request.start : request.start + request.most]
        return messages.Links(
            version=found.view.version,
            total=len(links),
            next=_next(request, len(links)),
            links=[facts.link(link, found.links[link.id], promised) for link in chosen],
        )

    async def _disagreements(self, peer: Peer, request: messages.Page) -> messages.Disagreements:
        found = seen(self._controller)
        everything = found.disagreements
        return messages.Disagreements(
            version=found.view.version,
            total=len(everything),
            next=_next(request, len(everything)),
            disagreements=[facts.disagreement(one) for one in _part(everything, request)],
        )

    async def _demands(self, peer: Peer, request: messages.Page) -> messages.Demands:
        found = promised(self._controller)
        demands = self._controller.demands()
        return messages.Demands(
            version=found.view.version,
            total=len(demands),
            next=_next(request, len(demands)),
            demands=[facts.demand(one, found.view) for one in _part(demands, request)],
        )

    async def _reservations(self, peer: Peer, request: messages.Page) -> messages.Reservations:
        found = promised(self._controller)
        everything = list(facts.reservations(found.view, self._controller.reservations()))
        return messages.Reservations(
            version=found.view.version,
            total=len(everything),
            next=_next(request, len(everything)),
            reservations=_part(everything, request),
        )

    async def _events(self, peer: Peer, request: messages.AskEvents) -> messages.Events:
        if request.wait_ms and self._waiting >= WAITING:
            raise ServiceError(ErrorCode.BUSY, f"{WAITING} tools wait for events already", retry_after_ms=1_000)
        self._waiting += 1
        try:
            found = await self._first(request)
        except Forgotten as error:
            raise ServiceError(ErrorCode.CONFLICT, f"{error}: begin with a snapshot") from None
        finally:
            self._waiting -= 1
        return messages.Events(events=[facts.event(one) for one in found])

    async def _history(self, peer: Peer, request: AskHistory) -> History:
        found = seen(self._controller)
        if request.link not in found.view.topology.link_number:
            raise ServiceError(ErrorCode.NOT_FOUND, f"there is no link {request.link}")
        link, level = found.view.link(request.link), LEVELS[request.by]
        measured = await of_database(self._controller.measured(link, level, request.periods))
        return History(periods=[facts.period(key, summary) for key, summary in measured.items()])

    async def _first(self, request: messages.AskEvents) -> list[Event]:
        loop = asyncio.get_running_loop()
        end = loop.time() + request.wait_ms / 1_000
        while True:
            waits = {loop.create_task(self._controller.event_told()), loop.create_task(self._closing.wait())}
            try:
                found = await of_database(self._controller.events(request.after, request.most))
                if found or self._closing.is_set() or (left := end - loop.time()) <= 0:
                    return list(found)
                await asyncio.wait(waits, timeout=min(left, POLL), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()


async def of_database(answer: Awaitable[Item]) -> Item:
    """Wait for what is in the controller's database.

    Raises:
        ServiceError: it does not answer.
    """
    try:
        return await answer
    except DatabaseUnavailable:
        raise ServiceError(ErrorCode.UNREACHABLE, "the controller's database does not answer") from None


def _part(items: Iterable[Item], request: messages.Page) -> list[Item]:
    return list(islice(items, request.start, request.start + request.most))


def _next(request: messages.Page, total: int) -> int | None:
    after = request.start + request.most
    return after if after < total else None
