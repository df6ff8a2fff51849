"""One link as its service uses it: sealed calls, sealed handlers, and the tasks that keep it going."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from keyhaul.identity.names import ServiceName
from keyhaul.link.channel import MalformedMessage, RequestId, UnknownSession, read_header
from keyhaul.link.core import Core
from keyhaul.link.establishing import Establishing
from keyhaul.link.interface import DirectionStatus, LinkStatus, SealedHandler
from keyhaul.link.pads import PadShortage, PadSpent
from keyhaul.link.protection.interface import AuthenticationFailed
from keyhaul.link.receiver import ReceiverDirection
from keyhaul.link.refill import ExchangeFailed, Refill, pause
from keyhaul.link.sealing import Sealing
from keyhaul.link.sender import SenderDirection
from keyhaul.link.session import Session, SessionRefused
from keyhaul.link.window import Replayed
from keyhaul.transport.codec import decode, encode
from keyhaul.transport.messages.base import ErrorCode, ErrorReply, Message, ServiceError
from keyhaul.transport.messages.link import LinkControl, Sealed, SealedHeader, Stream
from keyhaul.transport.operations import LINK_CONTROL, Operation, Reply, Request

ANSWER_PATIENCE = 5.0
"""Seconds that an answer may wait for pad."""

_REFUSALS: tuple[tuple[type[Exception], str, ErrorCode], ...] = (
    (MalformedMessage, "malformed", ErrorCode.MALFORMED),
    (UnknownSession, "unknown-session", ErrorCode.UNKNOWN_SESSION),
    (Replayed, "replayed", ErrorCode.REPLAYED),
    (PadSpent, "pad-spent", ErrorCode.REPLAYED),
    (AuthenticationFailed, "authentication", ErrorCode.AUTHENTICATION),
)
_REFUSED = tuple(kind for kind, _, _ in _REFUSALS)

_FINAL = frozenset(
    {
        ErrorCode.MALFORMED,
        ErrorCode.VERSION,
        ErrorCode.FORBIDDEN,
        ErrorCode.NOT_PERMITTED,
        ErrorCode.NOT_FOUND,
        ErrorCode.CONFLICT,
    }
)
"""Refusals after which a caller does not try again."""


class Link:
    """One link; implements `keyhaul.link.interface.LinkCalls`."""

    def __init__(
        self,
        core: Core,
        sealing: Sealing,
        establishing: Establishing,
        refill: Refill,
        neighbour: ServiceName,
        register: Callable[[Operation[Any, Any]], None],
    ) -> None:
        self._core = core
        self._sealing = sealing
        self.establishing = establishing
        self._refill = refill
        self._neighbour = neighbour
        self._register = register
        """Makes sure that the neighbour's calls of an operation come here."""
        self._handlers: dict[str, SealedHandler[Any, Any]] = {}

    @property
    def id(self) -> str:
        """The link's id in the network description."""
        return self._core.section.id

    @property
    def neighbour(self) -> ServiceName:
        """The service at the other end."""
        return self._neighbour

    @property
    def up(self) -> bool:
        """Whether the link may be used, a session stands and the neighbour is connected."""
        return self._core.up

    async def call(
        self,
        operation: Operation[Request, Reply],
        request: Request,
        secret: bytes = b"",
        *,
        deadline: float,
        stream: Stream = Stream.CONTROL,
    ) -> tuple[Reply, bytes]:
        """See `LinkCalls.call`."""
        if operation.one_way:
            raise ValueError(f"{operation.name} is one-way: send it")
        answer: tuple[Reply, bytes] = await self._post(operation, request, secret, deadline, stream)
        return answer

    async def send(
        self,
        operation: Operation[Request, Reply],
        request: Request,
        secret: bytes = b"",
        *,
        deadline: float,
        stream: Stream = Stream.CONTROL,
    ) -> None:
        """See `LinkCalls.send`."""
        if not operation.one_way:
            raise ValueError(f"{operation.name} has an answer: call it")
        await self._post(operation, request, secret, deadline, stream)

    def expecting(self) -> AbstractContextManager[None]:
        """See `LinkCalls.expecting`."""
        return self._core.calls.expecting()

    def serve(self, operation: Operation[Request, Reply], handler: SealedHandler[Request, Reply]) -> None:
        """See `LinkCalls.serve`."""
        self._register(operation)
        self._handlers[operation.name] = handler

    def status(self) -> LinkStatus:
        """The state for operators."""
        core = self._core
        if not core.in_use:
            state = "cut" if core.settings.enabled else "disabled"
        else:
            state = "establishing" if core.frozen else "down" if core.session is None else "up"
        return LinkStatus(
            link=self.id,
            neighbour=self._neighbour.id,
            state=state,
            suite=core.session.suite if core.session else "",
            suites=core.suites,
            connected=core.calls.connected,
            sessions_total=core.telemetry.sessions,
            rejected_total=core.telemetry.rejected,
            outgoing=_direction(core.outgoing),
            incoming=_direction(core.incoming),
            floor=core.section.floor,
            configured=tuple(core.section.suites),
            chosen=bool(core.settings.suites),
        )

    async def protect(self, suites: Sequence[str]) -> None:
        """Change the list of accepted suites at run time: a new session follows, and no message is lost.

        It lasts through restarts; an empty list takes the link back to its configuration.

        Raises:
            UnknownSuite: a name is unknown, or none is as strong as the configured floor.
            StoreUnavailable: nothing has changed yet.
        """
        await self._core.set(lambda settings: replace(settings, suites=tuple(suites)))

    async def enable(self, enabled: bool) -> None:
        """Use the link or not, as the operator says (ETSI GS QKD 015, qkdl_enable); it lasts through restarts.

        While it is off nothing crosses it in either direction, and the session stands for later.

        Raises:
            StoreUnavailable: nothing has changed yet.
        """
        await self._core.set(lambda settings: replace(settings, enabled=enabled))

    def cut(self, cut: bool) -> None:
        """Let nothing cross the link, as if its fibre were cut, or mend it; lasts until the process ends."""
        self._core.cut = cut
        self._core.stir.set()

    async def receive(self, operation: Operation[Message, Message], sealed: Sealed) -> Sealed | None:
        """Serve one sealed message of the neighbour.

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
        except _REFUSED as error:
            raise self._refused(error) from None
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
            kind, secret = _refusal_of(operation), b""
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
        core.outgoing.sent_answer(flight, core.clock())
        return result

    async def maintain(self) -> None:
        """Keep a session and leased pad, for ever."""
        core = self._core
        failures = 0
        purged = core.clock()
        while True:
            core.stir.clear()
            try:
                wait = await self._step()
                failures = 0
            except (ServiceError, SessionRefused, ExchangeFailed) as error:
                failures += 1
                wait = min(core.pace.retry_last, core.pace.retry_first * 2 ** min(failures - 1, 10))
                wait *= 0.75 + core.source(1)[0] / 512
                wait = max(wait, error.retry_after if isinstance(error, ExchangeFailed) else 0.0)
                await asyncio.sleep(wait)
                continue
            if core.clock() - purged >= core.pace.sated:
                await self._refill.purge()
                purged = core.clock()
            if wait:
                await pause(core.stir, wait)

    async def fill(self) -> None:
        """Keep the outgoing pads filled from the module, for ever."""
        core = self._core
        while True:
            core.hungry.clear()
            look = await self._refill.fetch()
            await asyncio.sleep(look.soonest)
            await pause(core.hungry, look.latest - look.soonest)

    async def close(self) -> None:
        """Wait for what must not be cut."""
        await self._core.close()

    async def _step(self) -> float:
        """Do the next thing the link needs; return seconds until the next look, 0 for at once."""
        core = self._core
        if not core.in_use:
            return core.pace.idle
        if core.frozen:
            return core.pace.retry_first
        if not core.switched.is_set():
            core.thaw()
        if not core.calls.connected:
            return core.pace.disconnected
        if core.session is None or core.renew:
            if core.section.initiator:
                await self.establishing.initiate()
                return 0.0
            await self.establishing.ask()
            return core.pace.fill
        demand = self._sealing.demand()
        if not core.outgoing.can_seal_own(core.clock()):
            core.renew = True
            await asyncio.sleep(core.pace.fill)
            return 0.0
        if core.outgoing.exchange_due(demand):
            await self._refill.exchange()
            return 0.0
        return core.pace.idle

    async def _post(
        self,
        operation: Operation[Request, Reply],
        request: Request,
        secret: bytes,
        deadline: float,
        stream: Stream,
    ) -> Any:
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
                    raise _undecided(error) from None
                core.lose(session)
                if not again:
                    raise ServiceError(ErrorCode.UNREACHABLE, "the neighbour does not know the session") from None
                again = False
                continue
            finally:
                core.outgoing.finished(flight, accepted=accepted)
            if operation.one_way:
                return None
            if answer is None:
                raise ServiceError(ErrorCode.UNREACHABLE, "the neighbour's answer is empty")
            return self._answer(operation, answer, flight.id)

    def _answer(self, operation: Operation[Request, Reply], answer: Sealed, request: RequestId) -> tuple[Reply, bytes]:
        core = self._core
        try:
            refused = read_header(answer, self.id).kind == _refusal_of(operation)
            kind = _refusal_of(operation) if refused else operation.name
            _, secret = core.incoming.open(answer, kind, answers=request)
        except UnknownSession:
            raise ServiceError(ErrorCode.UNREACHABLE, "the answer belongs to a session that is gone") from None
        except _REFUSED as error:
            raise _undecided(self._refused(error)) from None
        if refused:
            refusal = decode(answer.clear, ErrorReply)
            raise ServiceError(refusal.code, refusal.message, retry_after_ms=refusal.retry_after_ms)
        return decode(answer.clear, operation.reply), secret

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
        core.outgoing.sent_answer(flight, core.clock())
        return sealed

    async def _settled_session(self, sealed: Sealed) -> None:
        """A message of the session that is just being entered waits until it is."""
        core = self._core
        if core.switched.is_set():
            return
        try:
            head = read_header(sealed, self.id)
        except MalformedMessage as error:
            raise self._refused(error) from None
        if core.session is not None and head.session == core.session.id:
            return
        try:
            async with asyncio.timeout(core.pace.pending):
                await core.switched.wait()
        except TimeoutError:
            return

    def _refused(self, error: Exception) -> ServiceError:
        for kind, reason, code in _REFUSALS:
            if isinstance(error, kind):
                self._core.telemetry.refused(reason, str(error))
                return ServiceError(code, str(error))
        raise error


def _refusal_of(operation: Operation[Any, Any]) -> str:
    """The kind of a sealed message by which the handler of an operation refuses."""
    return f"{operation.name}.refused"


def _undecided(error: ServiceError) -> ServiceError:
    """What did not come under the link's keys decides nothing: as if the neighbour had not been reached."""
    if error.code not in _FINAL:
        return error
    return ServiceError(ErrorCode.UNREACHABLE, f"refused outside the link's keys: {error.message or error.code.value}")


def _direction(direction: SenderDirection | ReceiverDirection) -> DirectionStatus:
    streams = direction.streams
    return DirectionStatus(
        payload_available=streams[Stream.PAYLOAD].level,
        control_available=streams[Stream.CONTROL].level,
        blocks=sum(len(pads.blocks) for pads in streams.values()),
        used_total=sum(pads.used for pads in streams.values()),
        burned_total=sum(pads.burned for pads in streams.values()),
    )
