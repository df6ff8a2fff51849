"""Whatever fails when: no key leaves twice, none that is void or over, and a stop loses none.

The real supply, vault and statements run on a store whose commits come, fail and are cut off when the test says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, create_engine, select
from sqlalchemy.pool import StaticPool

from keyhaul.identity.names import SaeId
from keyhaul.keys.states import KeyState
from keyhaul.store.interface import StoreStatus, StoreUnavailable
from keyhaul.transport.messages.access import Push, RequestKeys
from keyhaul.transport.messages.peer import VoidKeys
from services.ukms.buffer import BufferKey, Policy
from services.ukms.etsi014 import Refusal
from services.ukms.leases import MAXIMUM_LEASED
from services.ukms.metrics import Metrics
from services.ukms.supply import Supply
from services.ukms.tables import copies, metadata
from services.ukms.vault import Keys, Vault
from tests.keyhaul.link.doubles import PlainFields
from tests.services.ukms.conftest import TERMS

A, B = SaeId("a"), SaeId("b")
KEY = BufferKey(A, frozenset({B}), 256, "silver")


def bits(key_id: uuid.UUID) -> bytes:
    return hashlib.sha256(key_id.bytes).digest()


class SteppedStore:
    """A store that does what it is asked when it is told to."""

    store_id = "1" * 32
    opened_generation = 0
    generation = 1

    def __init__(self) -> None:
        self.fields = PlainFields()
        self.queue: list[tuple[Callable[[Connection], Any], asyncio.Future[Any]]] = []
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        metadata.create_all(self.engine)

    async def write(self, change: Callable[[Connection], Any]) -> Any:
        done = asyncio.get_running_loop().create_future()
        self.queue.append((change, done))
        return await done

    async def read(self, query: Callable[[Connection], Any]) -> Any:
        with self.engine.begin() as connection:
            return query(connection)

    def step(self, *, durable: bool = True, told: bool = True) -> None:
        """Carry one change out, and tell; or not, with its caller told that nobody knows."""
        change, done = self.queue.pop(0)
        error: Exception | None = None
        result = None
        if durable:
            try:
                with self.engine.begin() as connection:
                    result = change(connection)
            except Exception as raised:  # handed to the caller
                error = raised
        if not told:
            error = StoreUnavailable("nobody knows")
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    async def renew(self, change: Callable[[Connection], Any]) -> Any:
        raise NotImplementedError

    async def status(self) -> StoreStatus:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


@dataclass
class Asked:
    """One request of the SAE."""

    number: int
    task: asyncio.Task[Keys]
    seen: bool = False


class OneUkms(RuleBasedStateMachine):
    """One buffer of one UKMS through several lives."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.loop = asyncio.new_event_loop()
        self.loop.time = lambda: self.now  # type: ignore[method-assign]
        self.drawn = 0
        self.store = SteppedStore()
        self.asked: list[Asked] = []
        self.wanted: list[RequestKeys] = []
        self.voids: list[asyncio.Task[Any]] = []
        self.batches: list[Push] = []
        self.expires: dict[uuid.UUID, float] = {}
        self.given: Counter[uuid.UUID] = Counter()
        self.void: set[uuid.UUID] = set()
        self.certain = True
        """Whether nothing has happened that may burn keys."""

    @initialize()
    def begin(self) -> None:
        self._live()

    @rule(number=st.sampled_from([1, 1, 1, 2, 3, 7]), times=st.integers(1, 8))
    def ask(self, number: int, times: int) -> None:
        for _ in range(times):
            work = self.supply.keys(KEY, (B,), number, TERMS, self.now + 1e6)
            self.asked.append(Asked(number, self.loop.create_task(work)))
        self._turn()

    @rule(number=st.integers(1, 5))
    def commit(self, number: int) -> None:
        for _ in range(min(number, len(self.store.queue))):
            self.store.step()
        self._turn()

    @rule(durable=st.booleans())
    @precondition(lambda self: self.store.queue)
    def fail(self, durable: bool) -> None:
        self.certain = False
        self.store.step(durable=durable, told=False)
        self._turn()

    @rule(number=st.integers(1, 60), life=st.sampled_from([5.0, 1_000.0, 100_000.0]))
    def push(self, number: int, life: float) -> None:
        if self.wanted:
            request, number = self.wanted[0].request, min(number, self.wanted[0].number)
            self.wanted[0].number -= number
            self.wanted = [one for one in self.wanted if one.number]
        else:
            request = self._identifier().hex
            self._finish(self.vault.request_made(request, KEY, number))
        push = Push(
            batch=self._identifier().hex,
            request=request,
            master=A,
            slaves=[B],
            held_for=[],
            for_master=True,
            key_ids=[self._identifier() for _ in range(number)],
            size=256,
            service_class="silver",
            lifetime_ms=round(1000 * life),
        )
        self.batches.append(push)
        self.expires |= dict.fromkeys(push.key_ids, self.now + life)
        taking_in = self.loop.create_task(self.supply.push(push, b"".join(bits(one) for one in push.key_ids)))
        taking_in.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._turn()

    @rule(which=st.integers(0, 99))
    def leave(self, which: int) -> None:
        """An SAE goes away while it waits."""
        waiting = [one for one in self.asked if not one.task.done()]
        if waiting:
            self.certain = False
            waiting[which % len(waiting)].task.cancel()
            self._turn()

    @rule(which=st.integers(0, 99), some=st.booleans())
    @precondition(lambda self: self.batches)
    def withdraw(self, which: int, some: bool) -> None:
        batch = self.batches[which % len(self.batches)]
        named = batch.key_ids[: 1 + len(batch.key_ids) // 2] if some else []
        work = self.supply.void(VoidKeys(batch=batch.batch, key_ids=named))
        self.voids.append(self.loop.create_task(work))
        self._turn()

    @rule()
    def revoke(self) -> None:
        self.supply.revoked(A, frozenset())
        self._turn()

    @rule(seconds=st.sampled_from([0.01, 0.3, 3.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.store.queue and any(self.now - seconds < ends <= self.now for ends in self.expires.values()):
            self.certain = False

    @rule()
    def keep_up(self) -> None:
        self._finish(self.vault.expire())
        self._finish(self.vault.purge())
        self.supply.refresh()
        self._turn()

    @rule(committed=st.integers(0, 3))
    def crash(self, committed: int) -> None:
        """The process is killed: some of what it asked for may be durable, and nobody hears of it."""
        self.certain = False
        for _ in range(min(committed, len(self.store.queue))):
            self.store.step()
        self._end()
        self._live()

    @rule()
    def stop(self) -> None:
        """SIGTERM: whatever is under way ends, and what was not handed out is at hand for the next process."""
        self.supply.close()
        self._drain()
        self._finish(self.supply.give_back())
        self._drain()
        self._collect()
        if self.certain:
            with self.store.engine.begin() as connection:
                issued = connection.scalars(select(copies.c.key_id).where(copies.c.state == KeyState.ISSUED)).all()
            assert {uuid.UUID(bytes=key_id) for key_id in issued} <= set(self.given)
        self._end()
        self._live()

    @invariant()
    def nothing_twice_and_nothing_void(self) -> None:
        self._collect()
        assert all(count == 1 for count in self.given.values())
        for task in self.voids:
            if task.done() and not task.cancelled() and task.exception() is None:
                self.void |= set(task.result().voided)
        assert not self.void & set(self.given)

    @invariant()
    def what_is_set_aside_is_issued_in_the_store_and_bounded(self) -> None:
        for buffer in self.supply.buffers:
            leased = [*buffer.lease._ready, *buffer.lease._lapsed]
            assert len(buffer.lease) + len(buffer.lease.coming) <= MAXIMUM_LEASED
            assert not {one.stored.key_id for one in leased} & (self.void | set(self.given))
            with self.store.engine.begin() as connection:
                rows = connection.execute(select(copies.c.key_id, copies.c.state, copies.c.bits)).all()
            states = {uuid.UUID(bytes=row.key_id): (row.state, row.bits) for row in rows}
            for one in leased:
                assert states.get(one.stored.key_id, (KeyState.ISSUED, None)) == (KeyState.ISSUED, None)

    def teardown(self) -> None:
        self._end()
        self.store.engine.dispose()
        self.loop.close()

    def _identifier(self) -> uuid.UUID:
        self.drawn += 1
        return uuid.UUID(bytes=hashlib.sha256(self.drawn.to_bytes(8)).digest()[:16], version=4)

    def _collect(self) -> None:
        for one in self.asked:
            if one.task.done() and not one.seen:
                one.seen = True
                self._look(one)

    def _look(self, one: Asked) -> None:
        if one.task.cancelled():
            return
        error = one.task.exception()
        if error is not None:
            assert isinstance(error, (Refusal, StoreUnavailable)), error
            return
        keys = one.task.result()
        assert len(keys) == one.number
        for key_id, material in keys:
            assert material.reveal() == bits(key_id)
            assert self.expires[key_id] > self.now - 1e-6
            self.given[key_id] += 1

    def _live(self) -> None:
        metrics = Metrics(CollectorRegistry())
        self.vault = Vault(self.store, lambda: self.now)
        self.wanted = []

        async def request(message: RequestKeys, _deadline: float) -> None:
            self.wanted.append(message)

        self.supply = Supply(
            self.vault,
            request,
            lambda *_: None,
            Policy(minimum=0, maximum=200, horizon=4.0),
            metrics,
            source=lambda _number: self._identifier().bytes,
            clock=lambda: self.now,
        )
        self._finish(self.supply.load())
        self.running = self.loop.create_task(self.supply.run())
        self._turn()

    def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        for task in tasks:
            task.cancel()
        self.store.queue.clear()

        async def ended() -> None:
            await asyncio.gather(*tasks, return_exceptions=True)

        self.loop.run_until_complete(ended())
        self.voids = []

    def _turn(self) -> None:
        async def some() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(some())
        if self.running.done():
            self.running.result()

    def _drain(self) -> None:
        while self.store.queue:
            self.store.step()
            self._turn()

    def _finish(self, work: Coroutine[Any, Any, Any]) -> Any:
        task = self.loop.create_task(work)
        for _ in range(1_000):
            self.loop.run_until_complete(asyncio.sleep(0))
            if task.done():
                return task.result()
            if self.store.queue:
                self.store.step()
        raise AssertionError("it does not end")


TestOneUkms = OneUkms.TestCase
TestOneUkms.settings = settings(max_examples=12, stateful_step_count=40, deadline=None)


def test_a_key_whose_life_ended_while_the_store_issued_it_is_not_handed_out() -> None:
    ukms = OneUkms()
    ukms.begin()
    try:
        ukms.ask(number=1, times=1)
        ukms.push(number=1, life=5.0)
        ukms.wait(seconds=700.0)
        ukms.commit(number=5)
        (asked,) = ukms.asked
        assert isinstance(asked.task.exception(), Refusal)
    finally:
        ukms.teardown()
