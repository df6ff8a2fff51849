"""The conversation with one node: what it has, what is on its way to it, and what waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from controller.steering.effects import InForce, Say
from controller.steering.routes import LIFETIME
from keyhaul.agents.statements import MAXIMUM_WITHDRAWN, Withdrawal

MOST = 128
"""Statements in one Set, but for one bundle that has more."""

FIRST_PAUSE = 0.25
"""Seconds before a node that did not answer is tried again."""


class Phase(StrEnum):
    """How far the controller has come with a node."""

    AWAY = "away"
    DOUBTED = "doubted"
    ANNOUNCED = "announced"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Statements for one node that take effect together or not at all."""

    says: tuple[Say, ...]
    laying: int
    """What they are part of."""
    part: int = -1
    """Which step of that; -1: what puts it in force."""
    replaced: tuple[int, ...] = ()
    """Serials that are no longer in force once they are."""
    alone: bool = False
    """Whether it shared a Set that was refused: then it goes by itself."""


@dataclass(slots=True)
class Held:
    """A statement that a node has, or may have."""

    serial: int
    say: Say
    laying: int
    ends: float
    """When its lifetime is over at the earliest."""
    unsure: bool = False
    """Whether it is not known that it arrived."""
    ending: float | None = None
    """It is to be withdrawn; and how long what is on its way may still use it, seconds."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A bundle is in force."""

    node: str
    bundle: Bundle
    serials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """How what a node has differs from what was believed."""

    node: str
    lost: tuple[Held, ...]
    """What it does not have."""
    settled: tuple[Held, ...]
    """What it has, though that was not sure."""


@dataclass(slots=True)
class Sent:
    """What was said last, and is not answered yet."""

    bundles: tuple[Bundle, ...] = ()
    withdrawn: dict[int, float] = field(default_factory=dict)
    """Serials and how long they drain."""
    withdrawals: int = 0
    """How many statements withdraw them; they come first."""
    announces: bool = False


@dataclass(slots=True)
class Conversation:
    """The conversation with one node."""

    node: str
    phase: Phase = Phase.AWAY
    incarnation: str = ""
    held: dict[int, Held] = field(default_factory=dict)
    queue: deque[Bundle] = field(default_factory=deque)
    ending: dict[int, float] = field(default_factory=dict)
    """Serials that are to be withdrawn, and how long they drain."""
    sent: Sent | None = None
    busy: int | None = None
    """The sending or reading that is under way."""
    stale: bool = False
    """Whether the process has become another one since that left."""
    retry_at: float = 0.0
    pause: float = FIRST_PAUSE
    unready: bool = False
    """Whether that was told."""

    @property
    def withdraws(self) -> bool:
        """Whether the node has what it is to have no more."""
        return bool(self.ending) or bool(self.sent and self.sent.withdrawn)


def compared(talk: Conversation, in_force: Iterable[InForce], now: float) -> tuple[list[Held], list[Held], list[int]]:
    """Believe what was read from a node.

    Returns:
        What it does not have; what it has, though that was not sure; and serials of what nobody knows of.
    """
    there = {one.serial: one for one in in_force}
    lost = [talk.held.pop(serial) for serial in list(talk.held) if serial not in there]
    settled = []
    for held in talk.held.values():
        held.ends = now + there[held.serial].remaining_s
        if held.unsure:
            held.unsure = False
            settled.append(held)
    talk.ending = {held.serial: held.ending for held in talk.held.values() if held.ending is not None}
    return lost, settled, [serial for serial in there if serial not in talk.held]


def packed(talk: Conversation) -> tuple[Sent, tuple[Say, ...]]:
    """What goes to a node in one Set."""
    bundles: list[Bundle] = []
    if not (talk.queue and talk.queue[0].alone):
        withdrawn, talk.ending = talk.ending, {}
    else:
        withdrawn = {}
    says = list(_withdrawals(withdrawn))
    sent = Sent(withdrawn=withdrawn, withdrawals=len(says))
    while talk.queue and (not bundles or not (talk.queue[0].alone or bundles[0].alone)):
        if says and len(says) + len(talk.queue[0].says) > MOST:
            break
        bundles.append(talk.queue.popleft())
        says += bundles[-1].says
    sent.bundles = tuple(bundles)
    return sent, tuple(says)


def _withdrawals(ending: dict[int, float]) -> Iterator[Say]:
    for drain in sorted(set(ending.values())):
        serials = [serial for serial, own in ending.items() if own == drain]
        for start in range(0, len(serials), MAXIMUM_WITHDRAWN):
            part = tuple(serials[start : start + MAXIMUM_WITHDRAWN])
            yield Say(Withdrawal(serials=part, drain_s=drain), LIFETIME)
