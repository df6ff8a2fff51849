"""A northbound listener that stands in a thread of its own, so that commands can be run as in a shell."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from controller.northbound.service import Northbound
from keyhaul.identity.names import Role, ServiceName
from keyhaul.transport.interface import Routes
from keyhaul.transport.listener import Listener
from keyhaul.transport.tls import service_server
from tests.controller.northbound.scene import Scene
from tests.keyhaul.transport.pki import Pki, service

Result = TypeVar("Result")


class Standing:
    """A controller that answers, and a directory as `keyhaul network init` makes it."""

    def __init__(self, scene: Scene, pki: Pki, directory: Path, host: str = "127.233.1.16", number: str = "16") -> None:
        self.scene = scene
        self.pki = pki
        self.directory = directory
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        identities = {role: pki.identity(service(role, "lab")) for role in (Role.VIEWER, Role.OPERATOR, Role.SALES)}
        self.listener = self.run(lambda: _listen(scene, service(Role.CONTROLLER, number), pki, host))
        self.identity = {role: identity.certificate.parent for role, identity in identities.items()}
        directory.mkdir(exist_ok=True)
        listing = {
            "services": [
                {"role": "controller", "id": f"controller-{number}", "address": self.listener.address},
                {"role": "ckms", "id": "ckms-9", "address": "127.233.1.9:7443"},
            ],
            "operators": [
                {"role": role.value, "certificate": str(self.identity[role] / "certificate.pem")}
                for role in (Role.VIEWER, Role.OPERATOR)
            ],
        }
        (directory / "network.json").write_text(json.dumps(listing))

    def run(self, work: Callable[[], object]) -> Listener:
        """Do work in the thread of the listener."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(20)  # type: ignore[arg-type]

    def close(self) -> None:
        """Stop; again does nothing."""
        if self._loop.is_closed():
            return
        self.run(self.listener.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _listen(scene: Scene, own: ServiceName, pki: Pki, host: str) -> Listener:
    routes = Routes()
    Northbound(routes, scene, lambda: 0.0)
    listener = Listener(own, f"{host}:0", service_server(pki.identity(own)), routes)
    await listener.start()
    return listener


@contextmanager
def standing(scene: Scene, pki: Pki, directory: Path) -> Iterator[Standing]:
    """Let a controller stand for a while."""
    found = Standing(scene, pki, directory)
    try:
        yield found
    finally:
        found.close()
