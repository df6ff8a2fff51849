"""How much one connection may ask of the other end, and how often."""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 1_048_576


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many at once, and so many more each second."""

    burst: float
    per_second: float


class Bucket:
    """What is left of an allowance; time is given, not read."""

    __slots__ = ("_allowance", "_left", "_since")

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._left = allowance.burst
        self._since: float | None = None

    def take(self, now: float) -> bool:
        """Use one; False when nothing is left."""
        if self._since is not None:
            self._left = min(self._allowance.burst, self._left + (now - self._since) * self._allowance.per_second)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one connection; sizes are bytes."""

    body: int = 16 * MIB
    streams: int = 256
    """Requests under way at once."""
    header_bytes: int = 16_384
    """Names and values of one header block, uncompressed, with 32 for each field (RFC 9113 section 6.5.2)."""
    header_fields: int = 64
    frame: int = 65_536
    """The largest frame that is accepted (SETTINGS_MAX_FRAME_SIZE)."""
    resets: Allowance = Allowance(200, 50)
    """RST_STREAM of the peer, and of ours that its errors caused."""
    pings: Allowance = Allowance(50, 10)
    settings: Allowance = Allowance(20, 2)
    fragments: Allowance = Allowance(2_000, 1_000)
    """DATA frames of fewer than 256 bytes that end no message."""
    controls: Allowance = Allowance(10_000, 5_000)
    """WINDOW_UPDATE, PRIORITY, extension frames, and frames of streams that are gone."""


@dataclass(slots=True)
class Budget:
    """Bytes that all connections of one listener or channel together may hold in unfinished bodies."""

    limit: int = 256 * MIB
    used: int = field(default=0, init=False)

    def take(self, size: int) -> bool:
        """Reserve bytes; False, and nothing reserved, when they are not to be had."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Return what was taken."""
        self.used -= size
