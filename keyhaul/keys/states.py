"""The states of a KSA key at one KMS and every legal step between them, in one table.

The words are those of NIST SP 800-57 Part 1 (section 7) where it has them; *held*, *released*, *issued* and
*void* are how a key that two sites must share moves through pre-activation, activation and destruction.
"""

from __future__ import annotations

from enum import StrEnum


class KeyState(StrEnum):
    """Where a key is in its life at one KMS."""

    PREPARED = "prepared"
    """Pre-activation: made or received by an AKMS; no user may get it."""
    HELD = "held"
    """Pre-activation: durable at a slave's UKMS; taken only by a slave who knows its ID."""
    RELEASED = "released"
    """Active: every holder is durable and the usage record is written; the master may get it."""
    ISSUED = "issued"
    """Deactivated here: handed to the user of this KMS, or set aside to be; its bits are gone from this KMS."""
    EXPIRED = "expired"
    """Deactivated: its lifetime ended before anyone took it."""
    VOID = "void"
    """Deactivated: withdrawn on both sides before the master got it."""
    COMPROMISED = "compromised"
    """Somebody may know it: never issued again, kept only as a record."""
    DESTROYED = "destroyed"
    """The bits are gone; the row stays until it is purged."""


class KeyEvent(StrEnum):
    """What can happen to a key at one KMS."""

    HOLD = "hold"
    RELEASE = "release"
    ISSUE = "issue"
    EXPIRE = "expire"
    VOID = "void"
    COMPROMISE = "compromise"
    DESTROY = "destroy"
    TAKE_BACK = "take-back"
    """It was set aside to be issued, and has certainly not been."""


class IllegalTransition(Exception):
    """An event that a key in its present state cannot undergo."""

    def __init__(self, state: KeyState, event: KeyEvent) -> None:
        super().__init__(f"a key that is {state} cannot {event}")
        self.state = state
        self.event = event


TRANSITIONS: dict[tuple[KeyState, KeyEvent], KeyState] = {
    (KeyState.PREPARED, KeyEvent.HOLD): KeyState.HELD,
    (KeyState.PREPARED, KeyEvent.RELEASE): KeyState.RELEASED,
    (KeyState.PREPARED, KeyEvent.VOID): KeyState.VOID,
    (KeyState.PREPARED, KeyEvent.EXPIRE): KeyState.EXPIRED,
    (KeyState.PREPARED, KeyEvent.COMPROMISE): KeyState.COMPROMISED,
    (KeyState.HELD, KeyEvent.ISSUE): KeyState.ISSUED,
    (KeyState.HELD, KeyEvent.VOID): KeyState.VOID,
    (KeyState.HELD, KeyEvent.EXPIRE): KeyState.EXPIRED,
    (KeyState.HELD, KeyEvent.COMPROMISE): KeyState.COMPROMISED,
    (KeyState.RELEASED, KeyEvent.ISSUE): KeyState.ISSUED,
    (KeyState.RELEASED, KeyEvent.VOID): KeyState.VOID,
    (KeyState.RELEASED, KeyEvent.EXPIRE): KeyState.EXPIRED,
    (KeyState.RELEASED, KeyEvent.COMPROMISE): KeyState.COMPROMISED,
    (KeyState.ISSUED, KeyEvent.COMPROMISE): KeyState.COMPROMISED,
    (KeyState.ISSUED, KeyEvent.DESTROY): KeyState.DESTROYED,
    (KeyState.ISSUED, KeyEvent.TAKE_BACK): KeyState.RELEASED,
    (KeyState.EXPIRED, KeyEvent.DESTROY): KeyState.DESTROYED,
    (KeyState.VOID, KeyEvent.DESTROY): KeyState.DESTROYED,
    (KeyState.COMPROMISED, KeyEvent.DESTROY): KeyState.DESTROYED,
}


def after(state: KeyState, event: KeyEvent) -> KeyState:
    """Return the state that follows.

    Raises:
        IllegalTransition: the table has no such step.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None
