"""A directory of two customers in a real database of each engine, and the service over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from prometheus_client import CollectorRegistry

from aaa.authorisation import GrantPolicy
from aaa.database import open_database
from aaa.directory import replace
from aaa.import_file import parse
from aaa.service import AaaService
from keyhaul.identity.names import Role, ServiceName, node_id
from keyhaul.runtime.interface import LocalCommand, Take
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.messages.base import Message
from keyhaul.transport.operations import Operation, Reply, Request

DIRECTORY = """
[[customer]]
id = "first"
[[customer]]
id = "second"
name = "Second Hospital"
[[customer]]
id = "operator"

[[contract]]
id = "first/gold"
customer = "first"
class = "gold"
sizes = [128, 256]
[[contract]]
id = "second/bronze"
customer = "second"
class = "bronze"
quota = 1000
maximum_keys_per_request = 100
[[contract]]
id = "operator/probe"
customer = "operator"
class = "silver"
loopback = true

[[site]]
ukms = "ukms-1"
akms = "akms-2"
kme = "kme-1"
[[site]]
ukms = "ukms-15"
akms = "akms-14"
kme = "kme-15"

[[sae]]
id = "first-berlin-1"
ukms = "ukms-1"
contract = "first/gold"
peers = ["first-bonn-1", "first-bonn-2"]
[[sae]]
id = "first-bonn-1"
ukms = "ukms-15"
contract = "first/gold"
peers = ["first-berlin-1"]
[[sae]]
id = "first-bonn-2"
ukms = "ukms-15"
contract = "first/gold"
[[sae]]
id = "second-berlin"
ukms = "ukms-1"
contract = "second/bronze"
peers = ["second-bonn"]
[[sae]]
id = "second-bonn"
ukms = "ukms-15"
contract = "second/bronze"
peers = ["second-berlin"]
[[sae]]
id = "probe-berlin"
ukms = "ukms-1"
contract = "operator/probe"
peers = ["probe-berlin"]
"""


class FakeRuntime:
    """Keeps what a service tells its process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.alarms: list[tuple[str, dict[str, Any]]] = []
        self.commands: dict[str, LocalCommand] = {}
        self.serving = asyncio.Event()

    def task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work, name=name)

    def alarm(self, name: str, **facts: Any) -> None:
        self.alarms.append((name, facts))

    def on_reload(self, tables: Iterable[str], take: Take) -> None:
        raise AssertionError("only a restart brings another configuration")

    def ready(self) -> None:
        self.serving.set()

    def health(self, check: Callable[[], dict[str, Any]]) -> None:
        pass

    def command(self, name: str, answer: LocalCommand) -> None:
        self.commands[name] = answer


class Bench:
    """The service as AKMSs see it, with clocks in the test's hand."""

    def __init__(self, directory: Path, key: MLDSA65PrivateKey, url: str) -> None:
        self.text = DIRECTORY
        self.directory = directory
        self.url = url
        self.key = key
        self.now = 1_800_000_000.0
        self.monotonic = 0.0
        self.policy = GrantPolicy("keyhaul.example", 86_400, 500)
        self.start()

    def start(self) -> None:
        self.database = open_database(self.url, self.directory)
        self.runtime = FakeRuntime()
        self.routes = Routes()
        self.service = AaaService(
            self.database,
            self.policy,
            self.key,
            3_600.0,
            self.runtime,
            wall=lambda: self.now,
            clock=lambda: self.monotonic,
        )
        self.service.serve(self.routes)

    def restart(self) -> None:
        self.database.close()
        self.start()

    def load(self, text: str = DIRECTORY) -> int:
        """Import; return how many masters lost rights."""
        parsed = parse(text.encode(), Path("aaa.toml"))
        return self.database.transact(lambda connection: replace(connection, parsed, int(self.now)).revocations)

    async def call(self, akms: str, operation: Operation[Request, Reply], request: Message) -> Reply:
        route = self.routes.find(operation.path)
        assert route is not None
        name = ServiceName("keyhaul.example", Role.AKMS, node_id(akms.removeprefix("akms-")))
        reply = await route.handler(Peer(name, None), request)  # type: ignore[arg-type]
        assert isinstance(reply, operation.reply)
        return reply

    def metric(self, name: str, **labels: str) -> float:
        return self.runtime.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture(scope="session")
def grant_key() -> MLDSA65PrivateKey:
    return MLDSA65PrivateKey.generate()


@pytest.fixture
def bench(tmp_path: Path, grant_key: MLDSA65PrivateKey, database_url: str) -> Iterator[Bench]:
    made = Bench(tmp_path, grant_key, database_url)
    made.load()
    yield made
    made.database.close()


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()
