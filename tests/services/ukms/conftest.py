"""A UKMS's parts around a real store, with an AKMS that does what a test tells it to."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry

from keyhaul.config.services import StoreSection
from keyhaul.identity.names import KmeId, NodeId, Role, ServiceName
from keyhaul.link.interface import LinkStatus
from keyhaul.randomness import random_bytes
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.transport.messages.access import Description, Held, Push, Report, Reported
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.link import Stream
from keyhaul.transport.messages.peer import Voided
from keyhaul.transport.operations import (
    ACCESS_DESCRIBE,
    ACCESS_REPORT,
    ACCESS_REQUEST,
    ACCESS_WITHDRAW,
    DELIVERY_PUSH,
    Operation,
)
from keyhaul.transport.tls import classic_server
from services.ukms.access import Akms, Deliveries
from services.ukms.buffer import Policy
from services.ukms.kme import Kme
from services.ukms.metrics import Metrics
from services.ukms.opening import Opening
from services.ukms.schema import SCHEMA
from services.ukms.server import SaeServer
from services.ukms.standing import Standing
from services.ukms.supply import Supply
from services.ukms.terms import Terms
from services.ukms.upkeep import Upkeep
from services.ukms.vault import Vault

AKMS = ServiceName("example.net", Role.AKMS, NodeId("1"))

TERMS = Description(
    target_kme="kme-b",
    service_class="silver",
    default_size=256,
    minimum_size=64,
    maximum_size=1024,
    maximum_keys_per_request=128,
    maximum_additional_slaves=2,
    maximum_stored_keys=1000,
)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def bits(key_id: uuid.UUID, size: int = 256) -> bytes:
    """The key that the tests' AKMS makes under an ID; `size` in bits."""
    return hashlib.shake_256(key_id.bytes).digest(size // 8)


class AkmsLink:
    """The link to an AKMS: what is called on it is answered by this object."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[ServiceName, Any, bytes], Awaitable[tuple[Any, bytes]]]] = {}
        self.permitted: dict[tuple[str, frozenset[str]], Description] = {}
        self.away: ErrorCode | None = None
        self.serving = True
        self.described: list[Any] = []
        self.requested: list[Any] = []
        self.withdrawn: list[Any] = []
        self.reported: list[Any] = []
        self.inquired: list[Any] = []
        self.expected = 0
        self.known = Reported()
        self.refuses: ServiceError | None = None
        self.before_description: Callable[[], Awaitable[None]] | None = None
        self.held_for: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.came = asyncio.Event()

    id = "access"
    neighbour = AKMS
    up = True
    process = b"the AKMS's"

    @contextmanager
    def expecting(self) -> Iterator[None]:
        self.expected += 1
        try:
            yield
        finally:
            self.expected -= 1

    def permit(self, master: str, *slaves: str, **changes: Any) -> None:
        self.permitted[master, frozenset(slaves)] = msgspec.structs.replace(TERMS, **changes)

    async def call(
        self,
        operation: Operation[Any, Any],
        request: Any,
        secret: bytes = b"",
        *,
        deadline: float,
        stream: Stream = Stream.CONTROL,
    ) -> tuple[Any, bytes]:
        assert deadline > 0
        if self.away is not None:
            raise ServiceError(self.away)
        return await self._answer(operation, request), b""

    async def send(self, *arguments: Any, **named: Any) -> None:
        raise NotImplementedError

    def status(self) -> LinkStatus:
        raise NotImplementedError

    def serve(self, operation: Operation[Any, Any], handler: Any) -> None:
        self.handlers[operation.name] = handler

    async def deliver(self, operation: Operation[Any, Any], message: Any, secret: bytes = b"") -> Any:
        reply, nothing = await self.handlers[operation.name](AKMS, message, secret)
        assert nothing == b""
        if isinstance(reply, Held | Voided):
            self._hear(reply.store, reply.generation)
        return reply

    async def push(self, asked: Any, /, number: int | None = None, **changes: Any) -> tuple[Push, Any]:
        """Push fresh keys for a request to the master."""
        ids = [uuid.uuid4() for _ in range(asked.number if number is None else number)]
        push = Push(
            batch=uuid.uuid4().hex,
            request=asked.request,
            master=asked.master,
            slaves=asked.slaves,
            held_for=self.held_for,
            for_master=True,
            key_ids=ids,
            size=asked.size,
            service_class="silver",
            lifetime_ms=3_600_000,
        )
        push = msgspec.structs.replace(push, **changes)
        return push, await self.deliver(DELIVERY_PUSH, push, b"".join(bits(one, push.size) for one in push.key_ids))

    async def _answer(self, operation: Operation[Any, Any], request: Any) -> Any:
        if operation is ACCESS_DESCRIBE:
            self.described.append(request)
            answer = self.permitted.get((request.master, frozenset(request.slaves)))
            if self.before_description is not None:
                await self.before_description()
            if answer is None:
                raise ServiceError(ErrorCode.NOT_PERMITTED)
            return answer
        if operation is ACCESS_REQUEST:
            if self.refuses is not None:
                raise self.refuses
            self._hear(self.known.store, request.generation)
            self.requested.append(request)
            self.came.set()
            if self.serving:
                task = asyncio.create_task(self._serve(request))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
        elif operation is ACCESS_WITHDRAW:
            self.withdrawn.append(request)
        elif operation is ACCESS_REPORT:
            (self.inquired if request.inquiry else self.reported).append(request)
            return self._report(request)
        return Accepted()

    def _report(self, report: Report) -> Reported:
        """As an AKMS does: it remembers the store and its greatest generation, and tells what it knew before."""
        known = self.known
        if not report.inquiry:
            if known.store != report.store:
                self.known = Reported(store=report.store)
            self._hear(report.store, report.generation)
        return known

    def _hear(self, store: str, generation: int) -> None:
        if store == self.known.store and generation > self.known.generation:
            self.known = Reported(store=store, generation=generation)

    async def _serve(self, request: Any) -> None:
        await self.push(request)

    async def wait_for_request(self) -> Any:
        """The next request of the UKMS."""
        async with asyncio.timeout(5):
            await self.came.wait()
        self.came.clear()
        return self.requested[-1]


@dataclass
class Site:
    """The parts of one UKMS."""

    store: EmbeddedStore
    link: AkmsLink
    clock: Clock
    vault: Vault
    terms: Terms
    supply: Supply
    kme: Kme
    upkeep: Upkeep
    metrics: Metrics
    alarms: list[str]
    standing: Standing
    opening: Opening
    running: asyncio.Task[None]

    async def close(self) -> None:
        self.supply.close()
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            await self.running
        await self.store.close()


@dataclass
class Sites:
    """Makes UKMSs; one made again at the same place has the store of the one before."""

    directory: Path
    clock: Clock
    made: list[Site] = field(default_factory=list)

    async def make(
        self,
        *,
        policy: Policy | None = None,
        patience: float = 5.0,
        link: AkmsLink | None = None,
        store: str = "store.db",
        opened: bool = True,
    ) -> Site:
        database = await EmbeddedStore.open(
            StoreSection(path=store, sealer="key-file", key_file=store + ".key"), self.directory, SCHEMA
        )
        link = link or AkmsLink()
        metrics = Metrics(CollectorRegistry())
        vault = Vault(database, self.clock)
        standing = Standing(database)
        akms = Akms(link, standing)
        terms = Terms(database, akms.describe, self.clock)
        supply = Supply(
            vault,
            akms.request,
            terms.doubt,
            policy or Policy(0, 0, 4.0),
            metrics,
            source=random_bytes,
            clock=self.clock,
            expecting=link.expecting,
        )
        kme = Kme(KmeId("kme-a"), terms, supply, vault, metrics, standing, patience=patience, clock=self.clock)
        alarms: list[str] = []
        opening = Opening(database, akms, standing, supply, terms, metrics, alarms.append)
        upkeep = Upkeep(vault, akms, supply, standing, opening, metrics, alarms.append)
        Deliveries(supply, terms, vault, standing).serve(link)
        await terms.load()
        running = asyncio.create_task(supply.run())
        await asyncio.sleep(0)
        if opened:
            await opening.open()
        site = Site(
            database,
            link,
            self.clock,
            vault,
            terms,
            supply,
            kme,
            upkeep,
            metrics,
            alarms,
            standing,
            opening,
            running,
        )
        self.made.append(site)
        return site


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sites(tmp_path: Path, clock: Clock) -> AsyncIterator[Sites]:
    made = Sites(tmp_path, clock)
    yield made
    for site in made.made:
        await site.close()


@pytest.fixture
async def site(sites: Sites) -> Site:
    """A UKMS at which SAE a may share keys with b, and with b and c."""
    one = await sites.make()
    one.link.permit("a", "b")
    one.link.permit("a", "b", "c")
    return one


@pytest.fixture
def key_bits() -> Callable[..., bytes]:
    """The bits that the AKMS makes under a key ID."""
    return bits


@dataclass(frozen=True)
class Certificates:
    """Files of a small authority: `ca.pem`, and NAME.pem and NAME.key for each name."""

    directory: Path

    def path(self, name: str) -> str:
        return str(self.directory / name)


def _issue(directory: Path, name: str, authority: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None) -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority[0].subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if authority:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
        ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority[1].public_key()), critical=False)
    else:
        builder = builder.add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
        )
    certificate = builder.sign(authority[1] if authority else key, hashes.SHA256())
    stem = name if authority else "ca"
    (directory / f"{stem}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    secret = directory / f"{stem}.key"
    secret.touch(mode=0o600)
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


@pytest.fixture(scope="session")
def certificates() -> Iterator[Certificates]:
    directory = Path(tempfile.mkdtemp(prefix="ukms-pki-"))
    authority = _issue(directory, "test authority", None)
    for name in ("kme-a", "a", "b", "c", "z", "no sae"):
        _issue(directory, name, authority)
    yield Certificates(directory)
    shutil.rmtree(directory)


@pytest.fixture
async def serve(certificates: Certificates) -> AsyncIterator[Callable[..., Awaitable[SaeServer]]]:
    servers: list[SaeServer] = []

    async def start(site: Site, maximum_connections: int = 16) -> SaeServer:
        tls = classic_server(
            Path(certificates.path("kme-a.pem")),
            Path(certificates.path("kme-a.key")),
            Path(certificates.path("ca.pem")),
        )
        server = SaeServer(site.kme, site.metrics, tls, "127.0.0.1:0", maximum_connections=maximum_connections)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.drain(0.0)
        await server.close()
