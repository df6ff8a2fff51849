"""A real controller process (`keyhaul serve controller`) over simulated CKMSs in other processes (`bench.agents`)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from prometheus_client.parser import text_string_to_metric_families

from bench import network
from bench.agents import LINE, Await, Command, Cut, Order, OrderedNode, Rest, Told
from bench.nets import Net
from bench.observe import until, warnings_alone
from keyhaul.config.carrier import encode
from keyhaul.identity import authority, secretfile
from keyhaul.identity.authority import Authority, Classic
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import generate, private_pem, public_pem
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.transport.channel import Channel
from keyhaul.transport.tls import service_client

DOMAIN = "bench.example"
CONTROLLER = ServiceName(DOMAIN, Role.CONTROLLER, NodeId("dc"))
GNMI_PORT = 9339
STOPPING = 20.0
SEED = 7

_CONFIG = """
database = "sqlite:///controller.db"
statement_key = "statement-key.pem"
plan = "plan.json"

[service]
domain = "{domain}"
role = "controller"
node = "dc"

[identity]
certificate = "certificate.pem"
key = "key.pem"
trust = "trust.pem"
classic_certificate = "classic-certificate.pem"
classic_key = "classic-key.pem"

[listen]
address = "{host}:7446"

[operations]
metrics = "{host}:9448"
socket = "socket"

[gnmi]
trust = "services.pem"
"""


class Agents:
    """The processes that simulate the CKMSs of a network."""

    def __init__(self) -> None:
        self.processes: list[asyncio.subprocess.Process] = []

    async def start(self, orders: Sequence[Order]) -> None:
        """Start a process for each order; returns when all their nodes serve."""
        for order in orders:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.agents"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=network.ROOT,
                limit=LINE,
                start_new_session=True,
            )
            self.processes.append(process)
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(order) + b"\n")
        await asyncio.gather(*map(_answer, self.processes))

    async def say(self, command: Command) -> list[Told]:
        """Say something to all processes; return their answers."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(command) + b"\n")
        return await asyncio.gather(*map(_answer, self.processes))

    async def cut(self, link: str, *, cut: bool = True) -> Told:
        """Cut a link of a network that one process simulates, or mend it."""
        (told,) = await self.say(Cut(link, cut))
        return told

    async def whole(self, demands: int, seconds: float) -> Told:
        """Wait until so many demands have paths, all whole, in a network that one process simulates.

        Raises:
            TimeoutError: they had not.
        """
        (told,) = await self.say(Await(demands, seconds))
        if told.late:
            raise TimeoutError(told.late)
        return told

    async def rest(self, quiet: float, seconds: float) -> int:
        """Wait until no statement has come for so long, or `seconds` at most; return how many have come in all."""
        return sum(told.statements for told in await self.say(Rest(quiet, seconds)))

    async def stop(self) -> None:
        """Stop all."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*(process.wait() for process in self.processes))


async def _answer(process: asyncio.subprocess.Process) -> Told:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("a process of simulated nodes has ended")
    return msgspec.json.decode(line, type=Told)


@dataclass(frozen=True, slots=True)
class Steered:
    """What runs."""

    net: Net
    process: asyncio.subprocess.Process
    """The controller's."""
    agents: Agents
    began: float
    """When the controller was started, monotonic."""
    laid: Laid

    @property
    def controller(self) -> int:
        """The controller's process id."""
        return self.process.pid

    async def health(self) -> dict[str, Any]:
        """The controller's health page."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._pages}/health") as answer:
            return dict(await answer.json())

    async def metrics(self) -> dict[str, float]:
        """The controller's metrics by sample name; those that labels tell apart added up."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._pages}/metrics") as answer:
            text = await answer.text()
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found

    async def all_told(self, limit: float) -> None:
        """Wait until the controller leads, all nodes tell, and all links are found.

        Raises:
            TimeoutError: that was not so within `limit` seconds.
        """

        async def told() -> bool:
            if self.process.returncode is not None:
                raise RuntimeError(f"the controller has ended with {self.process.returncode}")
            try:
                health = await self.health()
            except aiohttp.ClientConnectionError:
                return False
            links = health["links"]
            telling = health["nodes"]["telling"] == len(self.net.nodes)
            return bool(health["leads"] and telling and links.get("found") == len(self.net.links))

        await until(told, limit, 0.5)

    def channel(self, node: str) -> Channel:
        """A connection of a CKMS to the controller; to be started and closed."""
        identity = self.laid.identity(node)
        return Channel(identity.name, CONTROLLER, f"{self.laid.host}:7446", service_client(identity))

    @property
    def _pages(self) -> str:
        return f"http://{self.laid.host}:9448"


class Laid:
    """The files of a controller and of simulated nodes."""

    def __init__(self, directory: Path, net: Net) -> None:
        self.directory = directory
        self._now = datetime.datetime.now(datetime.UTC)
        self._root = authority.make_root(DOMAIN, self._now)
        self._ckms = authority.make_intermediate(self._root, DOMAIN, Role.CKMS, self._now)
        self._classic = authority.make_classic(DOMAIN, Classic.SERVICES, self._now)
        first, second, *_ = network.loopback.split(".")
        self._range = f"{first}.{second}"
        self.host = f"{self._range}.255.1"
        self.addresses = {
            node: f"{self._range}.{number // 250 + 1}.{number % 250 + 1}:{GNMI_PORT}"
            for number, (node, _) in enumerate(net.nodes)
        }
        self._write("services.pem", authority.pem(self._classic.certificate))
        self._write("trust.pem", authority.pem(self._root.certificate))
        self._controller(net)
        self._node_key = generate_private_key(SECP256R1())
        self._write("nodes-key.pem", private_pem(self._node_key))

    def orders(self, net: Net, processes: int, *, verify: bool, look: float) -> list[Order]:
        """What each of some processes simulates."""
        ids = [node for node, _ in net.nodes]
        begin = time.monotonic()
        orders = []
        for number in range(processes):
            own = ids[number * len(ids) // processes : (number + 1) * len(ids) // processes]
            mine = frozenset(own)
            orders.append(
                Order(
                    DOMAIN,
                    str(self.directory / "nodes-key.pem"),
                    str(self.directory / "services.pem"),
                    str(self.directory / "statement-public.pem"),
                    [OrderedNode(node, self.addresses[node], str(self._certificate(node))) for node in own],
                    [link for link in net.links if link.a in mine or link.b in mine],
                    begin,
                    SEED,
                    verify,
                    look,
                )
            )
        return orders

    def identity(self, node: str) -> ServiceIdentity:
        """Make what a CKMS shows to the controller's HTTP/2 listener."""
        name = ServiceName.of(DOMAIN, node)
        certificate, key = self._service(self._ckms, name)
        return ServiceIdentity(name, certificate, key, self.directory / "trust.pem", None, None, None, None)

    def _controller(self, net: Net) -> None:
        signer = authority.make_intermediate(self._root, DOMAIN, Role.CONTROLLER, self._now)
        self._service(signer, CONTROLLER, "")
        key = generate_private_key(SECP256R1())
        twin = authority.sign_service(self._classic, CONTROLLER, key.public_key(), self._now)
        self._write("classic-certificate.pem", authority.pem(twin))
        self._write("classic-key.pem", private_pem(key))
        statement_key = generate()
        self._write("statement-key.pem", private_pem(statement_key))
        self._write("statement-public.pem", public_pem(statement_key.public_key()))
        self._write("plan.json", encode(net.plan(self.addresses)))
        self._write("config.toml", _CONFIG.format(domain=DOMAIN, host=self.host).encode())

    def _service(self, signer: Authority, name: ServiceName, prefix: str | None = None) -> tuple[Path, Path]:
        prefix = f"{name.id}-" if prefix is None else prefix
        key = generate()
        certificate = authority.sign_service(signer, name, key.public_key(), self._now)
        return (
            self._write(f"{prefix}certificate.pem", authority.pem(certificate, *signer.chain)),
            self._write(f"{prefix}key.pem", private_pem(key)),
        )

    def _certificate(self, node: str) -> Path:
        name = ServiceName.of(DOMAIN, node)
        twin = authority.sign_service(self._classic, name, self._node_key.public_key(), self._now)
        return self._write(f"{node}.pem", authority.pem(twin))

    def _write(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        secretfile.write(path, content, durable=False)
        return path


@contextlib.asynccontextmanager
async def steered(net: Net, processes: int = 1, *, verify: bool = True, look: float = 1.0) -> AsyncIterator[Steered]:
    """Run a controller over the simulated nodes of a network; stop all at the end.

    Args:
        net: the network.
        processes: in which its nodes are simulated.
        verify: whether the nodes verify signatures of statements.
        look: seconds between two looks of a node for changes.
    """
    warnings_alone()
    directory = Path(tempfile.mkdtemp(prefix="kh-", dir="/tmp"))
    agents = Agents()
    try:
        laid = Laid(directory, net)
        await agents.start(laid.orders(net, processes, verify=verify, look=look))
        began = time.monotonic()
        controller = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "keyhaul.command.main", "serve", "controller"),
            *("--config", str(directory / "config.toml")),
            cwd=network.ROOT,
            start_new_session=True,
        )
        try:
            yield Steered(net, controller, agents, began, laid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                controller.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(controller.wait(), STOPPING)
            except TimeoutError:
                controller.kill()
                await controller.wait()
    finally:
        await agents.stop()
        shutil.rmtree(directory, ignore_errors=True)
