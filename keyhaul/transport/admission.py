"""The first moment of a connection: who is the other end, and which role does this one take?"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from keyhaul.identity.errors import IdentityRefused
from keyhaul.identity.verify import verified_name
from keyhaul.transport.interface import Peer
from keyhaul.transport.tls import session_of
from keyhaul.transport.wire import Wire

Admit = Callable[[Peer, str], Wire]
"""Takes the verified peer and the ALPN protocol; returns what serves the connection, or raises NotAdmitted."""


class NotAdmitted(Exception):
    """The peer's certificate is good, but it has no business here."""


class Admission(asyncio.Protocol):
    """Stands on a connection until its TLS handshake is over, then hands over to a `Wire`."""

    def __init__(self, domain: str, admit: Admit) -> None:
        """Prepare for one connection.

        Args:
            domain: the operator's, which the peer must belong to.
            admit: decides, and makes what follows.
        """
        self.wire: Wire | None = None
        self.refusal: Exception | None = None
        self._domain = domain
        self._admit = admit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Verify the peer's name and hand over; called by the event loop after the handshake."""
        transport = cast(asyncio.Transport, transport)
        try:
            session = session_of(transport)
            chain = session.verified_chain()
            peer = Peer(verified_name(chain, self._domain), chain[0])
            self.wire = self._admit(peer, session.selected_alpn_protocol() or "")
            self.wire.chain = chain
        except (ssl.SSLError, IdentityRefused, NotAdmitted) as refusal:
            self.refusal = refusal
            transport.abort()
            return
        transport.set_protocol(self.wire)
        self.wire.connection_made(transport)
