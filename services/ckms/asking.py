"""Asks the controllers for paths: the driver of `requesting`.

The controller that answered last is asked first; one that does not lead, or cannot be reached, is passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from keyhaul.keys.grants import SPLIT
from keyhaul.transport.interface import Calls
from keyhaul.transport.messages.base import ServiceError
from keyhaul.transport.messages.path import PathRefusal
from keyhaul.transport.messages.relay import Submit
from keyhaul.transport.operations import PATH_REQUEST
from services.ckms.choice import PathChoice
from services.ckms.forwarding import ForwardingTable, Path
from services.ckms.held import Held
from services.ckms.policing import USUAL, Police
from services.ckms.requesting import UNLIMITED, Ask, Demand, Grant, Lack, PathRequests, lack

LOOK = 0.25
"""Seconds between looks at what is wanting."""

CALL_DEADLINE = 2.0
"""Seconds for one controller to answer."""


class Steered(Protocol):
    """The statements in force, as far as asking goes (`services.ckms.steering.Steering`)."""

    @property
    def held(self) -> Mapping[int, Held]:
        """By serial."""
        ...

    def now(self) -> float:
        """The time by which they are counted."""
        ...

    def heard(self) -> None:
        """A controller that leads was heard."""
        ...


class Asking:
    """Asks for what this node's submissions need; `run` must be running.

    Args:
        requests: what is in demand.
        controllers: calls to each.
        table: what there is.
        choice: which paths are on probation.
        police: what was refused because it would have been more than is granted.
        steering: the statements in force; told when a controller that leads has answered.
        up: whether the link to a neighbour (service id) is up.
        clock: seconds, monotonic.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        requests: PathRequests,
        controllers: Sequence[Calls],
        table: ForwardingTable,
        choice: PathChoice,
        police: Police,
        steering: Steered,
        up: Callable[[str], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._requests = requests
        self._controllers = list(controllers)
        self._table = table
        self._choice = choice
        self._police = police
        self._steering = steering
        self._up = up
        self._clock = clock
        self._pause = pause

    def submitted(self, request: Submit) -> None:
        """This node's AKMS submitted a batch."""
        length = len(request.bits)
        self._requests.used(request.destination, request.service_class, length, self._clock())

    async def run(self) -> None:
        """Ask, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                for ask in self._requests.due(self._lacking, self._granted, self._clock()):
                    group.create_task(self._ask(ask), name="path-request")
                await self._pause(LOOK)

    def _lacking(self, demand: Demand) -> Lack | None:
        return lack(self._paths(demand), self._works, self._remaining)

    def _granted(self, demand: Demand) -> Grant:
        granted = [path for path in self._paths(demand) if path.serial is not None and path.limit != USUAL]
        if not granted:
            return UNLIMITED
        refused = sum(self._police.traffic((path.first.neighbour, path.first.label)).refused for path in granted)
        return Grant(min(path.limit.rate for path in granted), refused)

    def _paths(self, demand: Demand) -> Sequence[Path]:
        if demand.service_class == SPLIT:
            return self._table.shares_to(demand.destination)
        return self._table.paths_to(demand.destination, demand.service_class)

    def _works(self, path: Path) -> bool:
        return self._up(path.first.neighbour) and not self._choice.on_probation(path)

    def _remaining(self, serial: int) -> float:
        held = self._steering.held[serial]
        return held.remaining(self._steering.now()) / held.statement.lifetime_s

    async def _ask(self, ask: Ask) -> None:
        for controller in tuple(self._controllers):
            with suppress(ServiceError):
                reply = await controller.call(PATH_REQUEST, ask.request, deadline=CALL_DEADLINE)
                if reply.refusal is not PathRefusal.NOT_LEADER:
                    self._ask_first(controller)
                    self._steering.heard()
                    self._requests.answered(ask.demand, reply, self._clock())
                    return
        self._requests.unanswered(ask.demand, self._clock())

    def _ask_first(self, leader: Calls) -> None:
        self._controllers.remove(leader)
        self._controllers.insert(0, leader)
