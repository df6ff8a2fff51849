"""The services as simulated processes: what each role's `run` puts together, without sockets and files."""

from __future__ import annotations

import asyncio
import datetime
import functools
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, MetaData

from aaa import schema as aaa_schema
from aaa.authorisation import GrantPolicy
from aaa.directory import replace
from aaa.import_file import parse
from aaa.service import AaaService
from keyhaul.config.services import LinkSection, ModuleSection, PoolSection
from keyhaul.identity.names import KmeId, NodeId, Role, ServiceName
from keyhaul.link.link import Link
from keyhaul.link.links import Links
from keyhaul.runtime.interface import Take
from keyhaul.store.interface import StoreUnavailable
from keyhaul.transport.interface import Routes
from services.akms import tables as akms_tables
from services.akms.service import AccessKms, Terms
from services.ukms.access import Akms, Deliveries
from services.ukms.buffer import Policy
from services.ukms.kme import Kme
from services.ukms.metrics import Metrics
from services.ukms.opening import Opening
from services.ukms.schema import SCHEMA as UKMS_SCHEMA
from services.ukms.standing import Standing
from services.ukms.supply import Supply
from services.ukms.terms import Terms as UserTerms
from services.ukms.upkeep import Upkeep
from services.ukms.vault import Vault
from tests.simulator.air import Server, SimulatedCalls
from tests.simulator.disk import Disk, SimulatedStore
from tests.simulator.loop import Died, Life
from tests.simulator.modules import SimulatedModule
from tests.simulator.shortcuts import CheapCertificate, CheapSigningKey, signing_key

if TYPE_CHECKING:
    from tests.simulator.world import World

DOMAIN = "simulated.example"


def name(service: str) -> ServiceName:
    """A service's name from its id."""
    role, _, node = service.partition("-")
    return ServiceName(DOMAIN, Role(role), NodeId(node))


def private_key(service: str, *, cheap: bool) -> MLDSA65PrivateKey:
    """Every service has one key here, the same in every run."""
    return signing_key(service.encode().ljust(32, b"."), cheap=cheap)


@functools.cache
def certificate(service: str, *, cheap: bool) -> x509.Certificate:
    """Its certificate."""
    key = private_key(service, cheap=cheap)
    if isinstance(key, CheapSigningKey):
        return cast(x509.Certificate, CheapCertificate(key.public_key()))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, start, start + datetime.timedelta(days=1))
    return builder.sign(key, None)


class SimulatedRuntime:
    """The process around a role: a task that fails ends it."""

    def __init__(self, process: SimulatedProcess) -> None:
        self._process = process
        self.registry = CollectorRegistry()

    def task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """See `Runtime`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def alarm(self, name: str, **facts: Any) -> None:
        """See `Runtime`."""
        self._process.alarms[name] += 1
        self._process.world.alarms[name] += 1

    def on_reload(self, tables: Iterable[str], take: Take) -> None:
        """See `Runtime`."""
        del tables, take  # nobody changes a configuration here

    def ready(self) -> None:
        """See `Runtime`."""

    def health(self, check: Callable[[], dict[str, Any]]) -> None:
        """See `Runtime`."""

    def command(self, name: str, answer: Any) -> None:
        """See `Runtime`."""

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._process.failed(f"the task {task.get_name()}", error)


class SimulatedProcess:
    """One service through all its lives."""

    metadata: MetaData

    def __init__(self, world: World, service: str) -> None:
        self.world = world
        self.name = name(service)
        self.chance = Random(f"{world.seed} {service}")
        self.disk = self.make_disk()
        self.life: Life | None = None
        self.server: Server | None = None
        self.serves = False
        self.alarms: Counter[str] = Counter()
        self.lives = 0
        self.runtime: SimulatedRuntime
        self.store: SimulatedStore
        self.routes: Routes
        self._wall_offset = 1_790_000_000.0
        self._wall_rate = 1.0
        self._clock_offset = 0.0
        self._clock_rate = 1.0
        self.wall_stepped = 0.0
        """Seconds by which the wall clock was ever put forward or back, in all."""

    def make_disk(self) -> Disk:
        """The disk of its store."""
        return Disk(self.metadata, self.chance.randbytes(16).hex(), lazy=self.world.settings.lazy_disks)

    def source(self, count: int) -> bytes:
        """Random bits of this process."""
        return self.chance.randbytes(count)

    def clock(self) -> float:
        """Monotonic seconds of this node."""
        return asyncio.get_running_loop().time() * self._clock_rate + self._clock_offset

    def wall(self) -> float:
        """Seconds since 1970, as this node believes."""
        return asyncio.get_running_loop().time() * self._wall_rate + self._wall_offset

    def step_wall(self, seconds: float) -> None:
        """Put the wall clock forward or back."""
        self._wall_offset += seconds
        self.wall_stepped += abs(seconds)

    def drift_wall(self, rate: float) -> None:
        """Let the wall clock go at another rate from now on."""
        before = self.wall()
        self._wall_rate = rate
        self._wall_offset += before - self.wall()

    def drift(self, rate: float) -> None:
        """Let the monotonic clock go at another rate from now on."""
        before = self.clock()
        self._clock_rate = rate
        self._clock_offset += before - self.clock()

    def start(self) -> None:
        """Begin a life."""
        assert self.life is None
        self.lives += 1
        self.life = life = Life(self.name.id)
        self.serves = False
        self.runtime = SimulatedRuntime(self)
        self.store = SimulatedStore(self.disk, self.chance, lambda when: self.world.faults.commit(self, when, life))
        self.routes = Routes()
        self.server = Server(self.name, self.routes, self._handler_failed, self.runtime.alarm)
        life.ask(self._begin()).add_done_callback(self._begun)

    def crash(self) -> None:
        """End this life at once."""
        if self.life is None:
            return
        self.life.end()
        self.life = None
        self.disk.power_cut()
        self.serves = False
        self.world.air.gone(self.name.id)

    def failed(self, what: str, error: BaseException) -> None:
        """A task of the service failed: the process ends, and its supervisor starts it again."""
        if self.life is None:
            return
        if not _is_disk_failure(error):
            self.world.oracle.finding("task-failed", f"{self.name.id}: {what}: {_told(error)}")
        self.crash()
        self.world.later(1.0, self.revive)

    def revive(self) -> None:
        """Start again unless it runs."""
        if self.life is None:
            self.start()

    def calls(self, peer: str) -> SimulatedCalls:
        """The way to another service."""
        return SimulatedCalls(self.world.air, self, name(peer))

    def add_link(self, links: Links, neighbour: str) -> Link:
        """The link to a neighbour, by the world's plan."""
        own = self.name.id
        plan = self.world.plan(own, neighbour)
        module = ModuleSection(url="", trust="", kme="", sae=f"sae-{own}", peer_sae=f"sae-{neighbour}")
        section = LinkSection(
            id=plan.id,
            neighbour=neighbour,
            initiator=plan.initiator == own,
            peer_link_key="",
            suites=cast(Any, plan.suites),
            floor=cast(Any, plan.floor),
            rate=plan.rate,
            pool=plan.pool,
            reserve=plan.reserve,
            rotate_messages=plan.rotate_messages,
            module=module,
        )
        added = links.add(
            section,
            self.calls(neighbour),
            self.world.private_key(neighbour).public_key(),
            SimulatedModule(plan.modules, self.chance),
        )
        return cast(Link, added)

    def make_links(self) -> Links:
        """The links of this life, to which neighbours are added."""
        return Links(
            self.name,
            self.routes,
            self.store,
            self.world.private_key(self.name.id),
            self.runtime,
            source=self.source,
            clock=self.clock,
            directory=Path(),
        )

    async def _begin(self) -> None:
        await asyncio.sleep(self.chance.uniform(0.01, 0.3))
        await self.begin()
        self.world.begun(self)
        self.serves = True

    async def begin(self) -> None:
        """Put the service together and start it; a role does it here."""
        raise NotImplementedError

    def _begun(self, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None and not isinstance(error, Died):
            self.failed("the start", error)

    def _handler_failed(self, operation: str, error: Exception) -> None:
        if not _is_disk_failure(error):
            self.world.oracle.finding("handler-failed", f"{self.name.id}: {operation}: {_told(error)}")


def _is_disk_failure(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_disk_failure(each) for each in error.exceptions)
    return isinstance(error, StoreUnavailable)


def _told(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_told(each) for each in error.exceptions)
    trace = error.__traceback__
    place = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if "tests/simulator" not in code.co_filename and ".venv" not in code.co_filename:
            place = f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}"
        trace = trace.tb_next
    return f"{type(error).__name__}({error}) at {place}"


class AaaProcess(SimulatedProcess):
    """AAA with a fixed directory."""

    metadata = aaa_schema.metadata

    def __init__(self, world: World, service: str) -> None:
        super().__init__(world, service)

        def fill(connection: Connection) -> None:
            rows = [{"name": key, "value": value} for key, value in aaa_schema.COUNTERS.items()]
            connection.execute(aaa_schema.counters.insert(), rows)
            replace(connection, parse(world.directory.encode(), Path("directory.toml")), 0)

        for _, error in self.disk.transact(fill):
            assert error is None

    async def begin(self) -> None:
        """See `AaaRole`."""
        policy = GrantPolicy(DOMAIN, 86_400, self.world.allowance)
        service = AaaService(
            cast(Any, self.store),
            policy,
            self.world.private_key("grants"),
            3_600.0,
            self.runtime,
            source=self.source,
            wall=self.wall,
            clock=self.clock,
        )
        service.serve(self.routes)
        await service.load()
        self.runtime.task(service.count_epochs(), "epochs")


class AkmsProcess(SimulatedProcess):
    """An access KMS."""

    metadata = akms_tables.METADATA
    links: Links
    service: AccessKms

    async def begin(self) -> None:
        """See `AkmsRole`."""
        own = self.name.id
        links = self.links = self.make_links()
        for neighbour in self.world.neighbours(own):
            self.add_link(links, neighbour)
        world = self.world
        peers = {other: self.calls(other) for other in world.services if other.startswith("akms") and other != own}
        peers["akms-9"] = self.calls("akms-9")
        terms = Terms(world.key_lifetime, world.guard, 256, PoolSection(minimum=world.cn_minimum, maximum=65_536))
        service = self.service = AccessKms(
            self.name,
            terms,
            self.store,
            links,
            self.calls(f"ckms-{self.name.node}"),
            self.calls(world.aaa),
            peers,
            world.private_key("grants").public_key(),
            world.private_key(own),
            self.runtime,
            source=self.source,
            clock=self.clock,
            wall=self.wall,
        )
        service.serve(self.routes)
        links.on_session(lambda link: service.returned(link.neighbour.id))
        await links.start()
        await service.start()


class UkmsProcess(SimulatedProcess):
    """A user KMS."""

    metadata = UKMS_SCHEMA.metadata
    kme: Kme
    akms: Akms
    links: Links

    async def begin(self) -> None:
        """See `UkmsRole`."""
        links = self.links = self.make_links()
        (akms_id,) = self.world.neighbours(self.name.id)
        link = self.add_link(links, akms_id)
        metrics = Metrics(self.runtime.registry)
        vault = Vault(self.store, self.wall)
        standing = Standing(self.store)
        akms = self.akms = Akms(link, standing)
        terms = UserTerms(self.store, akms.describe, self.wall)
        supply = Supply(
            vault,
            akms.request,
            terms.doubt,
            Policy(self.world.buffer_minimum, 256, 4.0),
            metrics,
            source=self.source,
            clock=self.wall,
            expecting=link.expecting,
        )
        name = KmeId(f"kme-{self.name.node}")
        kme = Kme(name, terms, supply, vault, metrics, standing, patience=10.0, clock=self.wall)
        opening = Opening(self.store, akms, standing, supply, terms, metrics, self.runtime.alarm)
        upkeep = Upkeep(vault, akms, supply, standing, opening, metrics, self.runtime.alarm)
        await terms.load()
        Deliveries(supply, terms, vault, standing).serve(link)
        links.on_store_older(link.id, opening.found_older)
        links.on_session(lambda _link: upkeep.new_session())
        self.runtime.task(supply.run(), "supply")
        self.runtime.task(upkeep.run(), "upkeep")
        await links.start()
        self.kme = kme
