"""Carrier KMSs as roles with their agents: pygnmi reads the true state, and what a controller states carries keys."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from pygnmi.client import gNMIclient, gNMIException

from keyhaul.agents.gnmi.client import Client
from keyhaul.agents.gnmi.errors import Code
from keyhaul.agents.gnmi.failures import RefusedByTarget, TargetError
from keyhaul.agents.gnmi.models import ckms
from keyhaul.agents.gnmi.notices import Wanted
from keyhaul.agents.signing import sign
from keyhaul.agents.statements import EntryStatement, PathStatement, StatedHop, Statement
from keyhaul.command.init import initialise
from keyhaul.config.loader import load
from keyhaul.config.services import CkmsConfig, PathSection
from keyhaul.identity.keys import load_link_private
from keyhaul.identity.names import Role, ServiceName, node_id
from keyhaul.runtime.interface import StartError
from keyhaul.transport.tls import TlsFiles
from services.ckms.role import ROLE
from tests.pygnmi_client import connected
from tests.services.ckms.running import FakeRuntime, start, start_row
from tests.services.ckms.stated import THIEF

# pygnmi leaves the files of its certificates open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

SMALL = Path(__file__).parents[3] / "network" / "small.toml"
STATEMENT = f"/{ckms.TOP}/forwarding/statement"
ENTERS, LEAVES = "1" * 16, "2" * 16
Says = EntryStatement | PathStatement


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Path]:
    """The network of the role's test with a controller, which does not run, in its data centre."""
    process = os.getpid()
    description = tmp_path / "steered.toml"
    described = SMALL.read_text()
    assert 'roles = ["aaa"]' in described
    description.write_text(described.replace('roles = ["aaa"]', 'roles = ["aaa", "controller"]'))
    out = Path("/tmp") / f"agent-{process}"  # simulated modules meet on sockets, whose paths are short
    initialise(description, out, loopback=f"127.{128 + process % 100}.{process // 100 % 250}.0")
    yield out
    shutil.rmtree(out, ignore_errors=True)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


class Controller:
    """What a controller has: the way to each agent, and the key that CKMSs have pinned."""

    def __init__(self, network: Path) -> None:
        self.network = network
        self.key = load_link_private(network / "nodes" / "dc" / "controller" / "statement-key.pem")
        self.serials = 0

    def files(self, role: str = "controller", node: str = "dc") -> TlsFiles:
        own = self.network / "nodes" / node / role
        trust = self.network / "nodes" / "dc" / "controller" / "services.pem"
        return TlsFiles(own / "classic-certificate.pem", own / "classic-key.pem", trust)

    def address(self, node: str) -> str:
        gnmi = load(self.network / "nodes" / node / "ckms" / "config.toml", CkmsConfig).gnmi
        assert gnmi is not None
        return gnmi.address

    def client(self, node: str, files: TlsFiles | None = None) -> Client:
        peer = ServiceName("test.example", Role.CKMS, node_id(node))
        return Client(self.address(node), peer, files or self.files())

    def pygnmi(self, node: str) -> AbstractContextManager[Any]:
        return connected(self.address(node), f"ckms-{node}", self.files())

    async def with_pygnmi(self, node: str, use: Callable[[Any], Any]) -> Any:
        def work() -> Any:
            with self.pygnmi(node) as client:
                return use(client)

        async with asyncio.timeout(30):
            return await asyncio.to_thread(work)

    async def said(self, node: str, says: Says, key: Any = None) -> dict[str, dict[str, str]]:
        """The update of a Set, signed for the process that runs now."""
        async with self.client(node) as client:
            [[incarnation]] = await client.get([f"/{ckms.TOP}/incarnation"], deadline=5)
        self.serials += 1
        statement = Statement(
            v=1,
            node=f"ckms-{node}",
            incarnation=json.loads(incarnation.value),
            epoch=1,
            serial=self.serials,
            lifetime_s=600,
            says=says,
        )
        (signed,) = sign([statement], key or self.key)
        value = {"body": encoded(signed.body), "signature": encoded(signed.signature)}
        return {f"{STATEMENT}[serial={self.serials}]": value}


def encoded(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def entry(previous: str, label: str, next: StatedHop | None) -> EntryStatement:  # noqa: A002
    return EntryStatement(label=label, previous=previous, next=next, service_class="gold", rate=1e6, burst=1_000_000)


async def test_keys_go_where_a_controller_says_and_it_sees_them_go(network: Path, stack: AsyncExitStack) -> None:
    access, runtimes = await start_row(network, stack)
    controller = Controller(network)

    async with asyncio.timeout(60):
        while await pools_as_told(controller, "m") != await pools_as_they_are(runtimes["m"]):
            await asyncio.sleep(0.1)
    links = await links_as_told(controller, "m")
    assert set(links) == {"ckms-a", "ckms-b"}
    for link in links.values():
        assert (link["up"], link["enabled"], link["quantum"], link["suite"]) == (True, True, True, "aes-256-gcm")
        assert int(link["rate"]) > 50_000
        assert 0 < float(link["qber"]) < 0.1
        assert all(int(pool["bytes-in"]) >= int(pool["available"]) >= 16_384 for pool in link["pool"])

    said: dict[str, Says] = {
        "a": entry("ckms-m", LEAVES, None),
        "m": entry("ckms-b", ENTERS, StatedHop("ckms-a", LEAVES)),
        "b": PathStatement(
            destination="ckms-a",
            service_class="gold",
            group="0" * 32,
            rank=0,
            first=StatedHop("ckms-m", ENTERS),
            rate=1e6,
            burst=1_000_000,
        ),
    }
    for node, says in said.items():
        update = [(path.lstrip("/"), value) for path, value in (await controller.said(node, says)).items()]
        await controller.with_pygnmi(node, partial(gNMIclient.set, update=update, encoding="json_ietf"))
    bits = os.urandom(2_048)
    async with asyncio.timeout(10):
        assert await access["b"].carry("ckms-a", "7" * 32, bits) is None
        assert (await access["a"].delivered.get()).bits == bits

    for node, kind in (("b", "path"), ("m", "entry"), ("a", "entry")):
        async with asyncio.timeout(10):
            while (carried := await carried_by_statements(controller, node, kind)) == (0, 0, 0):
                await asyncio.sleep(0.1)
        assert carried == (1, 2_048, 0)
        health = runtimes[node].check()["steering"]
        assert (health["epoch"], health["statements"], health["in_doubt"], health["controller_heard"]) == (
            1,
            1,
            False,
            True,
        )
        assert runtimes[node].registry.get_sample_value("keyhaul_ckms_statements", {"state": "standing"}) == 1
        assert runtimes[node].alarms == []

    await nothing_of_users_or_keys_is_told(controller, bits)

    async with controller.client("m") as client:
        forged = await controller.said("m", said["m"], key=THIEF)
        with pytest.raises(RefusedByTarget, match="forged") as refused:
            await client.set(update=forged, deadline=5)
        assert refused.value.code is Code.PERMISSION_DENIED
    assert runtimes["m"].alarms == ["statement-refused"]
    async with controller.client("m", controller.files("akms", "a")) as stranger:
        with pytest.raises(RefusedByTarget, match="akms-a may not call Get"):
            await stranger.get([f"/{ckms.TOP}/links"], deadline=5)
    assert runtimes["m"].alarms == ["statement-refused", "gnmi-refused"]
    assert runtimes["m"].registry.get_sample_value("keyhaul_gnmi_refused_total", {"code": "PERMISSION_DENIED"}) == 2
    came, proved = (runtimes["m"].registry.get_sample_value(f"keyhaul_gnmi_{name}_total") for name in CONNECTIONS)
    assert came, "connections were made"
    assert came == proved, "nobody was turned away by TLS"

    await a_link_that_goes_down_is_told(controller, runtimes["m"])


CONNECTIONS = ("handshakes", "connections")


async def nothing_of_users_or_keys_is_told(controller: Controller, bits: bytes) -> None:
    for node in "amb":
        async with controller.client(node) as client:
            [told] = await client.get(["/"], deadline=5)
        text = b"".join(update.value for update in told).decode()
        assert f'"ckms-{node}"' in text
        words = re.sub(r'"(body|signature)":\s*"[^"]*"', "", text)
        for word in ("akms", "ukms", "sae", "first-", "west", "east", "user"):
            assert word not in words
        for encoding in (encoded(bits)[:24], bits[:16].hex(), encoded(bits[1:])[:24], encoded(bits[2:])[:24]):
            assert encoding not in text


async def links_as_told(controller: Controller, node: str) -> dict[str, Any]:
    path = "keyhaul-ckms:carrier/links"
    told = await controller.with_pygnmi(node, lambda client: client.get(path=[path], encoding="json_ietf"))
    links = told["notification"][0]["update"][0]["val"]["keyhaul-ckms:link"]
    return {link["neighbour"]: link for link in links}


async def pools_as_told(controller: Controller, node: str) -> dict[tuple[str, str], int]:
    return {
        (neighbour, pool["direction"]): int(pool["available"])
        for neighbour, link in (await links_as_told(controller, node)).items()
        for pool in link["pool"]
    }


async def pools_as_they_are(runtime: FakeRuntime) -> dict[tuple[str, str], int]:
    return {
        (link["neighbour"], direction): link[direction]["payload_available"] + link[direction]["control_available"]
        for link in (await runtime.commands["links"]({}))["links"]
        for direction in ("outgoing", "incoming")
    }


async def carried_by_statements(controller: Controller, node: str, kind: str) -> tuple[int, int, int]:
    async with controller.client(node) as client:
        [told] = await client.get([f"/{ckms.TOP}/forwarding/{kind}"], deadline=5)
    rows = [json.loads(update.value) for update in told]
    [row] = [row for row in map(bare, rows) if "serial" in row]
    assert 0 < row["remaining"] <= 600
    return int(row["batches"]), int(row["bytes"]), int(row["refused"])


def bare(row: dict[str, Any]) -> dict[str, Any]:
    """Without the module in the members' names."""
    return {name.rpartition(":")[2]: value for name, value in row.items()}


async def a_link_that_goes_down_is_told(controller: Controller, runtime: FakeRuntime) -> None:
    wanted = [Wanted(f"/{ckms.TOP}/links/link[neighbour=ckms-a]", sample=1.0)]
    async with (
        asyncio.timeout(20),
        controller.client("m") as client,
        aclosing(client.subscribe([*wanted, Wanted(f"/{ckms.TOP}/links/link[neighbour=ckms-a]/up")])) as notices,
    ):
        ups: list[bool] = []
        async for notice in notices:
            for update in notice.updates:
                value = json.loads(update.value)
                ups.append(bare(value)["up"] if isinstance(value, dict) else value)
            if notice.synced:
                assert set(ups) == {True}
                assert runtime.check()["gnmi_subscriptions"] == 1
                await runtime.commands["cut"]({"link": "a-m", "cut": True})
            if ups and not ups[-1]:
                break


async def test_without_a_certificate_there_is_nothing(network: Path, stack: AsyncExitStack) -> None:
    directory = network / "nodes" / "m" / "ckms"
    runtime = await start(ROLE, load(directory / "config.toml", CkmsConfig), directory, stack)
    controller = Controller(network)
    own = network / "nodes" / "m" / "ckms"
    files = TlsFiles(own / "classic-certificate.pem", own / "classic-key.pem", controller.files().trust)
    async with controller.client("m", files) as client:
        with pytest.raises(TargetError, match="ckms-m may not call Set"):
            await client.set(delete=[STATEMENT], deadline=5)
    assert runtime.alarms == ["gnmi-refused"]
    host, _, port = controller.address("m").partition(":")

    def without() -> None:
        with gNMIclient(
            target=(host, int(port)), path_root=str(files.trust), override="ckms-m", gnmi_timeout=1
        ) as client:
            client.capabilities()

    with pytest.raises((gNMIException, grpc.FutureTimeoutError)):
        await asyncio.to_thread(without)


def test_a_ckms_without_an_agent_does_without_grpc() -> None:
    """It is as large as all else that a CKMS imports."""
    look = "import sys, services.ckms.role; print('grpc' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def spoil_trust(config: CkmsConfig) -> None:
    assert config.gnmi is not None
    config.gnmi.trust = "none.pem"


def spoil_address(config: CkmsConfig) -> None:
    assert config.gnmi is not None
    config.gnmi.address = "192.0.2.1:9339"


def spoil_identity(config: CkmsConfig) -> None:
    config.identity.classic_certificate = None
    config.identity.classic_key = None


def spoil_path(config: CkmsConfig) -> None:
    config.path.append(PathSection(destination="Elsewhere", rank=0, next="ckms-m", label="1" * 16))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_trust, r"none\.pem"),
        (spoil_address, "gNMI cannot listen at 192.0.2.1:9339"),
        (spoil_identity, "classic_certificate"),
        (spoil_path, "not as its YANG module: .*destination"),
    ],
)
async def test_it_says_why_its_agent_cannot_start(
    network: Path, spoil: Callable[[CkmsConfig], None], says: str
) -> None:
    directory = network / "nodes" / "a" / "ckms"
    config = load(directory / "config.toml", CkmsConfig)
    spoil(config)
    with pytest.raises(StartError, match=says):
        await ROLE.run(config, directory, FakeRuntime(), asyncio.Event())
