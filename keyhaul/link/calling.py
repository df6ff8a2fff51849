"""Sealed messages to the neighbour, and what comes back for them."""

from __future__ import annotations

import asyncio
from typing import Any

from keyhaul.link.channel import RequestId, UnknownSession, read_header
from keyhaul.link.core import Core
from keyhaul.link.refusals import REFUSED, refusal_of, refused, undecided
from keyhaul.link.sealing import Sealing
from keyhaul.transport.codec import decode, encode
from keyhaul.transport.messages.base import ErrorCode, ErrorReply, ServiceError
from keyhaul.transport.messages.link import Sealed, Stream
from keyhaul.transport.operations import Operation, Reply, Request


class Calling:
    """Messages of this end."""

    def __init__(self, core: Core, sealing: Sealing) -> None:
        self._core = core
        self._sealing = sealing

    async def post(
        self,
        operation: Operation[Request, Reply],
        request: Request,
        secret: bytes,
        deadline: float,
        stream: Stream,
    ) -> Any:
        """Seal and send a message until the neighbour took it; return the opened reply and secret, None for one-way.

        A lost session is re-established once within the deadline, and the message sealed afresh.

        Raises:
            ServiceError: as `LinkCalls.call`.
        """
        core = self._core
        core.admit()
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline
        clear = encode(request)
        stream = Stream.PAYLOAD if secret else stream
        again = True
        while True:
            sealed, flight, session = await self._sealing.seal(operation.name, clear, secret, stream, end - loop.time())
            accepted = False
            try:
                answer = await core.calls.exchange(
                    operation.path, sealed, None if operation.one_way else Sealed, deadline=end - loop.time()
                )
                accepted = True
            except ServiceError as error:
                if error.code is not ErrorCode.UNKNOWN_SESSION:
                    raise undecided(error) from None
                core.lose(session)
                if not again:
                    raise ServiceError(ErrorCode.UNREACHABLE, "the neighbour does not know the session") from None
                again = False
                continue
            finally:
                core.outgoing.flights.finished(flight, accepted=accepted)
            if operation.one_way:
                return None
            if answer is None:
                raise ServiceError(ErrorCode.UNREACHABLE, "the neighbour's answer is empty")
            return self._answer(operation, answer, flight.id)

    def _answer(self, operation: Operation[Request, Reply], answer: Sealed, request: RequestId) -> tuple[Reply, bytes]:
        core = self._core
        try:
            refusing = read_header(answer, core.section.id).kind == refusal_of(operation)
            kind = refusal_of(operation) if refusing else operation.name
            _, secret = core.incoming.open(answer, kind, answers=request)
        except UnknownSession:
            raise ServiceError(ErrorCode.UNREACHABLE, "the answer belongs to a session that is gone") from None
        except REFUSED as error:
            raise undecided(refused(core, error)) from None
        if refusing:
            refusal = decode(answer.clear, ErrorReply)
            raise ServiceError(refusal.code, refusal.message, retry_after_ms=refusal.retry_after_ms)
        return decode(answer.clear, operation.reply), secret
