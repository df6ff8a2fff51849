"""How much one target lets its peers take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Times are in seconds, sizes in bytes."""

    streams: int = 8
    """Subscribe RPCs that one peer may have at a time."""
    calls: int = 256
    """RPCs of all peers at a time."""
    message: int = 4 << 20
    """The greatest message that is accepted."""
    metadata: int = 16 << 10
    first: float = 10.0
    """In which a Subscribe RPC must say what it wants."""
    write: float = 30.0
    """In which a subscriber must take what it is told."""
    handshake: float = 5.0
    look: float = 0.25
    """Between two looks for changes, while somebody wants to be told of them."""
    fresh: float = 0.05
    """Data that was looked at so recently is not looked at again."""
    revalidate: float = 5.0
    """Between two looks at the certificates of standing subscribers."""


LIMITS = Limits()
