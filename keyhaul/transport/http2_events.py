"""What an HTTP/2 connection tells its driver."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RequestArrived:
    """A whole request; whoever has read the body may let go of it."""

    stream: int
    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    """Lower-case names; of a repeated one the last value."""
    body: bytes


@dataclass(frozen=True, slots=True)
class RequestTooLarge:
    """A request whose body exceeds the limit; what follows of it is dropped. It wants an answer."""

    stream: int


@dataclass(frozen=True, slots=True)
class AnswerArrived:
    """A whole answer."""

    stream: int
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """One exchange is over without an answer."""

    stream: int
    unprocessed: bool
    """Whether the peer certainly did nothing about it (RFC 9113 section 8.7), so that it may be sent again."""
    code: int


@dataclass(frozen=True, slots=True)
class PeerReady:
    """The peer's SETTINGS came: it speaks HTTP/2 and has accepted us."""


@dataclass(frozen=True, slots=True)
class PingAnswered:
    """The peer answered a PING."""


@dataclass(frozen=True, slots=True)
class PeerLeaves:
    """The peer takes no further requests (GOAWAY); what it has taken goes on."""

    code: int


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The connection is unusable; what is still to be sent says so to the peer."""

    reason: str
    """Of a closed list: `protocol`, `settings`, `pings`, `resets`, `fragments`, `controls`, `headers`, `frame-size`."""


Event = (
    RequestArrived
    | RequestTooLarge
    | AnswerArrived
    | StreamFailed
    | PeerReady
    | PingAnswered
    | PeerLeaves
    | ConnectionFailed
)
