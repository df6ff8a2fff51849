"""What is counted of the batches at one CKMS."""

from __future__ import annotations

from dataclasses import dataclass, field

from keyhaul.transport.messages.relay import RelayFailure


@dataclass(slots=True)
class RelayCounts:
    """What happened since the start."""

    submitted: int = 0
    forwarded: int = 0
    delivered: int = 0
    bytes: int = 0
    duplicates: int = 0
    """Batches that came a second time and were dropped."""
    detoured: int = 0
    """Batches that were sent around a link that is down."""
    strays: int = 0
    """Acknowledgements for nothing in flight: late, doubled, or not this neighbour's to give."""
    divided: int = 0
    """Batches that were sent in shares."""
    divided_bytes: int = 0
    share_bytes: int = 0
    """Of their shares."""
    failures: dict[RelayFailure, int] = field(default_factory=lambda: dict.fromkeys(RelayFailure, 0))

    def divide(self, length: int, shares: int) -> None:
        """A batch of so many bytes leaves in shares."""
        self.divided += 1
        self.divided_bytes += length
        self.share_bytes += length * shares
