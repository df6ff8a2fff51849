"""What crosses between the steering core and its driver.

Out of the core come effects, which the driver carries out in their order as far as they concern the same node or
demand. Into it go the outcomes: of each `Tell` exactly one of `confirmed`, `refused` or `unreachable`, of each `Read`
exactly one of `found` or `unread`. At most one of either is under way for a node at a time, so serials that the driver
gives out as it signs reach each node in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.promises import Promise
from keyhaul.agents.statements import EntryStatement, PathStatement, Withdrawal


@dataclass(frozen=True, slots=True)
class Say:
    """One statement, but for its epoch and serial."""

    says: EntryStatement | PathStatement | Withdrawal
    lifetime_s: int
    demand: str = ""
    """Whose path it is part of; empty for a withdrawal, which need not be recorded: what it withdraws is."""
    rank: int = 0
    """Of that path."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Sign these statements with consecutive serials in their order, record those of a demand as about to be sent,
    bring them to the node in one Set, and report the outcome with their serials.
    """

    sending: int
    """Names this effect in its outcome."""
    node: str
    incarnation: str
    """Of the node's process, for which alone the statements are."""
    says: tuple[Say, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """Read which statements are in force at a node, and report them."""

    reading: int
    """Names this effect in its outcome."""
    node: str


@dataclass(frozen=True, slots=True)
class Remember:
    """Record a demand, or what has changed of it."""

    promise: Promise
    crossed: frozenset[tuple[int, str]]
    """Rank and node of all that its keys may cross, ends and detours included."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A demand is over: drop it from the record."""

    demand: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """Record that these statements are in force."""

    serials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop statements from the record: no node has them any more, or will."""

    serials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the operator may want to know: an event."""

    kind: str
    """One of `controller.steering.events`."""
    subject: str
    """Id of the node or demand."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """As JSON."""


Effect = Tell | Read | Remember | Ended | Confirm | Forget | Note


@dataclass(frozen=True, slots=True)
class Recorded:
    """A statement as it was recorded."""

    serial: int
    node: str
    demand: str
    rank: int
    says: EntryStatement | PathStatement


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier leaders recorded."""

    promises: tuple[Promise, ...] = ()
    statements: tuple[Recorded, ...] = ()


@dataclass(frozen=True, slots=True)
class InForce:
    """A statement that a node has, as it was read back."""

    serial: int
    remaining_s: float
    """Of its lifetime; 0 where it is over and lives on, or is not known."""
