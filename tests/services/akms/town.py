"""Two AKMSs in memory with real stores: calls that may be lost, nodes that die at any step, fakes around them."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from keyhaul.config.services import PoolSection, StoreSection
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.keys.grants import GRANT_VERSION, sign
from keyhaul.link.interface import LinkCalls, LinkStatus
from keyhaul.randomness import identifier
from keyhaul.runtime.interface import Take
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import FieldCipher, StoreStatus
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.messages.aaa import Changes, ChangesReply, Grant, Recorded, Revocation, Usage
from keyhaul.transport.messages.access import (
    DeliveryFailed,
    Held,
    Purpose,
    Push,
    Report,
    RequestKeys,
    Revoke,
    Revoked,
    Settle,
    States,
)
from keyhaul.transport.messages.base import Accepted, ErrorCode, Message, ServiceError
from keyhaul.transport.messages.link import Stream
from keyhaul.transport.messages.peer import BatchState, Query, SlaveSite, Voided, VoidKeys
from keyhaul.transport.messages.relay import Deliver, Outcome, RelayFailure, Submit
from keyhaul.transport.operations import (
    AAA_AUTHORISE,
    AAA_CHANGES,
    AAA_USAGE,
    ACCESS_REPORT,
    ACCESS_REQUEST,
    CARRIER_DELIVER,
    CARRIER_EXPECT,
    CARRIER_OUTCOME,
    Operation,
    Reply,
    Request,
)
from services.akms.pace import Pace
from services.akms.service import AccessKms, Terms
from services.akms.tables import SCHEMA

DOMAIN = "carrier.example"
Result = TypeVar("Result")
PACE = Pace(
    generations=0.01,
    changes=0.05,
    accounting=0.0,
    accounting_retry=0.02,
    backoff=0.01,
    backoff_limit=0.05,
    call=0.5,
    authorise=0.3,
    patience=0.2,
    over=0.2,
    trace_limit=0.05,
    settle=0.0,
    purge=0.05,
)
COLD = PoolSection(minimum=0, maximum=0)
WARM = PoolSection(minimum=4096, maximum=131_072)


def name(service: str) -> ServiceName:
    role, _, node = service.partition("-")
    return ServiceName(DOMAIN, Role(role), NodeId(node))


def certificate(key: MLDSA65PrivateKey, service: str) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), 1, start, start + datetime.timedelta(days=3650)
    )
    return builder.sign(key, None)


class Process:
    """A fake runtime: tasks whose failures are kept, alarms that are counted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.failures: list[BaseException] = []
        self.alarms: list[str] = []

    def task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    def alarm(self, name: str, **facts: Any) -> None:
        self.alarms.append(name)

    def on_reload(self, tables: Iterable[str], take: Take) -> None:
        raise AssertionError("only a restart brings another configuration")

    def ready(self) -> None:
        return None

    def health(self, check: Callable[[], dict[str, Any]]) -> None:
        return None

    def command(self, name: str, answer: Any) -> None:
        return None


class MortalStore:
    """The node's store; a dead node neither writes nor hears that it has written."""

    def __init__(self, node: Akms, store: EmbeddedStore) -> None:
        self._node = node
        self.real = store

    @property
    def store_id(self) -> str:
        return self.real.store_id

    @property
    def opened_generation(self) -> int:
        return self.real.opened_generation

    @property
    def generation(self) -> int:
        return self.real.generation

    async def renew(self, change: Callable[[Connection], Result]) -> Result:
        return await self.real.renew(change)

    @property
    def fields(self) -> FieldCipher:
        return self.real.fields

    async def write(self, change: Callable[[Connection], Result]) -> Result:
        await self._node.step("before write")
        result = await self.real.write(change)
        await self._node.step("after write")
        return result

    async def read(self, query: Callable[[Connection], Result]) -> Result:
        await self._node.step("read", counted=False)
        return await self.real.read(query)

    async def status(self) -> StoreStatus:
        return await self.real.status()

    async def close(self) -> None:
        await self.real.close()


class Akms:
    """One AKMS that can die and start again on the same store."""

    def __init__(self, town: Town, service: str, directory: Path) -> None:
        self.town = town
        self.name = name(service)
        self.directory = directory
        self.key = MLDSA65PrivateKey.generate()
        self.certificate = certificate(self.key, service)
        self.died = asyncio.Event()
        self.died.set()
        self.steps = 0
        self.ahead = 0.0
        """Seconds by which the node's wall clock is wrong."""
        self.die_at: int | None = None
        self.process = Process()
        self.routes = Routes()
        self.links: MemoryLinks
        self.service: AccessKms
        self.store: MortalStore

    async def step(self, what: str, *, counted: bool = True) -> None:
        if counted:
            self.steps += 1
            if self.steps == self.die_at:
                self.died.set()
        if self.died.is_set():
            await asyncio.Event().wait()

    async def start(self) -> None:
        section = StoreSection(path="akms.db", key_file="akms.key")
        self.store = MortalStore(self, await EmbeddedStore.open(section, self.directory, SCHEMA))
        self.died.clear()
        self.die_at = None
        self.process.registry = CollectorRegistry()
        self.routes = Routes()
        self.links = MemoryLinks(self)
        peers = {other: MemoryCalls(self.town, self, other) for other in self.town.akms if other != self.name.id}
        self.service = AccessKms(
            self.name,
            self.town.terms,
            self.store,
            self.links,
            MemoryCalls(self.town, self, f"ckms-{self.name.node}"),
            MemoryCalls(self.town, self, "aaa-0"),
            peers,
            self.town.aaa.key.public_key(),
            self.key,
            self.process,
            pace=PACE,
            wall=lambda: time.time() + self.ahead,
        )
        self.service.serve(self.routes)
        await self.service.start()

    async def stop(self) -> None:
        self.died.set()
        await self.service.close()
        await self.store.close()

    async def restart(self) -> None:
        await self.stop()
        await self.start()
        for ukms in self.town.ukms.values():
            if ukms.akms == self.name.id:
                await ukms.report()


class MemoryCalls:
    """Calls from one AKMS to another service of the town."""

    def __init__(self, town: Town, own: Akms, peer: str) -> None:
        self._town = town
        self._own = own
        self._peer = name(peer)

    @property
    def peer(self) -> ServiceName:
        return self._peer

    @property
    def connected(self) -> bool:
        return True

    @contextmanager
    def expecting(self) -> Iterator[None]:
        between = (self._own.name.id, self._peer.id)
        self._town.expected[between] += 1
        self._town.watched.add(between)
        try:
            yield
        finally:
            self._town.expected[between] -= 1

    async def lost(self) -> None:
        await self._town.akms[self._peer.id].died.wait()

    async def peer_certificate(self) -> x509.Certificate | None:
        return self._town.akms[self._peer.id].certificate

    async def exchange(
        self, path: str, request: Message, reply: type[Reply] | None, *, deadline: float
    ) -> Reply | None:
        raise NotImplementedError

    async def call(self, operation: Operation[Request, Reply], request: Request, *, deadline: float) -> Reply:
        await self._own.step(f"call {operation.name}")
        target = self._peer.id
        if target.startswith("akms"):
            work = self._town.to_akms(self._own.name, self._own.certificate, target, operation, request)
        elif target.startswith("ckms"):
            work = cast(Any, self._town.to_ckms(self._own, operation, request))
        else:
            work = cast(Any, self._town.aaa.call(operation, request))
        reply = await self._town.travel(operation, work, deadline)
        await self._own.step(f"answered {operation.name}")
        return cast(Reply, reply)


class MemoryLinks:
    """The access links of one AKMS."""

    def __init__(self, node: Akms) -> None:
        self.node = node
        self.handlers: dict[str, Any] = {}

    def to(self, service_id: str) -> LinkCalls:
        ukms = self.node.town.ukms[service_id]
        if ukms.akms != self.node.name.id:
            raise KeyError(service_id)
        return MemoryLink(self.node, ukms)

    def all(self) -> list[LinkCalls]:
        return [self.to(ukms.id) for ukms in self.node.town.ukms.values() if ukms.akms == self.node.name.id]

    def serve(self, operation: Operation[Request, Reply], handler: Any) -> None:
        self.handlers[operation.name] = handler


class MemoryLink:
    """One access link, seen from the AKMS."""

    def __init__(self, node: Akms, ukms: Ukms) -> None:
        self._node = node
        self._ukms = ukms

    @property
    def id(self) -> str:
        return f"access-{self._ukms.id}"

    @property
    def neighbour(self) -> ServiceName:
        return name(self._ukms.id)

    @property
    def up(self) -> bool:
        return not self._ukms.away

    @property
    def process(self) -> bytes:
        return b"" if self._ukms.away else self._ukms.process

    async def call(
        self,
        operation: Operation[Request, Reply],
        request: Request,
        secret: bytes = b"",
        *,
        deadline: float,
        stream: Stream = Stream.CONTROL,
    ) -> tuple[Reply, bytes]:
        await self._node.step(f"call {operation.name}")
        work = self._ukms.handle(operation, request, secret)
        reply = await self._node.town.travel(operation, work, deadline)
        await self._node.step(f"answered {operation.name}")
        return cast(Reply, reply), b""

    async def send(self, *arguments: Any, **options: Any) -> None:
        raise NotImplementedError

    def expecting(self) -> nullcontext[None]:
        return nullcontext()

    def serve(self, operation: Operation[Request, Reply], handler: Any) -> None:
        raise NotImplementedError

    def status(self) -> LinkStatus:
        raise NotImplementedError


@dataclass
class Copy:
    bits: bytes
    state: str
    batch: str


class Ukms:
    """A UKMS that keeps what it is given, and knows what it asked for."""

    def __init__(self, town: Town, ukms: str, akms: str) -> None:
        self.town = town
        self.id = ukms
        self.akms = akms
        self.away = False
        self.generation = 0
        """Told with what has a field for it."""
        self.revoked: list[Revoke] = []
        self.requests: dict[str, asyncio.Future[list[UUID]]] = {}
        self.failures: dict[str, DeliveryFailed] = {}
        self.pushed: list[Push] = []
        self.new_store()

    def new_store(self) -> None:
        """Another process, which has a store of its own and nothing in it."""
        self.process = identifier().encode()
        self.store = identifier()
        self.copies: dict[tuple[str, str], dict[UUID, Copy]] = defaultdict(dict)
        self.void: set[str] = set()
        self.unsettled: set[str] = set()

    async def ask(self, master: str, slaves: list[str], number: int = 1, size: int = 256, **options: Any) -> list[UUID]:
        """Request keys as the UKMS of a master; returns their ids when they are here."""
        request = identifier()
        self.requests[request] = asyncio.get_running_loop().create_future()
        await self.send(request, master, slaves, number, size, **options)
        return await asyncio.wait_for(self.requests[request], 20)

    async def send(
        self,
        request: str,
        master: str,
        slaves: list[str],
        number: int,
        size: int,
        seconds: float = 5.0,
        secret: bytes = b"",
    ) -> None:
        message = RequestKeys(
            request=request,
            master=master,
            slaves=slaves,
            number=number,
            size=size,
            purpose=Purpose.DEMAND,
            remaining_ms=int(seconds * 1000),
            generation=self.generation,
        )
        await self.up(ACCESS_REQUEST, message, secret)

    async def report(self) -> None:
        await self.up(ACCESS_REPORT, Report(store=self.store, unsettled=sorted(self.unsettled)))

    async def up(self, operation: Operation[Request, Reply], message: Request, secret: bytes = b"") -> Reply:
        node = self.town.akms[self.akms]
        reply, _ = await node.links.handlers[operation.name](name(self.id), message, secret)
        return cast(Reply, reply)

    async def handle(self, operation: Operation[Any, Any], request: Message, secret: bytes) -> Message:
        if self.away:
            raise ServiceError(ErrorCode.UNREACHABLE)
        match request:
            case Push():
                return self._push(request, secret)
            case DeliveryFailed():
                self.failures[request.request] = request
                future = self.requests.get(request.request)
                if future is not None and not future.done():
                    future.set_exception(ServiceError(ErrorCode.EXHAUSTED, request.reason))
                return Accepted()
            case VoidKeys():
                assert not request.request
                return self._void(request)
            case Query():
                assert not request.requests
                return States(states=[self._state(batch) for batch in request.batches])
            case Settle():
                self.unsettled -= set(request.batches)
                return Accepted()
            case Revoke():
                self.revoked.append(request)
                return Revoked()
        raise AssertionError(operation.name)

    def _push(self, push: Push, secret: bytes) -> Held:
        length = push.size // 8
        assert len(secret) == length * len(push.key_ids)
        assert push.lifetime_ms > 0
        self.pushed.append(push)
        if push.batch in self.void:
            raise ServiceError(ErrorCode.CONFLICT, "void")
        if push.for_master:
            future = self.requests.get(push.request)
            if future is None:
                raise ServiceError(ErrorCode.NOT_FOUND, "not asked for")
            if not future.done():
                future.set_result(push.key_ids)
        holders = [("slave", slave) for slave in push.held_for]
        holders += [("master", push.master)] if push.for_master else []
        for holder in holders:
            for index, key_id in enumerate(push.key_ids):
                bits = secret[index * length : (index + 1) * length]
                known = self.copies[holder].setdefault(key_id, Copy(bits, "held", push.batch))
                assert known.bits == bits
                assert known.batch == push.batch
        if push.held_for and not push.for_master:
            self.unsettled.add(push.batch)
        return Held(batch=push.batch, store=self.store, generation=self.generation)

    def _void(self, request: VoidKeys) -> Voided:
        known = [
            (holder, key_id, copy)
            for holder, copies in self.copies.items()
            for key_id, copy in copies.items()
            if copy.batch == request.batch
        ]
        if not known:
            self.void.add(request.batch)
            return Voided(voided=request.key_ids, store=self.store)
        wanted = set(request.key_ids) or {key_id for _, key_id, _ in known}
        issued = {key_id for holder, key_id, copy in known if holder[0] == "master" and copy.state == "issued"}
        for _, key_id, copy in known:
            if key_id in wanted - issued and copy.state == "held":
                copy.state = "void"
        if not issued:
            self.void.add(request.batch)
            self.unsettled.discard(request.batch)
        issued |= {key_id for _, key_id, copy in known if copy.state == "issued"}
        return Voided(voided=sorted(wanted - issued), issued=sorted(wanted & issued), store=self.store)

    def _state(self, batch: str) -> BatchState:
        holders = {
            side for (side, _), copies in self.copies.items() if any(copy.batch == batch for copy in copies.values())
        }
        if batch in self.void:
            return BatchState.VOID
        if "master" in holders:
            return BatchState.RELEASED
        return BatchState.HELD if holders else BatchState.UNKNOWN

    def issue(self, master: str, key_ids: list[UUID]) -> None:
        for key_id in key_ids:
            assert self.copies["master", master][key_id].state == "held"
            self.copies["master", master][key_id].state = "issued"

    def usable(self, side: str, sae: str) -> dict[UUID, bytes]:
        """Keys that an SAE has or may still get."""
        return {key_id: copy.bits for key_id, copy in self.copies[side, sae].items() if copy.state != "void"}


class Aaa:
    """AAA with a fixed directory."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.key = MLDSA65PrivateKey.generate()
        self.away = False
        self.epoch = 1
        self.revocations: list[Revocation] = []
        self.service_class = "silver"
        self.allowance = 10_000
        self.authorised = 0
        self.records: dict[str, tuple[str, frozenset[UUID]]] = {}
        self.void: set[UUID] = set()
        self.expired: set[UUID] = set()
        self.refused_slaves: set[str] = set()
        self.ukms_of: dict[str, str] = {}
        """The master's, by grant."""
        self.names: list[str] = []
        """Of requests for grants."""
        self.terms: dict[str, Any] = {}
        """What all contracts say beside the usual."""
        self.terms_of: dict[str, dict[str, Any]] = {}
        """And those of single masters."""

    async def call(self, operation: Operation[Any, Any], request: Any) -> Message:
        if self.away:
            raise ServiceError(ErrorCode.UNREACHABLE)
        if operation is AAA_AUTHORISE:
            self.authorised += 1
            self.names.append(request.request)
            directory = self.town.directory
            slaves = request.slaves
            if any(slave not in directory or slave in self.refused_slaves for slave in slaves):
                raise ServiceError(ErrorCode.NOT_PERMITTED)
            if directory.get(request.master, ("", ""))[0] != request.ukms:
                raise ServiceError(ErrorCode.NOT_PERMITTED)
            return sign(self.grant(request.master, slaves), self.key)
        if operation is AAA_CHANGES:
            assert isinstance(request, Changes)
            return ChangesReply(
                serial=len(self.revocations), epoch=self.epoch, revocations=self.revocations[request.since :]
            )
        assert operation is AAA_USAGE
        assert isinstance(request, Usage)
        for record in request.records:
            known = self.records.setdefault(record.batch, (record.grant, frozenset(record.key_ids)))
            assert known == (record.grant, frozenset(record.key_ids))
        for change in request.changes:
            if change.batch not in self.records:
                raise ServiceError(ErrorCode.NOT_PERMITTED)
            grant, key_ids = self.records[change.batch]
            if change.ukms not in ("", self.ukms_of[grant]):
                raise ServiceError(ErrorCode.NOT_PERMITTED)
            assert set(change.key_ids) <= key_ids
            (self.void if change.change == "void" else self.expired).update(change.key_ids)
        return Recorded()

    def grant(self, master: str, slaves_of: list[str], **changed: Any) -> Grant:
        ukms, akms = self.town.directory[master]
        fields: dict[str, Any] = {
            "v": GRANT_VERSION,
            "id": identifier(),
            "domain": DOMAIN,
            "master": master,
            "master_ukms": ukms,
            "master_akms": akms,
            "slaves": [SlaveSite(slave, *self.town.directory[slave]) for slave in slaves_of],
            "service_class": self.service_class,
            "loopback": True,
            "sizes": [],
            "default_size": 256,
            "minimum_size": 64,
            "maximum_size": 1024,
            "maximum_keys_per_request": 128,
            "allowance": self.allowance,
            "lifetime_s": 86_400,
            "epoch": self.epoch,
            "target_kme": "kme",
        }
        self.ukms_of[fields["id"]] = ukms
        return Grant(**{**fields, **self.terms, **self.terms_of.get(master, {}), **changed})


@dataclass
class Town:
    """The services, and what happens to messages between them."""

    directory_path: Path
    terms: Terms = field(default_factory=lambda: Terms(pool=COLD))
    akms: dict[str, Akms] = field(default_factory=dict)
    ukms: dict[str, Ukms] = field(default_factory=dict)
    directory: dict[str, tuple[str, str]] = field(default_factory=dict)
    lose_answer: list[str] = field(default_factory=list)
    """Operations whose next answers are lost, after they were carried out."""
    carrier: list[Callable[[bytes], bytes | None]] = field(default_factory=list)
    """What becomes of the next CN batches: other bits, or None for a failure."""
    expected: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Who waits for messages of whom now."""
    watched: set[tuple[str, str]] = field(default_factory=set)
    """Who ever did."""
    shares: dict[str, int] = field(default_factory=lambda: {"split": 2})
    """Over how many paths the carrier brings batches of a class, where it is not one."""
    announced: list[tuple[str, str]] = field(default_factory=list)
    """Batches of class split that an AKMS told its CKMS of."""
    unexpecting: list[ErrorCode] = field(default_factory=list)
    """What is answered to the next of these."""
    relayed: int = 0
    log: list[str] = field(default_factory=list)
    submitted: list[Submit] = field(default_factory=list)
    _work: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.aaa = Aaa(self)

    async def open(self) -> None:
        for node in ("1", "2"):
            path = self.directory_path / node
            path.mkdir()
            self.akms[f"akms-{node}"] = Akms(self, f"akms-{node}", path)
        for ukms, akms in (("ukms-1", "akms-1"), ("ukms-11", "akms-1"), ("ukms-2", "akms-2"), ("ukms-22", "akms-2")):
            self.ukms[ukms] = Ukms(self, ukms, akms)
            self.directory[f"sae-{ukms[5:]}a"] = (ukms, akms)
            self.directory[f"sae-{ukms[5:]}b"] = (ukms, akms)
        for started in self.akms.values():
            await started.start()
        for reporting in self.ukms.values():
            await reporting.report()

    async def close(self) -> None:
        for node in self.akms.values():
            await node.stop()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    @property
    def a(self) -> Akms:
        return self.akms["akms-1"]

    @property
    def b(self) -> Akms:
        return self.akms["akms-2"]

    async def travel(self, operation: Operation[Any, Any], work: Coroutine[Any, Any, Any], deadline: float) -> Any:
        """Carry out a call; its answer may be lost."""
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        self.log.append(operation.name)
        try:
            async with asyncio.timeout(deadline):
                reply = await asyncio.shield(task)
        except TimeoutError:
            task.cancel()
            raise ServiceError(ErrorCode.DEADLINE) from None
        if operation.name in self.lose_answer:
            self.lose_answer.remove(operation.name)
            raise ServiceError(ErrorCode.UNREACHABLE, "answer lost")
        return reply

    async def to_akms(
        self,
        caller: ServiceName,
        certificate: x509.Certificate,
        target: str,
        operation: Operation[Any, Any],
        request: Any,
    ) -> Any:
        """Call a handler of an AKMS as some peer, over the wire's encoding."""
        node = self.akms[target]
        if node.died.is_set():
            raise ServiceError(ErrorCode.UNREACHABLE, "dead")
        route = node.routes.find(operation.path)
        assert route is not None, operation.name
        message = msgspec.json.decode(msgspec.json.encode(request), type=operation.request)
        handling = asyncio.get_running_loop().create_task(cast(Any, route.handler(Peer(caller, certificate), message)))
        death = asyncio.get_running_loop().create_task(node.died.wait())
        self._work.add(handling)
        handling.add_done_callback(self._work.discard)
        try:
            await asyncio.wait([handling, death], return_when=asyncio.FIRST_COMPLETED)
            if not handling.done() or handling.cancelled():
                raise ServiceError(ErrorCode.UNREACHABLE, "died")
            return handling.result()
        finally:
            death.cancel()
            if not handling.done():
                handling.cancel()

    async def to_ckms(self, node: Akms, operation: Operation[Any, Any], request: Any) -> Accepted:
        """Call the CKMS of a node."""
        if operation is CARRIER_EXPECT:
            if self.unexpecting:
                raise ServiceError(self.unexpecting.pop(0))
            self.announced.append((node.name.id, request.batch))
            return Accepted()
        return await self.carry(node, request)

    async def carry(self, node: Akms, submit: Submit) -> Accepted:
        """The carrier: takes a batch and brings it to the AKMS at its destination."""
        self.relayed += 1
        self.submitted.append(submit)
        task = asyncio.get_running_loop().create_task(self._relay(node, submit))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return Accepted()

    async def _relay(self, node: Akms, submit: Submit) -> None:
        bits: bytes | None = self.carrier.pop(0)(submit.bits) if self.carrier else submit.bits
        failure = RelayFailure.NO_PATH if bits is None else None
        other = submit.destination.replace("ckms", "akms")
        shares = self.shares.get(submit.service_class, 1)
        if bits is not None and shares > 1 and not await self._expected(other, submit):
            bits, failure = None, RelayFailure.REFUSED
        try:
            if bits is not None:
                message = Deliver(batch=submit.batch, bits=bits, shares=shares)
                await self.to_akms(name(submit.destination), node.certificate, other, CARRIER_DELIVER, message)
        except ServiceError:
            failure = RelayFailure.UNREACHABLE
        try:
            outcome = Outcome(batch=submit.batch, failure=failure)
            ckms = name(f"ckms-{node.name.node}")
            await self.to_akms(ckms, node.certificate, node.name.id, CARRIER_OUTCOME, outcome)
        except ServiceError:
            return

    async def _expected(self, akms: str, submit: Submit) -> bool:
        """Whether the AKMS at the end tells its CKMS of a batch of class split, which waits for that for a while."""
        end = asyncio.get_running_loop().time() + 0.3
        while submit.service_class == "split" and (akms, submit.batch) not in self.announced:
            if asyncio.get_running_loop().time() > end:
                return False
            await asyncio.sleep(0.005)
        return True

    def check(self, master: str, slaves: list[str]) -> None:
        """The oracle: both sides can use the same keys, each in exactly one record, and no task failed."""
        mine = self.ukms[self.directory[master][0]].usable("master", master)
        for slave in slaves:
            theirs = self.ukms[self.directory[slave][0]].usable("slave", slave)
            assert theirs == mine, f"{slave}: {len(theirs)} keys, {master}: {len(mine)}"
        counted: list[UUID] = [key_id for _, ids in self.records.values() for key_id in ids]
        assert len(counted) == len(set(counted))
        assert set(counted) - self.aaa.void == set(mine)
        for node in self.akms.values():
            assert not node.process.failures, node.process.failures

    @property
    def records(self) -> dict[str, tuple[str, frozenset[UUID]]]:
        return self.aaa.records

    async def settled(self, master: str, slaves: list[str], seconds: float = 15.0) -> None:
        """Wait until the oracle is content; if it never is, say why."""
        end = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                self.check(master, slaves)
            except AssertionError:
                if asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(0.02)
            else:
                return


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something has happened."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
