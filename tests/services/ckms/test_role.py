"""Three carrier KMSs in a row as roles, over real TLS, links and stores, with the AKMSs at the ends."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from keyhaul.agents.statements import PathStatement, StatedHop, Statement, sign
from keyhaul.command.init import initialise
from keyhaul.config.loader import load
from keyhaul.config.services import (
    AkmsConfig,
    CkmsConfig,
    ControllerSection,
    ControllerServerSection,
    ForwardingEntry,
    PathSection,
    QkdmConfig,
)
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import fingerprint, public_pem
from keyhaul.identity.names import Role, ServiceName, node_id
from keyhaul.runtime.interface import LocalCommand, StartError
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import StoreError
from keyhaul.transport.channel import Channel
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.listener import Listener
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.relay import Deliver, Outcome, RelayFailure, Submit
from keyhaul.transport.operations import CARRIER_DELIVER, CARRIER_OUTCOME, CARRIER_SUBMIT
from keyhaul.transport.tls import service_client, service_server
from services.ckms.held import Change, Held, HighWater
from services.ckms.own_time import OwnTime
from services.ckms.role import ROLE
from services.ckms.schema import SCHEMA
from services.ckms.statement_store import StatementStore
from services.ckms.steering import machine_clocks
from services.qkdm.role import ROLE as QKDM
from tests.services.ckms.stated import KEY, THIEF

DESCRIPTION = Path(__file__).parents[2] / "network" / "small.toml"


class FakeRuntime:
    """The process around a role."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.serving = asyncio.Event()
        self.commands: dict[str, LocalCommand] = {}
        self.alarms: list[str] = []
        self.check: Callable[[], dict[str, Any]] = dict

    def task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work, name=name)

    def alarm(self, name: str, **facts: Any) -> None:
        self.alarms.append(name)

    def ready(self) -> None:
        self.serving.set()

    def health(self, check: Callable[[], dict[str, Any]]) -> None:
        self.check = check

    def command(self, name: str, answer: LocalCommand) -> None:
        self.commands[name] = answer


@pytest.fixture
def network() -> Path:
    process = os.getpid()
    out = Path("/tmp") / f"ckms-{process}"  # simulated modules meet on sockets, whose paths are short
    initialise(DESCRIPTION, out, loopback=f"127.{128 + process % 100}.{process // 100 % 250}.0")
    return out


@pytest.fixture(autouse=True)
def leave_nothing() -> Any:
    yield
    shutil.rmtree(Path("/tmp") / f"ckms-{os.getpid()}", ignore_errors=True)


class Access:
    """The AKMS of a node, as far as its CKMS sees it."""

    def __init__(self, network: Path, node: str) -> None:
        directory = network / "nodes" / node / "akms"
        config = load(directory / "config.toml", AkmsConfig)
        self.name = ServiceName(config.service.domain, Role.AKMS, node_id(node))
        identity = ServiceIdentity.load(config.identity, directory, self.name)
        self.delivered: asyncio.Queue[Deliver] = asyncio.Queue()
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        routes = Routes()
        routes.add(CARRIER_DELIVER, self._deliver)
        routes.add(CARRIER_OUTCOME, self._outcome)
        ckms = ServiceName(self.name.domain, Role.CKMS, node_id(node))
        self.listener = Listener(self.name, config.listen.address, service_server(identity), routes)
        self.channel = Channel(self.name, ckms, config.ckms.address, service_client(identity))

    async def _deliver(self, peer: Peer, message: Deliver) -> Accepted:
        self.delivered.put_nowait(message)
        return Accepted()

    async def _outcome(self, peer: Peer, message: Outcome) -> Accepted:
        self.outcomes.put_nowait(message)
        return Accepted()

    async def carry(self, destination: str, batch: str, bits: bytes) -> RelayFailure | None:
        request = Submit(batch=batch, destination=destination, bits=bits, service_class="gold", remaining_ms=5_000)
        await self.channel.call(CARRIER_SUBMIT, request, deadline=5)
        outcome = await self.outcomes.get()
        assert outcome.batch == batch
        return outcome.failure


async def start(role: Any, config: Any, directory: Path, stack: AsyncExitStack) -> FakeRuntime:
    runtime, stop = FakeRuntime(), asyncio.Event()
    running = asyncio.create_task(role.run(config, directory, runtime, stop))
    serving = asyncio.create_task(runtime.serving.wait())
    async with asyncio.timeout(60):
        await asyncio.wait({running, serving}, return_when=asyncio.FIRST_COMPLETED)
    serving.cancel()
    if running.done():
        await running

    async def end() -> None:
        stop.set()
        async with asyncio.timeout(30):
            await running

    stack.push_async_callback(end)
    return runtime


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


async def test_batches_cross_a_real_link_and_operators_see_it(network: Path, stack: AsyncExitStack) -> None:
    access = {node: Access(network, node) for node in "ab"}
    for akms in access.values():
        await akms.listener.start()
        stack.push_async_callback(akms.listener.close)
        await akms.channel.start()
        stack.push_async_callback(akms.channel.close)
    for node in "amb":
        directory = network / "nodes" / node / "qkdm"
        config = load(directory / "config.toml", QkdmConfig)
        config.module = [module for module in config.module if module.link in ("a-m", "m-b")]
        await start(QKDM, config, directory, stack)
    runtimes = {}
    for node in "amb":  # node d, on the detour, does not run
        directory = network / "nodes" / node / "ckms"
        runtimes[node] = await start(ROLE, load(directory / "config.toml", CkmsConfig), directory, stack)
    async with asyncio.timeout(60):
        while not all([await filled(runtime) for runtime in runtimes.values()]):
            await asyncio.sleep(0.02)
        while not all(akms.channel.connected for akms in access.values()):
            await asyncio.sleep(0.02)
        bits = os.urandom(4_096)
        assert await access["b"].carry("ckms-a", "1" * 32, bits) is None
        assert await access["a"].delivered.get() == Deliver(batch="1" * 32, bits=bits, id=AnyText())
        assert await access["a"].carry("ckms-b", "2" * 32, bits) is None
        assert (await access["b"].delivered.get()).bits == bits
        assert await access["a"].carry("ckms-z", "3" * 32, bits) is RelayFailure.NO_PATH
        with pytest.raises(ServiceError) as error:
            await access["a"].carry("ckms-b", "2" * 32, bits)
    assert error.value.code is ErrorCode.CONFLICT
    links = {link["link"]: link for link in (await runtimes["a"].commands["links"]({}))["links"]}
    assert (links["a-m"]["neighbour"], links["a-m"]["state"], links["a-d"]["state"]) == ("ckms-m", "up", "down")
    assert runtimes["a"].check()["links"] == {"a-m": True, "a-d": False}
    paths = (await runtimes["a"].commands["paths"]({}))["paths"]
    assert [(path["destination"], path["rank"], path["on_probation"]) for path in paths] == [
        ("ckms-b", 0, False),
        ("ckms-b", 1, False),
    ]
    sample = runtimes["b"].registry.get_sample_value
    assert (sample("keyhaul_ckms_submitted_total"), sample("keyhaul_ckms_delivered_total")) == (1, 1)
    with pytest.raises(LookupError):
        await runtimes["a"].commands["protect"]({"link": "x", "suites": ["otp"]})
    with pytest.raises(ValueError, match="protect takes"):
        await runtimes["a"].commands["protect"]({"link": "a-m"})
    with pytest.raises(ValueError):
        await runtimes["a"].commands["protect"]({"link": "a-m", "suites": ["rot13"]})
    assert await runtimes["a"].commands["protect"]({"link": "a-m", "suites": ["otp"]})
    assert [runtime.alarms for runtime in runtimes.values()] == [[], [], []]


async def filled(runtime: FakeRuntime) -> bool:
    """Whether the links of the row are up and have pads in both directions."""
    row = [link for link in (await runtime.commands["links"]({}))["links"] if link["link"] in ("a-m", "m-b")]
    return all(
        link["state"] == "up" and link["connected"] and link[direction]["payload_available"] >= 16_384
        for link in row
        for direction in ("outgoing", "incoming")
    )


class AnyText(str):
    """Equal to every text."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)

    __hash__ = str.__hash__


async def test_what_a_controller_said_is_in_force_again_after_a_restart(network: Path) -> None:
    directory = network / "nodes" / "a" / "ckms"
    config = load(directory / "config.toml", CkmsConfig)
    (directory / "statements.pem").write_bytes(public_pem(KEY.public_key()))
    server = ControllerServerSection(service="controller-1", address="127.0.0.1:1", statement_key="statements.pem")
    config.controller = ControllerSection(server=[server])
    said = PathStatement(
        destination="ckms-b", group="0" * 32, rank=0, first=StatedHop("ckms-d", "9" * 16), rate=1, burst=1
    )
    statement = Statement(v=1, node="ckms-a", epoch=3, serial=5, lifetime_s=3_600, says=said)
    now = machine_clocks()
    held = Held(statement, sign(statement, KEY), accepted=0.0)
    store = await EmbeddedStore.open(config.store, directory, SCHEMA)
    change = Change(HighWater(3, 5, doubt=False), (held,))
    keys = frozenset({fingerprint(KEY.public_key())})
    await StatementStore(store).write(change, [held], keys, OwnTime(None, now).checkpoint(now))
    await store.close()

    static = [(0, None), (1, None)]
    assert await paths_of(config, directory) == ([(0, 5), *static], [])
    (directory / "statements.pem").write_bytes(public_pem(THIEF.public_key()))
    assert await paths_of(config, directory) == (static, ["stored-statement-dropped"])
    assert await paths_of(config, directory) == (static, [])
    config.controller = None
    assert await paths_of(config, directory) == (static, [])


async def paths_of(config: CkmsConfig, directory: Path) -> tuple[list[tuple[int, int | None]], list[str]]:
    """Rank and serial of the paths of a CKMS that is started and stopped, and its alarms."""
    async with AsyncExitStack() as stack:
        runtime = await start(ROLE, config, directory, stack)
        paths = (await runtime.commands["paths"]({}))["paths"]
        return [(path["rank"], path["serial"]) for path in paths], runtime.alarms


def spoil_statement_key(config: CkmsConfig) -> None:
    server = ControllerServerSection(service="controller-1", address="127.0.0.1:1", statement_key="none.pem")
    config.controller = ControllerSection(server=[server])


def spoil_akms(config: CkmsConfig) -> None:
    config.akms = None


def spoil_path(config: CkmsConfig) -> None:
    config.path = [PathSection(destination="ckms-b", rank=0, next="ckms-q", label="1" * 16)]


def spoil_entry(config: CkmsConfig) -> None:
    config.entry = [ForwardingEntry(label="1" * 16, previous="ckms-b", next="ckms-b")]


def spoil_address(config: CkmsConfig) -> None:
    config.link[0].address = None


def spoil_key(config: CkmsConfig) -> None:
    config.link[0].peer_link_key = "missing.pem"


def spoil_module(config: CkmsConfig) -> None:
    config.link[0].module.url = "http://127.0.0.1"


def spoil_identity(config: CkmsConfig) -> None:
    config.identity.classic_certificate = None
    config.identity.classic_key = None


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_akms, "paths start only where an AKMS is"),
        (spoil_path, "'ckms-q' is no neighbour of ckms-a"),
        (spoil_entry, "next and next_label belong together"),
        (spoil_address, "give the neighbour's address"),
        (spoil_key, r"missing\.pem"),
        (spoil_statement_key, r"none\.pem"),
        (spoil_module, "is not the URL of a KME"),
        (spoil_identity, "classic_certificate"),
    ],
)
async def test_it_says_why_it_cannot_start(network: Path, spoil: Callable[[CkmsConfig], None], says: str) -> None:
    directory = network / "nodes" / "a" / "ckms"
    config = load(directory / "config.toml", CkmsConfig)
    spoil(config)

    with pytest.raises(StartError, match=says):
        await ROLE.run(config, directory, FakeRuntime(), asyncio.Event())


async def test_a_store_that_cannot_be_opened_stops_it(network: Path) -> None:
    directory = network / "nodes" / "a" / "ckms"
    config = load(directory / "config.toml", CkmsConfig)
    (directory / "store.db").write_bytes(b"no store" * 1_000)

    with pytest.raises(StoreError):
        await ROLE.run(config, directory, FakeRuntime(), asyncio.Event())
