"""The driver of session establishment, at both ends."""

from __future__ import annotations

from keyhaul.link.core import Core
from keyhaul.link.handshake import NoCommonSuite, NotAuthentic, Repeated, SessionRefused
from keyhaul.link.session import Acquaintance, Initiator, Responder, is_of, wake
from keyhaul.store.interface import StoreError
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.link import Establish, Established, SignedHello, Wake
from keyhaul.transport.operations import LINK_ESTABLISH, LINK_HELLO, LINK_WAKE

HELLO_DEADLINE = 5.0
"""Seconds that one message of an establishment may take."""

WAKE_INTERVAL = 0.5
"""A session younger than so many seconds is not renewed because of a wake: the two may have crossed."""

_UNSETTLED = frozenset({ErrorCode.UNREACHABLE, ErrorCode.DEADLINE, ErrorCode.INTERNAL})


class Establishing:
    """Makes sessions for one link."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._acquaintance = Acquaintance(core.end)
        self._responder: Responder | None = None
        self._answered: Established | None = None
        """The answer that made the present session, should it have been lost."""

    async def initiate(self) -> None:
        """Establish a session; afterwards the new one stands, or the old one, or none.

        Raises:
            ServiceError: the neighbour cannot be reached or refuses.
            SessionRefused: its messages do not lead to a session.
        """
        core = self._core
        async with core.exchange_lock, core.control_lock:
            core.freeze(10 * HELLO_DEADLINE)
            try:
                attempt = Initiator(core.end, core.proposal(), core.source, known=core.session)
                answer = await core.calls.call(LINK_HELLO, attempt.hello(), deadline=HELLO_DEADLINE)
                established = await self._establish(attempt.reply(answer))
                try:
                    session = attempt.established(established)
                except SessionRefused:
                    self._abandon()
                    raise
                await core.settle(core.switch(session))
            except SessionRefused as error:
                self._refused(error)
                raise
            finally:
                core.thaw()

    async def ask(self) -> None:
        """Ask the initiator for a session.

        Raises:
            ServiceError: it cannot be reached or refuses.
        """
        core = self._core
        await core.calls.call(LINK_WAKE, wake(core.end, core.source), deadline=HELLO_DEADLINE)

    async def on_hello(self, signed: SignedHello) -> SignedHello:
        """Answer a hello; nothing switches yet.

        Raises:
            ServiceError: it is refused, or this end cannot answer it now.
        """
        core = self._core
        core.admit()
        if core.section.initiator:
            raise ServiceError(ErrorCode.NOT_PERMITTED, "this end establishes the link's sessions")
        try:
            hello, suite = self._acquaintance.hello(signed, core.session, core.suites)
            async with core.exchange_lock, core.control_lock:
                if suite not in core.suites:
                    raise NoCommonSuite("the list of suites has changed")
                self._responder = Responder(core.end, core.proposal(), hello, signed, suite)
                core.freeze(core.pace.pending)
                return self._responder.answer()
        except SessionRefused as error:
            core.thaw()
            raise self._refused(error) from error

    async def on_establish(self, message: Establish) -> Established:
        """Switch to the session that was answered for; answer once that is durable.

        Raises:
            ServiceError: the message is refused.
        """
        core = self._core
        core.admit()
        async with core.exchange_lock, core.control_lock:
            if self._answered is not None and core.session is not None and is_of(message, core.session):
                return self._answered
            responder = self._responder
            if responder is None or not core.frozen:
                raise ServiceError(ErrorCode.UNKNOWN_SESSION, "no session is being established")
            try:
                session, established = responder.establish(message)
            except SessionRefused as error:
                raise self._refused(error) from error
            self._responder = None
            core.freeze(HELLO_DEADLINE)
            try:
                await core.settle(core.switch(session))
            except StoreError:
                self._abandon()
                raise
            finally:
                core.thaw()
            self._answered = established
            return established

    def on_wake(self, message: Wake) -> Accepted:
        """Note that the responder wants a session.

        Raises:
            ServiceError: the message is refused.
        """
        core = self._core
        core.admit()
        if not core.section.initiator:
            raise ServiceError(ErrorCode.NOT_PERMITTED, "this end does not establish the link's sessions")
        try:
            self._acquaintance.wake(message)
        except SessionRefused as error:
            raise self._refused(error) from error
        fresh = core.session is not None and core.clock() - core.established_at < WAKE_INTERVAL
        if not core.frozen and not fresh:
            core.renew = True
            core.stir.set()
        return Accepted()

    async def _establish(self, message: Establish) -> Established:
        """Send the third message, twice if need be: the responder repeats its answer."""
        calls = self._core.calls
        try:
            return await calls.call(LINK_ESTABLISH, message, deadline=HELLO_DEADLINE)
        except ServiceError as error:
            if error.code not in _UNSETTLED:
                raise
        try:
            return await calls.call(LINK_ESTABLISH, message, deadline=HELLO_DEADLINE)
        except ServiceError:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """The other end may have switched: the session of before is no longer of use."""
        core = self._core
        core.session = None
        core.outgoing.end()
        core.incoming.end()

    def _refused(self, error: SessionRefused) -> ServiceError:
        reason, code = "session", ErrorCode.CONFLICT
        if isinstance(error, NotAuthentic):
            reason, code = "authentication", ErrorCode.AUTHENTICATION
        elif isinstance(error, Repeated):
            reason, code = "replayed", ErrorCode.REPLAYED
        elif isinstance(error, NoCommonSuite):
            reason = "suite"
        self._core.telemetry.refused(reason, str(error))
        return ServiceError(code, str(error))
