"""Typed calls over whatever connection stands: numbered, encoded, bounded, their refusals turned into errors."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cryptography.x509 import Certificate

from keyhaul.identity.names import ServiceName
from keyhaul.randomness import random_bytes
from keyhaul.transport import codec
from keyhaul.transport.caller import Answer, Caller, Unprocessed
from keyhaul.transport.limits import Limits
from keyhaul.transport.messages.base import ErrorCode, ErrorReply, Message, ServiceError
from keyhaul.transport.operations import Operation, Reply, Request, permitted

_PREFIX = random_bytes(6).hex()
_numbers = itertools.count(1)

_ATTEMPTS = 4
"""How often a request goes out again that a leaving peer did not look at."""


class TypedCalls:
    """`interface.Calls` over a connection that a subclass provides."""

    def __init__(self, own: ServiceName, peer: ServiceName, *, limits: Limits, pending: int) -> None:
        """Bind the two names.

        Args:
            own: who calls.
            peer: who is called.
            limits: of the connections.
            pending: calls that may wait at once; further ones are refused as busy.
        """
        self._own = own
        self._peer = peer
        self._limits = limits
        self._most = pending
        self._pending = 0
        self._expecting = 0

    @property
    def peer(self) -> ServiceName:
        """Who is called."""
        return self._peer

    @property
    def connected(self) -> bool:
        """Whether a connection stands at this moment."""
        return self._standing() is not None

    async def call(self, operation: Operation[Request, Reply], request: Request, *, deadline: float) -> Reply:
        """Send a request and return the peer's typed reply: see `interface.Calls.call`.

        Raises:
            ServiceError: the peer refused, cannot be reached or is late.
            ValueError: the operation is sealed (a link calls it) or not one between these roles.
        """
        if operation.sealed:
            raise ValueError(f"{operation.name} is sealed: call it through the link")
        if not permitted(operation, self._own.role, self._peer.role):
            raise ValueError(f"{self._own.role} may not call {operation.name} on {self._peer.role}")
        reply = await self.exchange(operation.path, request, operation.reply, deadline=deadline)
        assert reply is not None
        return reply

    async def exchange(
        self, path: str, request: Message, reply: type[Reply] | None, *, deadline: float
    ) -> Reply | None:
        """Post a message to a path: see `interface.Calls.exchange`.

        Raises:
            ServiceError: as `call`.
        """
        if self._pending >= self._most:
            raise ServiceError(ErrorCode.BUSY, f"{self._most} calls to {self._peer} are waiting already")
        end = asyncio.get_running_loop().time() + deadline
        if deadline <= 0:
            raise ServiceError(ErrorCode.DEADLINE, "no time is left")
        request.id = f"{_PREFIX}-{next(_numbers)}"
        body = codec.encode(request)
        if len(body) > self._limits.body:
            raise ServiceError(ErrorCode.MALFORMED, f"a message has at most {self._limits.body} bytes")
        self._pending += 1
        try:
            for _ in range(_ATTEMPTS):
                caller = self._standing() or await self._connection(end)
                try:
                    answer = await caller.exchange(path, body, end)
                except Unprocessed:
                    continue
                return _read(answer, reply)
        finally:
            self._pending -= 1
        raise ServiceError(ErrorCode.UNREACHABLE, f"{self._peer} keeps leaving")

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """The peer owes a message: see `interface.Calls.expecting`."""
        self._expecting += 1
        if self._expecting == 1 and (caller := self._standing()) is not None:
            caller.expect_message()
        try:
            yield
        finally:
            self._expecting -= 1

    async def lost(self) -> None:
        """Return when the connection that stands is gone: see `interface.Calls.lost`."""
        caller = self._standing()
        if caller is not None:
            await caller.gone.wait()

    async def peer_certificate(self) -> Certificate | None:
        """The certificate of the standing connection's peer, None where none stands."""
        caller = self._standing()
        return None if caller is None else caller.peer.certificate

    def message_owed(self) -> bool:
        """Whether anybody expects a message of the peer."""
        return self._expecting > 0

    def _standing(self) -> Caller | None:
        raise NotImplementedError

    async def _connection(self, end: float) -> Caller:
        """Return a connection, waiting for one no longer than sensible.

        Raises:
            ServiceError: unreachable.
        """
        raise NotImplementedError


def _read(answer: Answer, reply: type[Reply] | None) -> Reply | None:
    status, body = answer
    if status == 200 and reply is not None:
        return codec.decode(body, reply)
    if status == 204 and reply is None and not body:
        return None
    if 200 <= status < 300:
        raise ServiceError(ErrorCode.MALFORMED, f"the peer's answer (HTTP {status}) is not of this operation")
    try:
        refusal: Any = codec.decode(body, ErrorReply)
    except ServiceError:
        raise ServiceError(ErrorCode.INTERNAL, f"the peer answered HTTP {status}") from None
    raise ServiceError(refusal.code, refusal.message, retry_after_ms=refusal.retry_after_ms)
