"""One Subscribe RPC on grpc.aio: brings messages, time and the tree's changes to a `session.Session`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi import paths, subscribing, values
from keyhaul.agents.gnmi.changes import Changes
from keyhaul.agents.gnmi.errors import Code, Refused, malformed, unimplemented
from keyhaul.agents.gnmi.limits import Limits
from keyhaul.agents.gnmi.session import Message, Session
from keyhaul.agents.gnmi.subscribing import Mode, Subscriptions
from keyhaul.agents.gnmi.tree import Tree


class Subscriber:
    """Serves one subscription until it ends."""

    def __init__(
        self,
        tree: Tree,
        context: Any,
        *,
        limits: Limits,
        clock: Callable[[], float],
        wall: Callable[[], int],
        fresh: Callable[[], Any],
        still_admitted: Callable[[], Any],
    ) -> None:
        """Bind to the RPC.

        Args:
            tree: what is served.
            context: grpc.aio's.
            limits: how long the client may take.
            clock: seconds, never going back.
            wall: nanoseconds since 1970.
            fresh: returns the tree as it is now.
            still_admitted: raises `Refused` once the client may not go on.
        """
        self._tree = tree
        self._context = context
        self._limits = limits
        self._clock = clock
        self._wall = wall
        self._fresh = fresh
        self._still_admitted = still_admitted
        self._wake = asyncio.Event()
        self._polls = 0
        self._ended = False
        """Whether the client has said all that it will say."""
        self._refusal: Refused | None = None

    async def run(self) -> None:
        """Read what is wanted and tell it.

        Raises:
            Refused: the client asked for what cannot be, or may not go on.
        """
        first = await self._first()
        if first is None:
            return
        subscriptions = subscribing.read(self._tree.schema, first)
        session = Session(self._tree.schema, subscriptions, self._fresh(), self._clock())

        def changed(changes: Changes) -> None:
            session.changed(changes)
            self._wake.set()

        unwatch = self._tree.watch(changed)
        reading = asyncio.create_task(self._read(subscriptions.mode))
        try:
            await self._tell(session, subscriptions)
        finally:
            unwatch()
            reading.cancel()

    async def _first(self) -> Any:
        try:
            async with asyncio.timeout(self._limits.first):
                request = await self._context.read()
        except TimeoutError:
            raise Refused(Code.DEADLINE_EXCEEDED, "nothing was subscribed to in time") from None
        if request is grpc.aio.EOF:
            return None
        if request.HasField("aliases"):
            raise unimplemented("path aliases")
        if not request.HasField("subscribe"):
            raise malformed("the first message of a Subscribe RPC is a SubscriptionList")
        return request.subscribe

    async def _read(self, mode: Mode) -> None:
        while (request := await self._context.read()) is not grpc.aio.EOF:
            if request.HasField("poll") and mode is Mode.POLL:
                self._polls += 1
                self._wake.set()
                continue
            if request.HasField("aliases"):
                self._refusal = unimplemented("path aliases")
            elif request.HasField("subscribe"):
                self._refusal = malformed("this RPC has its SubscriptionList already: use another RPC")
            else:
                self._refusal = malformed(f"nothing but polls may follow, and those only in POLL, not in {mode.name}")
            break
        self._ended = True
        self._wake.set()

    async def _tell(self, session: Session, subscriptions: Subscriptions) -> None:
        revalidate = self._clock() + self._limits.revalidate
        look = self._limits.look if session.wants_changes else None
        while True:
            while (message := session.take(self._tree.snapshot())) is not None:
                await self._write(self._response(message, subscriptions))
                self._check()
            if self._polls:
                self._polls -= 1
                session.poll(self._fresh())
                continue
            # A client that has nothing more to say goes on listening, where there is more to be told.
            if subscriptions.mode is Mode.ONCE or (subscriptions.mode is Mode.POLL and self._ended):
                return
            await self._pause(session.deadline, look, revalidate)
            self._check()
            now = self._clock()
            if now >= revalidate:
                self._still_admitted()
                revalidate = now + self._limits.revalidate
            if look is not None or (session.deadline is not None and session.deadline <= now):
                session.due(now, self._fresh())

    async def _pause(self, deadline: float | None, look: float | None, revalidate: float) -> None:
        until = min(revalidate, deadline) if deadline is not None else revalidate
        seconds = max(0.0, until - self._clock())
        try:
            async with asyncio.timeout(seconds if look is None else min(seconds, look)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def _check(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    async def _write(self, response: Any) -> None:
        try:
            async with asyncio.timeout(self._limits.write):
                await self._context.write(response)
        except TimeoutError:
            raise Refused(Code.ABORTED, "the subscriber takes nothing any more") from None

    def _response(self, message: Message, subscriptions: Subscriptions) -> Any:
        if message == "sync":
            return gnmi_pb2.SubscribeResponse(sync_response=True)
        origin = subscriptions.origin
        notification = gnmi_pb2.Notification(timestamp=self._wall())
        if subscriptions.target:
            notification.prefix.target = subscriptions.target
        for path in message.deletes:
            notification.delete.append(paths.to_proto(path, origin))
        ietf = subscriptions.encoding == values.JSON_IETF
        for told in message.updates:
            encoded = values.encoded(told.path, told.node, told.value, ietf=ietf)
            notification.update.add(
                path=paths.to_proto(told.path, origin),
                val=values.typed(encoded, subscriptions.encoding),
                duplicates=told.duplicates,
            )
        return gnmi_pb2.SubscribeResponse(update=notification)
