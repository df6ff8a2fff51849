"""What services see of the transport: somebody to call, and handlers that know who called.

The HTTP/2 implementation is in this folder's other modules; tests may put another behind these types.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.x509 import Certificate

from keyhaul.identity.names import ServiceName
from keyhaul.transport.messages.base import Message
from keyhaul.transport.messages.link import Sealed
from keyhaul.transport.operations import Operation, Reply, Request


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection, as its verified certificate names it."""

    name: ServiceName
    certificate: Certificate


class Calls(Protocol):
    """A way to one peer: over a connection dialled to it, or one that it dialled to us."""

    @property
    def peer(self) -> ServiceName:
        """Who is called."""
        ...

    @property
    def connected(self) -> bool:
        """Whether a connection stands at this moment."""
        ...

    async def call(self, operation: Operation[Request, Reply], request: Request, *, deadline: float) -> Reply:
        """Send a request and return the peer's typed reply.

        A sealed operation is called through the link (`keyhaul.link`), which uses `exchange` below.

        Args:
            operation: what to call; the peer's role must permit it.
            request: the message; the channel fills in its `id`.
            deadline: seconds from now after which `ServiceError` (deadline) is raised. It travels with
                the request, so that the peer gives up no later.

        Raises:
            ServiceError: the peer refused (its code), cannot be reached (unreachable) or is late (deadline).
        """
        ...

    async def exchange(
        self, path: str, request: Message, reply: type[Reply] | None, *, deadline: float
    ) -> Reply | None:
        """Post a message to a path; with `reply` None the answer's body must be empty.

        Raises:
            ServiceError: as `call`.
        """
        ...

    def expecting(self) -> AbstractContextManager[None]:
        """While this is entered the peer owes a message that completes what it took on before.

        A peer that then falls silent is found as fast as if a call were waiting. Any number may be entered.
        """
        ...

    async def lost(self) -> None:
        """Return when the connection that stands is gone, at once where none stands.

        With it goes the certainty that the peer still knows what it took on: its process may have ended.
        """
        ...

    async def peer_certificate(self) -> Certificate | None:
        """The certificate of the standing connection's peer, None where none stands."""
        ...


Handler = Callable[[Peer, Request], Awaitable[Reply]]
"""Serves one operation: gets the verified caller and the typed request, returns the reply or raises ServiceError."""


SealedWireHandler = Callable[[Peer, Sealed], Awaitable[Sealed | None]]
"""Serves a sealed operation on the wire: the link opens it, and seals the reply (None when one-way)."""


@dataclass(frozen=True, slots=True)
class Route:
    """What a listener needs to serve one path."""

    operation: Operation[Message, Message]
    request: type[Message]
    """The type of the HTTP body: the operation's request, or `Sealed`."""
    handler: Callable[[Peer, Message], Awaitable[Message | None]]


class Routes:
    """Handlers by path, given to a listener or to a connection that serves in reverse."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}

    def add(self, operation: Operation[Request, Reply], handler: Handler[Request, Reply]) -> None:
        """Serve an operation that travels as it is.

        Raises:
            ValueError: the operation is sealed, or served already.
        """
        if operation.sealed:
            raise ValueError(f"{operation.name} is sealed: a link serves it")
        self._add(operation, operation.request, handler)

    def add_sealed(self, operation: Operation[Request, Reply], handler: SealedWireHandler) -> None:
        """Serve a sealed operation; the handler is a link's."""
        if not operation.sealed:
            raise ValueError(f"{operation.name} is not sealed")
        self._add(operation, Sealed, handler)

    def find(self, path: str) -> Route | None:
        """The route for a path, None where nothing is served."""
        return self._routes.get(path)

    def _add(self, operation: Any, request: type[Message], handler: Any) -> None:
        if operation.path in self._routes:
            raise ValueError(f"{operation.name} is served already")
        self._routes[operation.path] = Route(operation, request, handler)
