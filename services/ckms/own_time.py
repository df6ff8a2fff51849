"""The time by which lifetimes are counted here: seconds that this node has lived through, kept across restarts.

Sans-IO: readings of the machine's clocks are arguments. No other node's clock is ever looked at, and of this node's
clocks the one that can be set counts only for the time in which the machine was off:

- while the service runs, and over its restarts within one boot of the machine, the clock since boot counts: exact;
- over a reboot the wall clock counts, but no less than the time since boot and `CHECKPOINT` seconds, which is as much
  as may have passed unrecorded before it.

So a lifetime ends at most `CHECKPOINT` seconds too early for each reboot, or earlier where the wall clock was set
forward meanwhile. It never grows while the node is in use; where the wall clock was set back over a reboot, it lacks
no more than the time in which the machine was off, when nothing was forwarded.
"""

from __future__ import annotations

from dataclasses import dataclass

CHECKPOINT = 30.0
"""Seconds between checkpoints."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The clocks of this machine at one moment."""

    boot: str
    """Random, new with every boot of the machine."""
    since_boot: float
    """Seconds, never set; counts on while the machine sleeps."""
    wall: float
    """Seconds of the epoch, as this machine believes."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The own time at a reading: what is kept."""

    time: float
    reading: Reading


class OwnTime:
    """Continues from what was kept.

    Args:
        kept: the last checkpoint, None where there never was one.
        at: the clocks now.
    """

    def __init__(self, kept: Checkpoint | None, at: Reading) -> None:
        self._began = at.since_boot
        self._before = 0.0 if kept is None else kept.time + _gap(kept.reading, at)

    def at(self, since_boot: float) -> float:
        """The own time in seconds when the machine's clock since boot shows this."""
        return self._before + max(0.0, since_boot - self._began)

    def checkpoint(self, at: Reading) -> Checkpoint:
        """What to keep."""
        return Checkpoint(self.at(at.since_boot), at)


def _gap(kept: Reading, at: Reading) -> float:
    """Seconds between two readings that another process may have taken."""
    if at.boot == kept.boot:
        return max(0.0, at.since_boot - kept.since_boot)
    return max(at.wall - kept.wall, at.since_boot + CHECKPOINT)
