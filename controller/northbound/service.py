"""The northbound operations as a whole."""

from __future__ import annotations

from collections.abc import Callable

from controller.northbound.foresight import Foresight
from controller.northbound.interface import Controller
from controller.northbound.quarantine import Quarantine
from controller.northbound.reading import Reading
from controller.paths.policies import Policy
from keyhaul.transport.interface import Routes


class Northbound:
    """Serves the operator's tools; who may call what is in `keyhaul.transport.operations`."""

    def __init__(
        self,
        routes: Routes,
        controller: Controller,
        clock: Callable[[], float],
        policy: Policy = Policy.RESIDUAL,
    ) -> None:
        """Add the operations to what the controller's listener serves.

        Args:
            routes: the listener's.
            controller: what is asked.
            clock: seconds, that by which reservations expire.
            policy: by which the controller chooses paths.
        """
        self._foresight = Foresight(controller, clock, policy)
        self._foresight.serve(routes)
        self._reading = Reading(controller)
        self._reading.serve(routes)
        Quarantine(controller).serve(routes)

    def close(self) -> None:
        """Let nobody wait any longer; before the listener is closed, so that all are answered."""
        self._reading.close()
        self._foresight.close()
