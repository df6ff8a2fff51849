"""The role over real TLS and gNMI: CKMSs and operators are served, nobody else; and it says why it cannot start."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.role import ROLE
from keyhaul.command.init import initialise
from keyhaul.config.loader import load
from keyhaul.config.services import AkmsConfig, CkmsConfig, ControllerConfig
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.names import Role, ServiceName, node_id
from keyhaul.runtime.interface import StartError
from keyhaul.transport.channel import Channel
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.path import PathRefusal, PathRequest
from keyhaul.transport.operations import PATH_REQUEST
from keyhaul.transport.tls import service_client
from tests.aaa.conftest import FakeRuntime

SMALL = Path(__file__).parents[1] / "network" / "small.toml"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scratch = tmp_path_factory.mktemp("controller")
    description = scratch / "small.toml"
    description.write_text(SMALL.read_text().replace('roles = ["aaa"]', 'roles = ["aaa", "controller"]'))
    initialise(description, scratch / "net", loopback=f"127.232.{os.getpid() % 250}.0")
    return scratch / "net"


def configuration(network: Path) -> tuple[Path, ControllerConfig]:
    directory = network / "nodes" / "dc" / "controller"
    return directory, load(directory / "config.toml", ControllerConfig)


@dataclass
class Running:
    network: Path
    config: ControllerConfig
    runtime: Any
    stop: asyncio.Event
    task: asyncio.Task[None]

    def channel(self, role: Role, node: str) -> Channel:
        directory = self.network / "nodes" / node / role
        kind: type[AkmsConfig | CkmsConfig] = AkmsConfig if role is Role.AKMS else CkmsConfig
        config = load(directory / "config.toml", kind)
        own = ServiceName(config.service.domain, role, node_id(node))
        identity = ServiceIdentity.load(config.identity, directory, own)
        controller = ServiceName(own.domain, Role.CONTROLLER, node_id("dc"))
        return Channel(own, controller, self.config.listen.address, service_client(identity))


@pytest.fixture
async def running(network: Path) -> AsyncIterator[Running]:
    directory, config = configuration(network)
    stop, runtime = asyncio.Event(), FakeRuntime()
    task = asyncio.create_task(ROLE.run(config, directory, runtime, stop))
    async with asyncio.timeout(20):
        serving = asyncio.create_task(runtime.serving.wait())
        await asyncio.wait({task, serving}, return_when="FIRST_COMPLETED")
    serving.cancel()
    if task.done():
        await task
    yield Running(network, config, runtime, stop, task)
    stop.set()
    async with asyncio.timeout(10):
        await task


async def test_a_ckms_is_answered_and_an_akms_is_not(running: Running) -> None:
    channel = running.channel(Role.CKMS, "a")
    await channel.start()
    request = PathRequest(destination="ckms-nowhere", service_class="silver", rate=100.0)
    async with asyncio.timeout(10):
        while (reply := await channel.call(PATH_REQUEST, request, deadline=5)).refusal is PathRefusal.NOT_LEADER:
            await asyncio.sleep(0.02)
    assert reply.refusal is PathRefusal.UNKNOWN_DESTINATION
    await channel.close()

    other = running.channel(Role.AKMS, "a")
    await other.start()
    with pytest.raises(ServiceError) as error:
        await other.exchange(PATH_REQUEST.path, request, PATH_REQUEST.reply, deadline=5)
    await other.close()
    assert error.value.code is ErrorCode.FORBIDDEN
    assert ("wrong-role", "akms-a") in {(name, facts.get("peer")) for name, facts in running.runtime.alarms}


async def test_on_one_file_there_is_one_controller(running: Running) -> None:
    directory, config = configuration(running.network)
    with pytest.raises(StartError, match=r"controller\.db"):
        await ROLE.run(config, directory, FakeRuntime(), asyncio.Event())


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("statement_key", "missing.pem", "missing.pem"),
        ("database", "sqlite:///none/controller.db", "none/controller.db"),
        ("plan", "none.json", "none.json"),
    ],
)
async def test_it_says_why_it_cannot_start(network: Path, field: str, value: str, says: str) -> None:
    directory, config = configuration(network)
    setattr(config, field, value)
    with pytest.raises(StartError, match=says):
        await ROLE.run(config, directory, FakeRuntime(), asyncio.Event())


async def test_it_says_that_gnmi_needs_a_classic_certificate(network: Path) -> None:
    directory, config = configuration(network)
    config.identity.classic_certificate = config.identity.classic_key = None
    with pytest.raises(StartError, match="gNMI"):
        await ROLE.run(config, directory, FakeRuntime(), asyncio.Event())
