"""What services see of a link: sealed calls to the neighbour, sealed handlers, and the state for operators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from keyhaul.identity.names import ServiceName
from keyhaul.transport.messages.link import Stream
from keyhaul.transport.operations import Operation, Reply, Request

SealedHandler = Callable[[ServiceName, Request, bytes], Awaitable[tuple[Reply | None, bytes]]]
"""Serves a sealed operation: the neighbour's name, the typed request and the secret; returns reply and secret.

One-way operations return (None, b"").
"""


@dataclass(frozen=True, slots=True)
class DirectionStatus:
    """One direction of a link, for operators; sizes in bytes."""

    payload_available: int
    control_available: int
    blocks: int
    used_total: int
    burned_total: int
    added_total: int = 0
    """Confirmed by both ends, since the process started."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """What an operator may see of a link: no key bits, no key IDs."""

    link: str
    neighbour: str
    state: str
    """`down`, `establishing`, `up`, `disabled` (by its operator), `cut` (a simulated fault)."""
    suite: str
    """Of the present session; empty where there is none."""
    suites: tuple[str, ...]
    """Accepted, best first."""
    connected: bool
    sessions_total: int
    rejected_total: int
    outgoing: DirectionStatus
    incoming: DirectionStatus
    floor: str
    """The weakest suite that the configuration lets this end accept."""
    configured: tuple[str, ...]
    """The configuration's suites, best first."""
    chosen: bool
    """Whether `suites` were set at run time, instead of the configured ones."""


class LinkCalls(Protocol):
    """The link as a service uses it."""

    @property
    def id(self) -> str:
        """The link's id in the network description, e.g. ``8-9``."""
        ...

    @property
    def neighbour(self) -> ServiceName:
        """The service at the other end."""
        ...

    @property
    def up(self) -> bool:
        """Whether a session stands and the neighbour is connected."""
        ...

    @property
    def process(self) -> bytes:
        """What names the neighbour's process at random; empty while no session stands, or another one is being made.

        What is sent from then on reaches this process or one that began later.
        """
        ...

    async def call(
        self,
        operation: Operation[Request, Reply],
        request: Request,
        secret: bytes = b"",
        *,
        deadline: float,
        stream: Stream = Stream.CONTROL,
    ) -> tuple[Reply, bytes]:
        """Seal a request, send it, open the sealed reply.

        A lost session is re-established once within the deadline, and the message sealed afresh.

        Args:
            operation: a sealed operation.
            request: its typed message, authenticated but not encrypted by the link (TLS encrypts it).
            secret: key bits, encrypted under the link's keys.
            deadline: seconds from now.
            stream: which pads to use; a secret always uses payload.

        Raises:
            ServiceError: exhausted (not enough pads now), unreachable, deadline, or the peer's refusal.
        """
        ...

    async def send(
        self,
        operation: Operation[Request, Reply],
        request: Request,
        secret: bytes = b"",
        *,
        deadline: float,
        stream: Stream = Stream.CONTROL,
    ) -> None:
        """Seal and send a one-way operation; returns when the neighbour's transport took it.

        Raises:
            ServiceError: as `call`.
        """
        ...

    def expecting(self) -> AbstractContextManager[None]:
        """While this is entered the neighbour owes a message: see `keyhaul.transport.interface.Calls.expecting`."""
        ...

    def serve(self, operation: Operation[Request, Reply], handler: SealedHandler[Request, Reply]) -> None:
        """Serve a sealed operation that the neighbour calls."""
        ...

    def status(self) -> LinkStatus:
        """The state for operators."""
        ...
