"""A listener of a controller, with certificates, and channels to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from controller.northbound.service import Northbound
from controller.state.database import open_database
from keyhaul.database.database import Database
from keyhaul.identity.names import Role
from keyhaul.transport.channel import Channel
from keyhaul.transport.interface import Routes
from keyhaul.transport.listener import Listener
from tests.controller.northbound.scene import Scene
from tests.keyhaul.transport.house import House
from tests.keyhaul.transport.pki import Pki, service

ADDRESS = "127.233.0.16:0"

Ask = Callable[[Role], Awaitable[Channel]]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database("sqlite:///controller.db", tmp_path)
    yield database
    database.close()


@pytest.fixture
def scene(database: Database) -> Scene:
    return Scene(database)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(Pki.make(tmp_path / "pki"))
    async with house.stack:
        yield house


@pytest.fixture
async def listener(scene: Scene, house: House) -> Listener:
    routes = Routes()
    northbound = Northbound(routes, scene, lambda: 0.0)
    house.stack.callback(northbound.close)
    return await house.listener(service(Role.CONTROLLER, "16"), routes, address=ADDRESS)


@pytest.fixture
def tool(house: House, listener: Listener) -> Ask:
    """Connects a tool of a role."""

    async def connect(role: Role) -> Channel:
        return await house.channel(service(role, "noc-1"), service(Role.CONTROLLER, "16"), listener.address)

    return connect
