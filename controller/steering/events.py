"""What happens to demands and nodes, as the operator is told."""

from __future__ import annotations

from enum import StrEnum


class Event(StrEnum):
    """The closed list of kinds of a `Note`."""

    ADOPTED = "demand-adopted"
    """What an earlier leader installed was found in force and goes on."""
    INSTALLED = "paths-installed"
    """A demand has its first paths."""
    RENEWED = "paths-renewed"
    """A demand stays on its paths, under new labels."""
    PROLONGED = "paths-prolonged"
    """A demand stays on its paths as they are, because not all nodes on them can be reached."""
    PROTECTED = "paths-protected"
    """A demand stays on its paths, which have detours now."""
    MOVED = "paths-moved"
    """A demand has other paths."""
    NOT_INSTALLED = "paths-not-installed"
    """Paths could not be installed; what was installed of them is taken back."""
    REFUSED = "demand-refused"
    """There are no paths for a demand."""
    DEGRADED = "demand-degraded"
    """A demand has no longer all that its class demands, such as a backup, and keeps what there is."""
    RESTORED = "demand-restored"
    """It has that again, on the paths that it has."""
    NOT_RAISED = "rate-not-raised"
    """A demand asked for more than there is to promise; it gets a part of that, or keeps the rate that it has."""
    DROPPED = "paths-dropped"
    """A demand lost its paths: what they reserve is no longer there, nodes lost their statements, or their time is over
    and nobody renewed them."""
    ENDED = "demand-ended"
    """Nobody asks for it any more, or a node at one of its ends is gone."""
    LOST = "statements-lost"
    """A node does not have what it had accepted."""
    UNKNOWN = "statements-unknown"
    """A node has what no record tells of; it is withdrawn."""
    UNREADY = "node-unready"
    """A node refuses, or does not answer."""
    READY = "node-ready"
    """What a node has is known, and it takes statements."""
    DEPOSED = "newer-leader"
    """A node has heard of a newer leader."""
