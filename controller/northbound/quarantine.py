"""The operations that change something, for the role operator alone: a node's quarantine, and its end."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import structlog

from controller.northbound.interface import Controller
from controller.northbound.reading import elsewhere, of_database, seen
from controller.state.leading import NotLeading
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.messages import network as messages
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import NETWORK_QUARANTINE, NETWORK_RELEASE

log = structlog.get_logger(__name__)

Result = TypeVar("Result")


class Quarantine:
    """Serves what operators may change."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def serve(self, routes: Routes) -> None:
        """Add the operations to what a listener serves."""
        routes.add(NETWORK_QUARANTINE, self._quarantine)
        routes.add(NETWORK_RELEASE, self._release)

    async def _quarantine(self, peer: Peer, request: messages.Quarantine) -> messages.Quarantined:
        if request.node not in seen(self._controller).view.topology.node_number:
            raise ServiceError(ErrorCode.NOT_FOUND, f"there is no node {request.node}")
        exposed = await self._as_leader(self._controller.quarantine(request.node, request.reason))
        facts = {"reason": request.reason, "operator": peer.name.id, "exposed": exposed}
        log.warning("node is in quarantine", node=request.node, **facts)
        return messages.Quarantined(exposed=exposed)

    async def _release(self, peer: Peer, request: messages.Release) -> messages.Released:
        released = await self._as_leader(self._controller.release(request.node))
        if released:
            log.warning("node is out of quarantine", node=request.node, operator=peer.name.id)
        return messages.Released(was_quarantined=released)

    async def _as_leader(self, act: Awaitable[Result]) -> Result:
        try:
            return await of_database(act)
        except NotLeading:
            raise elsewhere(self._controller) from None
