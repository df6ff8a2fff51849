"""When CN bits of a peer and a class were exposed last. Sans-IO: times are those of one monotonic clock."""

from __future__ import annotations

import math


class Exposed:
    """Of one side, maker or consumer."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}

    def note(self, peer: str, service_class: str, now: float) -> None:
        """All bits that there are by now are exposed."""
        self._last[peer, service_class] = now

    def since(self, peer: str, service_class: str, at: float) -> bool:
        """Whether bits that were taken then are exposed."""
        return self._last.get((peer, service_class), -math.inf) >= at
