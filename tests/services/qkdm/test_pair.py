"""The pair over a channel that delays, duplicates and dies, with ends that restart."""

from __future__ import annotations

import random
from collections import deque
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.qkdm.allotment import Master
from services.qkdm.end import End, Mismatch, OutOfStep
from services.qkdm.messages import Acknowledgement, Block, Hello, Message, decode, encode
from services.qkdm.pair import PATIENCE, Receiver, Transmitter
from services.qkdm.store import HeldKey

CAPACITY = 64


def ends(capacity: int = CAPACITY, seed: int = 7) -> tuple[Transmitter, Receiver]:
    source = random.Random(seed).randbytes
    return Transmitter("a-b", 256, capacity, source), Receiver("a-b", 256, capacity, source)


def greet(a: Transmitter, b: Receiver, now: float = 0.0) -> None:
    """Connect the two and let everything arrive."""
    hellos = a.hello(), b.hello()
    back = b.receive(hellos[0], now)
    for message in a.receive(hellos[1], now):
        back += b.receive(message, now)
    for message in back:
        assert a.receive(message, now) == []


def make(a: Transmitter, b: Receiver, count: int, now: float = 0.0) -> None:
    block = a.produce(count, now, rate=1.0, qber=0.02)
    assert block is not None
    for message in b.receive(block, now):
        a.receive(message, now)


def in_step(capacity: int = CAPACITY) -> tuple[Transmitter, Receiver]:
    a, b = ends(capacity)
    greet(a, b)
    return a, b


def bits(keys: list[HeldKey] | None) -> dict[UUID, bytes]:
    assert keys is not None
    return {key.id: key.material.reveal() for key in keys}


def test_either_end_is_master_of_its_own_keys() -> None:
    a, b = in_step()
    make(a, b, 16)
    for master, slave in ((a, b), (b, a)):
        given = bits(master.give(4, 0.0))
        assert bits(slave.fetch(list(given))) == given
        assert slave.fetch(list(given)) is None


def test_an_end_never_fetches_what_it_gives_out_itself() -> None:
    a, b = in_step()
    make(a, b, 16)
    for end in (a, b):
        assert all(end.fetch([id_]) is None for id_ in end.store.own.ids())


def test_unacknowledged_keys_are_given_out_after_patience_and_are_then_known_at_one_end_only() -> None:
    a, b = in_step()
    block = a.produce(16, 10.0, rate=1.0, qber=0.02)
    assert block is not None
    assert a.give(1, 10.0) is None
    keys = a.give(1, 10.0 + PATIENCE)
    assert keys is not None
    assert b.fetch([keys[0].id]) is None
    b.receive(block, 13.0)
    assert bits(b.fetch([keys[0].id])) == bits(keys)


def test_what_a_killed_channel_swallowed_is_offered_again() -> None:
    a, b = in_step()
    lost = a.produce(16, 1.0, rate=1.0, qber=0.02)
    assert lost is not None
    a.disconnected()
    b.disconnected()
    assert a.produce(16, 2.0, rate=1.0, qber=0.02) is None
    assert a.counters.lost == 16
    greet(a, b, 3.0)
    given = bits(a.give(a.level, 3.0))
    assert given
    assert bits(b.fetch(list(given))) == given


@pytest.mark.parametrize("restarted", ["transmitter", "receiver"])
def test_after_a_restart_the_other_end_drops_what_only_it_has(restarted: str) -> None:
    a, b = in_step()
    make(a, b, 32)
    a.disconnected()
    b.disconnected()
    fresh_a, fresh_b = ends(seed=8)
    if restarted == "transmitter":
        a = fresh_a
    else:
        b = fresh_b
    greet(a, b)
    assert [len(pool) for end in (a, b) for pool in (end.store.own, end.store.peer)] == [0, 0, 0, 0]
    assert a.needs_stock == (restarted == "transmitter")
    assert a.counters.unsynchronised + b.counters.unsynchronised == 32
    make(a, b, 16)
    given = bits(a.give(2, 0.0))
    assert bits(b.fetch(list(given))) == given


def test_overflow_drops_the_oldest_at_each_end_alone() -> None:
    a, b = in_step()
    for _ in range(20):
        make(a, b, 16)
    assert a.level == a.capacity
    assert b.level == b.capacity
    assert a.counters.overflowed > 0
    newest = bits(a.give(a.level, 0.0))
    assert bits(b.fetch(list(newest))) == newest


def test_keys_wait_for_a_slow_receiver_only_up_to_the_capacity() -> None:
    a, _ = in_step()
    for _ in range(100):
        a.produce(16, 0.0, rate=1.0, qber=0.02)
    assert a.unacknowledged <= CAPACITY
    assert a.counters.lost > 0


def test_demand_follows_the_reports_of_the_receiver() -> None:
    a, b = in_step(2_000)
    make(a, b, 200)
    got = 0
    for now in range(1, 100):
        while b.give(1, now) is not None:
            got += 1
        a.receive(b.report(), now)
        make(a, b, 16, now)
    assert got > 0.9 * 99 * 16


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"link": "x"}, {"key_size": 128}, {"transmitter": True}],
)
def test_ends_that_are_configured_differently_tell_so(change: dict[str, object]) -> None:
    import msgspec

    a, b = ends()
    with pytest.raises(Mismatch, match=next(iter(change))):
        a.receive(msgspec.structs.replace(b.hello(), **change), 0.0)


def test_nothing_is_accepted_before_the_hello() -> None:
    a, b = ends()
    for end, message in ((a, Acknowledgement(0, 0, 0, 0)), (b, Block(1, bytes(16), bytes(32), b"\0", 0.0, 0.0))):
        with pytest.raises(OutOfStep):
            end.receive(message, 0.0)


@pytest.mark.parametrize(
    "block",
    [
        Block(1, bytes(16), bytes(31), b"\0", 0.0, 0.0),
        Block(1, bytes(15), bytes(32), b"\0", 0.0, 0.0),
        Block(1, b"", b"", b"", 0.0, 0.0),
        Block(1, bytes(16), bytes(32), b"\2", 0.0, 0.0),
        Block(2, bytes(16), bytes(32), b"\0", 0.0, 0.0),
    ],
)
def test_a_malformed_block_ends_the_connection_and_leaves_nothing(block: Block) -> None:
    _, b = in_step()
    with pytest.raises(OutOfStep):
        b.receive(block, 0.0)
    assert b.level == 0
    assert b.last_number == 0


def test_no_bits_show_in_text() -> None:
    a, _ = in_step()
    block = a.produce(1, 0.0, rate=1.0, qber=0.02)
    assert block is not None
    for text in (repr(block), repr(a._offers)):
        assert repr(block.bits)[2:-1] not in text
        assert block.bits.hex() not in text


class Wire(RuleBasedStateMachine):
    """A connection in both directions that delays, duplicates, and is cut with what is on it; ends that restart."""

    def __init__(self) -> None:
        super().__init__()
        self.source = random.Random(3).randbytes
        self.now = 0.0
        self.bits: dict[UUID, bytes] = {}
        self.given: dict[UUID, Master] = {}
        self.fetched: set[tuple[UUID, Master]] = set()
        self.a = Transmitter("a-b", 64, CAPACITY, self.source)
        self.b = Receiver("a-b", 64, CAPACITY, self.source)
        self.to_a: deque[bytes] = deque()
        self.to_b: deque[bytes] = deque()
        self.connected = False

    @rule()
    def connect(self) -> None:
        self.cut()
        self.to_b.append(encode(self.a.hello()))
        self.to_a.append(encode(self.b.hello()))
        self.connected = True

    @rule()
    def cut(self) -> None:
        self.to_a.clear()
        self.to_b.clear()
        self.a.disconnected()
        self.b.disconnected()
        self.connected = False

    @rule(count=st.integers(1, 30))
    def produce(self, count: int) -> None:
        block = self.a.produce(count, self.now, rate=1.0, qber=0.02)
        if block is not None:
            self.to_b.append(encode(block))

    @rule(seconds=st.floats(0.0, 3.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.connected)
    @rule(towards=st.sampled_from("ab"), copies=st.sampled_from([1, 1, 1, 2]), messages=st.integers(1, 4))
    def deliver(self, towards: str, copies: int, messages: int) -> None:
        for _ in range(messages):
            queue = self.to_a if towards == "a" else self.to_b
            if not queue:
                return
            body = queue.popleft()[4:]
            for _ in range(copies):
                self.take(
                    self.a if towards == "a" else self.b, self.to_b if towards == "a" else self.to_a, decode(body)
                )
                if not self.connected:
                    return

    def take(self, end: End, answers: deque[bytes], message: Message) -> None:
        try:
            replies = end.receive(message, self.now)
        except OutOfStep:
            assert not isinstance(message, Block | Acknowledgement)
            self.cut()
            return
        answers.extend(encode(reply) for reply in replies)

    @rule(which=st.sampled_from("ab"))
    def restart(self, which: str) -> None:
        self.cut()
        if which == "a":
            self.a = Transmitter("a-b", 64, CAPACITY, self.source)
        else:
            self.b = Receiver("a-b", 64, CAPACITY, self.source)

    @rule(which=st.sampled_from(list(Master)), number=st.integers(1, 5))
    def give(self, which: Master, number: int) -> None:
        end = self.a if which is Master.TRANSMITTER else self.b
        for key in end.give(number, self.now) or []:
            assert key.id not in self.given, "a key was given out twice"
            self.given[key.id] = which
            self.same(key)

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def fetch(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(list(self.given)))
        for which, end in ((Master.TRANSMITTER, self.a), (Master.RECEIVER, self.b)):
            for key in end.fetch([id_]) or []:
                assert self.given[id_] is which.other, "an end fetched a key that it gave out"
                assert (id_, which) not in self.fetched, "a key was fetched twice"
                self.fetched.add((id_, which))
                self.same(key)

    def same(self, key: HeldKey) -> None:
        assert self.bits.setdefault(key.id, key.material.reveal()) == key.material.reveal(), (
            "different bits under one ID"
        )

    @invariant()
    def bounded(self) -> None:
        for end in (self.a, self.b):
            assert len(end.store.own) + len(end.store.peer) <= CAPACITY
        assert self.a.unacknowledged <= CAPACITY

    @invariant()
    def no_key_has_two_masters(self) -> None:
        assert not self.a.store.own.ids() & self.b.store.own.ids()
        for end in (self.a, self.b):
            assert not end.store.own.ids() & end.store.peer.ids()

    def teardown(self) -> None:
        """However it went: once connected undisturbed, both ends serve every key that is made from then on."""
        self.connect()
        while self.to_a or self.to_b:
            self.deliver("b", 1, 100)
            self.deliver("a", 1, 100)
            assert self.connected
        for key in self.a.give(self.a.level, self.now) or []:
            self.given[key.id] = Master.TRANSMITTER
        block = self.a.produce(10, self.now, rate=1.0, qber=0.02)
        assert block is not None
        for reply in self.b.receive(block, self.now):
            self.a.receive(reply, self.now)
        ids = {UUID(bytes=block.ids[16 * index : 16 * index + 16]) for index in range(10)}
        for master, slave in ((self.a, self.b), (self.b, self.a)):
            mine = ids & master.store.own.ids()
            assert mine <= slave.store.peer.ids()
        assert ids <= self.a.store.own.ids() | self.b.store.own.ids()


TestWire = Wire.TestCase
TestWire.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_a_hello_is_said_once() -> None:
    a, b = in_step()
    hello = b.hello()
    assert isinstance(hello, Hello)
    with pytest.raises(OutOfStep):
        a.receive(hello, 0.0)
