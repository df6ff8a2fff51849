"""Stand-ins for what surrounds a link: stores that can crash and be restored, modules, calls, the process."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import msgspec
from cryptography import x509
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, MetaData, create_engine
from sqlalchemy.pool import StaticPool

from keyhaul.identity.names import ServiceName
from keyhaul.keys.etsi014 import KEYS_NOT_FOUND, Key, KeyContainer, Status
from keyhaul.link.tables import add_link_tables
from keyhaul.runtime.interface import Take
from keyhaul.store.interface import FieldCipher, StoreCorrupt, StoreStatus, StoreUnavailable
from keyhaul.transport.etsi014 import Etsi014Error, Etsi014Unreachable
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.messages.base import ErrorCode, Message, ServiceError
from keyhaul.transport.operations import Operation, Reply, Request

Result = TypeVar("Result")


class PlainFields:
    """Binds a field to its context without hiding it."""

    def seal(self, plain: bytes, context: bytes) -> bytes:
        return len(context).to_bytes(2) + context + plain

    def open(self, sealed: bytes, context: bytes) -> bytes:
        length = int.from_bytes(sealed[:2])
        if sealed[2 : 2 + length] != context:
            raise StoreCorrupt("another context")
        return sealed[2 + length :]


class MemoryStore:
    """A store in memory whose durable state can be copied and put back."""

    def __init__(self, content: bytes | None = None) -> None:
        self.store_id = os.urandom(16).hex()
        self.fields: FieldCipher = PlainFields()
        self.opened_generation = 0
        self.writes = 0
        self._closed = False
        self._engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        metadata = MetaData()
        add_link_tables(metadata)
        if content is None:
            metadata.create_all(self._engine)
        else:
            with self._engine.connect() as connection:
                cast(Any, connection.connection.driver_connection).deserialize(content)

    def snapshot(self) -> bytes:
        with self._engine.connect() as connection:
            return bytes(cast(Any, connection.connection.driver_connection).serialize())

    async def write(self, change: Callable[[Connection], Result]) -> Result:
        await asyncio.sleep(0)
        if self._closed:
            raise StoreUnavailable("the process is gone")
        self.writes += 1
        with self._engine.begin() as connection:
            return change(connection)

    @property
    def generation(self) -> int:
        return self.writes

    async def renew(self, change: Callable[[Connection], Result]) -> Result:
        raise NotImplementedError

    async def read(self, query: Callable[[Connection], Result]) -> Result:
        with self._engine.connect() as connection:
            return query(connection)

    async def status(self) -> StoreStatus:
        raise NotImplementedError

    async def close(self) -> None:
        self._closed = True
        self._engine.dispose()


@dataclass
class ModulePair:
    """What two QKD modules share: keys that one end may get, and the other by ID."""

    key_size: int = 256
    stock: int = 1_000_000
    handed: dict[uuid.UUID, bytes] = field(default_factory=dict)
    lost: set[uuid.UUID] = field(default_factory=set)
    lose_every: int = 0
    spoil: bool = False
    away: bool = False
    count: int = 0


class FakeModule:
    """One end of a pair."""

    def __init__(self, pair: ModulePair, most: int = 128) -> None:
        self.pair = pair
        self.most = most
        self.calls = 0

    async def status(self, slave: str, *, deadline: float) -> Status:
        self._check()
        pair = self.pair
        return Status("a", "b", "c", slave, pair.key_size, pair.stock, 1_000_000, self.most, 1024, 64, 0)

    async def get_key(self, slave: str, *, number: int, size: int | None, deadline: float) -> KeyContainer:
        self._check()
        pair = self.pair
        if number > pair.stock:
            raise Etsi014Error(503, "no keys", 1.0)
        pair.stock -= number
        keys = [Key(uuid.uuid4(), os.urandom((size or pair.key_size) // 8)) for _ in range(number)]
        for key in keys:
            pair.count += 1
            if not pair.lose_every or pair.count % pair.lose_every:
                pair.handed[key.key_ID] = os.urandom(len(key.key)) if pair.spoil else key.key
        return KeyContainer(keys)

    async def get_key_with_ids(self, master: str, ids: Sequence[uuid.UUID], *, deadline: float) -> KeyContainer:
        self._check()
        assert len(ids) <= self.most
        if any(each not in self.pair.handed for each in ids):
            raise Etsi014Error(400, KEYS_NOT_FOUND)
        return KeyContainer([Key(each, self.pair.handed.pop(each)) for each in ids])

    def _check(self) -> None:
        self.calls += 1
        if self.pair.away:
            raise Etsi014Unreachable("away")


Tamper = Callable[[str, bytes], bytes | None]
"""Gets path and body of a message on its way; returns what arrives, None for nothing."""


class Wire:
    """Calls of one service on another, without sockets; everything passes as JSON."""

    def __init__(self, own: ServiceName, peer: ServiceName, routes: Routes) -> None:
        self.peer = peer
        self.looks = 0
        """How often somebody looked whether a connection stands."""
        self.expected = 0
        self.routes = routes
        self.posted: list[tuple[str, bytes]] = []
        self.tamper_request: Tamper = lambda path, body: body
        self.tamper_reply: Tamper = lambda path, body: body
        self._own = own
        self._connected = True

    @property
    def connected(self) -> bool:
        self.looks += 1
        return self._connected

    @connected.setter
    def connected(self, connected: bool) -> None:
        self._connected = connected

    async def call(self, operation: Operation[Request, Reply], request: Request, *, deadline: float) -> Reply:
        reply = await self.exchange(operation.path, request, operation.reply, deadline=deadline)
        assert reply is not None
        return reply

    async def exchange(
        self, path: str, request: Message, reply: type[Reply] | None, *, deadline: float
    ) -> Reply | None:
        try:
            async with asyncio.timeout(deadline):
                body = await self.deliver(path, msgspec.json.encode(request))
        except TimeoutError:
            raise ServiceError(ErrorCode.DEADLINE) from None
        if reply is None:
            assert body is None
            return None
        assert body is not None
        return msgspec.json.decode(body, type=reply)

    async def deliver(self, path: str, body: bytes) -> bytes | None:
        """Carry a request to the other service and its answer back; the adversary may call it too."""
        if not self.connected:
            raise ServiceError(ErrorCode.UNREACHABLE)
        self.posted.append((path, body))
        arriving = self.tamper_request(path, body)
        if arriving is None:
            raise ServiceError(ErrorCode.UNREACHABLE, "lost")
        await asyncio.sleep(0)
        route = self.routes.find(path)
        if route is None:
            raise ServiceError(ErrorCode.NOT_FOUND, path)
        peer = Peer(self._own, cast(x509.Certificate, None))
        try:
            answer = await route.handler(peer, msgspec.json.decode(arriving, type=route.request))
        except StoreUnavailable:
            raise ServiceError(ErrorCode.INTERNAL) from None
        await asyncio.sleep(0)
        if not self.connected:
            raise ServiceError(ErrorCode.UNREACHABLE, "lost")
        if answer is None:
            return None
        returning = self.tamper_reply(path, msgspec.json.encode(answer))
        if returning is None:
            raise ServiceError(ErrorCode.UNREACHABLE, "lost")
        return returning

    @contextmanager
    def expecting(self) -> Iterator[None]:
        self.expected += 1
        try:
            yield
        finally:
            self.expected -= 1

    async def lost(self) -> None:
        raise NotImplementedError

    async def peer_certificate(self) -> x509.Certificate | None:
        return None


class FakeRuntime:
    """Collects alarms, and owns tasks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.alarms: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.append(task)
        return task

    def alarm(self, name: str, **facts: Any) -> None:
        self.alarms.append(name)

    def on_reload(self, tables: Iterable[str], take: Take) -> None:
        raise NotImplementedError

    def ready(self) -> None:
        raise NotImplementedError

    def health(self, check: Callable[[], dict[str, Any]]) -> None:
        raise NotImplementedError

    def command(self, name: str, answer: Any) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
