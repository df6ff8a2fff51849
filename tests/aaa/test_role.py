"""The role over real TLS: AKMSs are served, nobody else; and it says plainly why it cannot start."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aaa.role import ROLE
from keyhaul.command.init import initialise
from keyhaul.config.loader import load
from keyhaul.config.services import AaaConfig, AkmsConfig, UkmsConfig
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import load_link_public
from keyhaul.identity.names import Role, ServiceName, node_id
from keyhaul.keys.grants import verify
from keyhaul.runtime.interface import StartError
from keyhaul.transport.channel import Channel
from keyhaul.transport.messages.aaa import Authorise, Changes, Usage, UsageRecord
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import AAA_AUTHORISE, AAA_CHANGES, AAA_USAGE
from keyhaul.transport.tls import service_client

DESCRIPTION = Path(__file__).parents[1] / "network" / "small.toml"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("aaa") / "net"
    process = os.getpid()
    initialise(DESCRIPTION, out, loopback=f"127.{128 + process % 100}.{process // 100 % 250}.0")
    return out


@dataclass
class Running:
    network: Path
    config: AaaConfig
    runtime: Any

    def channel(self, role: Role, node: str) -> Channel:
        directory = self.network / "nodes" / node / role
        kind: type[AkmsConfig | UkmsConfig] = AkmsConfig if role is Role.AKMS else UkmsConfig
        config = load(directory / "config.toml", kind)
        own = ServiceName(config.service.domain, role, node_id(node))
        identity = ServiceIdentity.load(config.identity, directory, own)
        aaa = ServiceName(own.domain, Role.AAA, node_id("dc"))
        return Channel(own, aaa, self.config.listen.address, service_client(identity))


@pytest.fixture
async def running(network: Path, runtime: Any) -> AsyncIterator[Running]:
    directory = network / "nodes" / "dc" / "aaa"
    config = load(directory / "config.toml", AaaConfig)
    stop = asyncio.Event()
    role = asyncio.create_task(ROLE.run(config, directory, runtime, stop))
    async with asyncio.timeout(10):
        await asyncio.wait(
            {role, serving := asyncio.create_task(runtime.serving.wait())}, return_when="FIRST_COMPLETED"
        )
    serving.cancel()
    if role.done():
        await role
    yield Running(network, config, runtime)
    stop.set()
    async with asyncio.timeout(5):
        await role


async def test_an_akms_gets_grants_and_has_usage_recorded(running: Running) -> None:
    text = (running.network / "aaa.toml").read_text()
    await running.runtime.commands["import"]({"text": text, "name": "aaa.toml"})
    key = load_link_public(running.network / "nodes" / "a" / "akms" / "aaa-key.pem")
    channel = running.channel(Role.AKMS, "a")
    await channel.start()
    request = Authorise(ukms="ukms-west", master="first-west-1", slaves=["first-east-1"])
    grant = verify(await channel.call(AAA_AUTHORISE, request, deadline=5), key)
    record = UsageRecord("b" * 32, grant.id, [uuid.uuid4()], 256, 0)
    await channel.call(AAA_USAGE, Usage(records=[record]), deadline=5)
    changes = await channel.call(AAA_CHANGES, Changes(since=0), deadline=5)
    with pytest.raises(ServiceError) as error:
        await channel.call(AAA_AUTHORISE, Authorise(ukms="ukms-west", master="x", slaves=["y"]), deadline=5)
    await channel.close()

    assert (grant.master_akms, grant.slaves[0].akms) == ("akms-a", "akms-b")
    assert (changes.epoch, changes.revocations) == (1, [])
    assert error.value.code is ErrorCode.NOT_PERMITTED


async def test_a_ukms_is_served_nothing(running: Running) -> None:
    channel = running.channel(Role.UKMS, "west")
    await channel.start()
    with pytest.raises(ServiceError) as error:
        await channel.exchange(AAA_CHANGES.path, Changes(since=0), AAA_CHANGES.reply, deadline=5)
    await channel.close()

    assert error.value.code is ErrorCode.FORBIDDEN


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("grant_key", "missing.pem", "missing.pem"), ("database", "sqlite:///none/aaa.db", "none/aaa.db")],
)
async def test_it_says_why_it_cannot_start(network: Path, runtime: Any, field: str, value: str, says: str) -> None:
    directory = network / "nodes" / "dc" / "aaa"
    config = load(directory / "config.toml", AaaConfig)
    setattr(config, field, value)

    with pytest.raises(StartError, match=says):
        await ROLE.run(config, directory, runtime, asyncio.Event())
