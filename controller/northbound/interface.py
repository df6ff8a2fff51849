"""What the northbound operations need of the controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from controller.admission.admit import Demand
from controller.admission.refusal import Refusal
from controller.admission.reservations import Reservations
from controller.paths.compute import Path
from controller.state.events import Event
from controller.state.rollup import Key, Summary
from controller.topology import Discovery
from controller.view import Link


class PathState(StrEnum):
    """How far a path is."""

    INSTALLING = "installing"
    """Not every CKMS on it has confirmed its entry."""
    INSTALLED = "installed"
    """Each has, and the sending CKMS knows the path."""
    DRAINING = "draining"
    """Another took its place; what is on its way may still use it."""


@dataclass(frozen=True, slots=True)
class PathAsKept:
    """A path that was told to CKMSs."""

    path: Path
    rank: int
    """0 is the first, then its backup; of class `split`, the number of the share."""
    state: PathState


@dataclass(frozen=True, slots=True)
class DemandAsKept:
    """A demand with what became of it."""

    demand: Demand
    paths: tuple[PathAsKept, ...]
    """By rank; those that drain last. Empty where there are none, whatever the reason."""
    since_s: float
    """Seconds since it took these paths."""
    refusal: Refusal | None = None
    """Why it has no paths, or not those that its class demands."""

    @property
    def is_served(self) -> bool:
        """Whether paths carry it."""
        return any(one.state is PathState.INSTALLED for one in self.paths)


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads."""

    leads: bool
    """Whether that is this controller."""
    epoch: int | None = None
    """In which this controller leads."""
    address: str = ""
    """Where the leader serves, as far as this one knows."""
    alone: bool = True
    """Whether there can be no other controller."""
    since_s: float = 0.0
    """For how long this controller has led."""


class Controller(Protocol):
    """The controller, as the operator's tools see it. What it gives is not changed by it afterwards."""

    def leader(self) -> Leader:
        """Who leads."""
        ...

    def plan_version(self) -> int:
        """The number of the planned network that is in force; 0: there is none yet."""
        ...

    def discovery(self) -> Discovery | None:
        """The network as it is believed to be now, with the plan that it was compared with; None before the first."""
        ...

    def reservations(self) -> Reservations:
        """What is promised; nobody changes what is returned while the caller does not wait."""
        ...

    def demands(self) -> Sequence[DemandAsKept]:
        """All demands, the oldest first."""
        ...

    def quarantined(self) -> Mapping[str, str]:
        """Nodes in quarantine, and why."""
        ...

    async def position(self) -> int:
        """The number of the last event."""
        ...

    async def events(self, after: int, most: int) -> Sequence[Event]:
        """The next events after a number, without waiting for any.

        Raises:
            controller.state.events.Forgotten: some of them are not kept any more.
            DatabaseUnavailable: the database does not answer.
        """
        ...

    async def event_told(self) -> None:
        """Return when this controller tells an event; those of others are found by asking again."""
        ...

    async def measured(self, link: Link, level: int, count: int) -> Mapping[Key, Summary]:
        """How a link was in the last so many minutes, hours or days (`level`, seconds), the oldest first.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        ...

    async def quarantine(self, node: str, reason: str) -> int:
        """Keep a planned node out of all paths until it is released; paths over it move.

        Returns:
            Of how many demands keys crossed it while they may live: they are exposed, and burned.

        Raises:
            controller.state.leading.NotLeading: another controller leads.
            DatabaseUnavailable: nothing was changed, or nobody knows whether.
        """
        ...

    async def release(self, node: str) -> bool:
        """End a node's quarantine; False: there was none.

        Raises:
            controller.state.leading.NotLeading: another controller leads.
            DatabaseUnavailable: nothing was changed, or nobody knows whether.
        """
        ...
