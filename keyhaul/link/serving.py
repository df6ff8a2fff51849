"""Sealed messages of the neighbour: opened, handed to the service or to the link itself, and answered."""

from __future__ import annotations

import asyncio
from typing import Any

from keyhaul.identity.names import ServiceName
from keyhaul.link.channel import MalformedMessage, RequestId, read_header
from keyhaul.link.core import Core
from keyhaul.link.interface import SealedHandler
from keyhaul.link.pads import PadShortage
from keyhaul.link.refill import Refill
from keyhaul.link.refusals import REFUSED, refusal_of, refused
from keyhaul.link.sealing import Sealing
from keyhaul.link.session import Session
from keyhaul.transport.codec import decode, encode
from keyhaul.transport.messages.base import ErrorCode, ErrorReply, Message, ServiceError
from keyhaul.transport.messages.link import LinkControl, Sealed, SealedHeader, Stream
from keyhaul.transport.operations import LINK_CONTROL, Operation, Reply, Request

ANSWER_PATIENCE = 5.0
"""Seconds that an answer may wait for pad."""


class Serving:
    """Messages of the other end."""

    def __init__(self, core: Core, sealing: Sealing, refill: Refill, neighbour: ServiceName) -> None:
        self._core = core
        self._sealing = sealing
        self._refill = refill
        self._neighbour = neighbour
        self._handlers: dict[str, SealedHandler[Any, Any]] = {}

    def add(self, operation: Operation[Request, Reply], handler: SealedHandler[Request, Reply]) -> None:
        """Have a handler serve an operation."""
        self._handlers[operation.name] = handler

    async def receive(self, operation: Operation[Message, Message], sealed: Sealed) -> Sealed | None:
        """Serve one sealed message.

        Raises:
            ServiceError: it is refused by the link, or by its handler.
        """
        core = self._core
        core.admit()
        own = operation is LINK_CONTROL
        handler = self._handlers.get(operation.name)
        if handler is None and not own:
            raise ServiceError(ErrorCode.NOT_FOUND, "this operation is not served on this link")
        await self._settled_session(sealed)
        session = core.session
        try:
            head, secret = core.incoming.open(sealed, operation.name, own=own)
        except REFUSED as error:
            raise refused(core, error) from None
        assert session is not None
        if own:
            control = decode(sealed.clear, LinkControl)
            reply, bits = await core.settle(self._refill.answer(control))
            return self._own_answer(encode(reply), bits, head, session)
        assert handler is not None
        answer: Message | None
        kind = operation.name
        try:
            answer, secret = await handler(self._neighbour, decode(sealed.clear, operation.request), secret)
        except ServiceError as error:
            code = ErrorCode.INTERNAL if error.code is ErrorCode.UNKNOWN_SESSION else error.code
            if operation.one_way:
                raise ServiceError(code, error.message, retry_after_ms=error.retry_after_ms) from error
            answer = ErrorReply(code=code, message=error.message, retry_after_ms=error.retry_after_ms)
            kind, secret = refusal_of(operation), b""
        if operation.one_way:
            return None
        assert answer is not None
        result, flight, _ = await self._sealing.seal(
            kind,
            encode(answer),
            secret,
            Stream.PAYLOAD if secret else Stream.CONTROL,
            ANSWER_PATIENCE,
            answers=RequestId(head.session, head.sequence),
        )
        core.outgoing.flights.answer(flight, core.clock())
        return result

    def _own_answer(self, clear: bytes, bits: bytes, head: SealedHeader, session: Session) -> Sealed:
        core = self._core
        if core.session is not session:
            raise ServiceError(ErrorCode.UNKNOWN_SESSION, "the session ended meanwhile")
        try:
            sealed, flight = core.outgoing.seal(
                LINK_CONTROL.name,
                clear,
                b"",
                Stream.CONTROL,
                core.clock(),
                own=True,
                associated=bits,
                answers=RequestId(head.session, head.sequence),
            )
        except PadShortage:
            core.renew = True
            core.stir.set()
            raise ServiceError(ErrorCode.EXHAUSTED, "no pad for the answer", retry_after_ms=1000) from None
        core.outgoing.flights.answer(flight, core.clock())
        return sealed

    async def _settled_session(self, sealed: Sealed) -> None:
        """A message of the session that is just being entered waits until it is."""
        core = self._core
        if core.switched.is_set():
            return
        try:
            head = read_header(sealed, core.section.id)
        except MalformedMessage as error:
            raise refused(core, error) from None
        if core.session is not None and head.session == core.session.id:
            return
        try:
            async with asyncio.timeout(core.pace.pending):
                await core.switched.wait()
        except TimeoutError:
            return
