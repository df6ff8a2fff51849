"""How often nodes are asked to tell what their links have and these are looked at, and how long nodes may say nothing.

What goes or comes is told at once, whatever the rhythm. Samples of a thousand nodes a second take about a third of a
processor core, so that the nodes of larger networks are asked more seldom. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE = 1.0
"""Seconds between two samples of a node's links, in networks of up to `SAMPLES_A_SECOND` nodes."""

SAMPLES_A_SECOND = 1_000
"""Of all nodes together, at most."""

SILENCE = 5.0
"""Seconds without a word after which a node is given up, and for which what it told holds."""

MISSED = 2.5
"""Where samples are more seldom than `SILENCE` allows for: so many may be missing."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Times of one subscription, seconds."""

    sample: float = SAMPLE
    """Between two samples of all links."""
    silence: float = SILENCE
    """See `SILENCE`."""

    @classmethod
    def of(cls, nodes: int) -> Rhythm:
        """The rhythm for a network of so many nodes."""
        sample = max(SAMPLE, nodes / SAMPLES_A_SECOND)
        return cls(sample, max(SILENCE, MISSED * sample))

    @property
    def stretch(self) -> float:
        """How many times more seldom than in a small network."""
        return self.sample / SAMPLE

    @property
    def heartbeat(self) -> float:
        """After which a node that has no links says that it is there."""
        return self.silence / MISSED
