"""Two ends, their simulated stores, and an adversary who loses, doubles, reorders and changes messages.

An oracle sees every byte of pad that a sender takes, by its content, and every message that a receiver accepts.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.keys.material import KeyMaterial
from keyhaul.link.channel import Channel, MalformedMessage, UnknownSession
from keyhaul.link.handshake import LinkEnd
from keyhaul.link.pads import Block, PadShortage, PadSpent, SenderPads
from keyhaul.link.protection.interface import AuthenticationFailed, Rotation
from keyhaul.link.protection.registry import PROTECTIONS
from keyhaul.link.receiver import OfferRefused, ReceiverDirection
from keyhaul.link.record import DirectionState, Record, Side
from keyhaul.link.sender import SenderDirection
from keyhaul.link.session import Acquaintance, Initiator, Proposal, Responder, Session
from keyhaul.link.window import Replayed
from keyhaul.transport.messages.link import LinkControl, LinkControlReply, Sealed, Stream

SIZES = {Stream.CONTROL: 512, Stream.PAYLOAD: 2048}
SIGNING = {name: MLDSA65PrivateKey.from_seed_bytes(name.encode() * 16) for name in ("ss", "rr")}
ROTATION = Rotation(messages=5, bytes=300, seconds=1e9)
OVERLAP = 8
"""So many equal bytes in a row of random pad mean that pad was used again."""

Durable = dict[Side, tuple[DirectionState, dict[int, tuple[Stream, int, bytes, bytes]]]]


class Crash(Exception):
    """A process ends in the middle of something."""


class Reused(AssertionError):
    """The oracle saw pad used a second time."""


class Doubled(AssertionError):
    """The oracle saw a message accepted a second time, or one that was never sent."""


@dataclass
class Oracle:
    """Sees what no party to the protocol can see."""

    random: random.Random
    taken: set[bytes] = field(default_factory=set)
    sent: dict[bytes, bytes] = field(default_factory=dict)
    accepted: set[bytes] = field(default_factory=set)
    messages: int = 0

    def take(self, bits: bytes) -> None:
        windows = {bits[place : place + OVERLAP] for place in range(len(bits) - OVERLAP + 1)}
        if windows & self.taken:
            raise Reused
        self.taken |= windows

    def accept(self, clear: bytes, secret: bytes) -> None:
        if clear in self.accepted or self.sent.get(clear) != secret:
            raise Doubled
        self.accepted.add(clear)


class End:
    """One end: a process that can end at any write, and a store that keeps what was written."""

    def __init__(self, name: str, oracle: Oracle, suites: tuple[str, ...]) -> None:
        other = "rr" if name == "ss" else "ss"
        self.end = LinkEnd("l", name, other, SIGNING[name], SIGNING[other].public_key())
        self.oracle = oracle
        self.suites = suites
        self.durable: Durable = {side: (DirectionState.empty(), {}) for side in Side}
        self.crash_at = 0
        """Crash at this write from now, before it when odd, after it when even; 0: not."""
        self.start()

    def start(self) -> None:
        """A new process reads the store."""
        self.crash_at = 0
        self.incarnation = self.oracle.random.randbytes(16)
        self.session: Session | None = None
        self.acquaintance = Acquaintance(self.end)

        def blocks(side: Side) -> list[Block]:
            return [
                Block(number, stream, start, digest, KeyMaterial(bits))
                for number, (stream, start, digest, bits) in self.durable[side][1].items()
            ]

        self.outgoing = SenderDirection(self.durable[Side.OUTGOING][0], blocks(Side.OUTGOING), step=128, sizes=SIZES)
        self.incoming = ReceiverDirection(self.durable[Side.INCOMING][0], blocks(Side.INCOMING), sizes=SIZES)

    def write(self, *records: Record) -> None:
        self.crash_at -= 1
        if self.crash_at == 0 and self.oracle.random.random() < 0.5:
            raise Crash
        for record in records:
            rows = dict(self.durable[record.side][1])
            if record.keep_only is not None:
                rows = {number: row for number, row in rows.items() if number in record.keep_only}
            for number in record.drop:
                rows.pop(number, None)
            for block in record.add:
                rows[block.number] = (block.stream, block.start, block.digest, block.material.reveal())
            self.durable[record.side] = (record.state, rows)
        if self.crash_at == 0:
            raise Crash

    def snapshot(self) -> Durable:
        return {side: (state, dict(rows)) for side, (state, rows) in self.durable.items()}

    def proposal(self) -> Proposal:
        return Proposal(self.incarnation, self.suites, 0, self.outgoing.report(), self.incoming.report())

    def switch(self, session: Session) -> None:
        out_record = self.outgoing.reconciled(session.outgoing)
        in_record = self.incoming.reconciled(session.incoming)
        self.write(out_record, in_record)

        def channel(sender: bytes, receiver: bytes, pad: bytes) -> Channel:
            return Channel("l", session.id, sender, receiver, PROTECTIONS[session.suite](ROTATION), pad)

        own, peer = session.incarnation, session.peer_incarnation
        self.outgoing.begin(channel(own, peer, session.outgoing_pad), session.outgoing, out_record)
        self.incoming.begin(channel(peer, own, session.incoming_pad), session.incoming, in_record)
        self.session = session

    def forget(self) -> None:
        self.session = None
        self.outgoing.end()
        self.incoming.end()


REFUSALS = (UnknownSession, MalformedMessage, Replayed, PadSpent, AuthenticationFailed)


class World:
    """Both ends and the wire between them."""

    def __init__(self, seed: int, suites: tuple[str, ...]) -> None:
        self.random = random.Random(seed)
        self.oracle = Oracle(self.random)
        self.ends = [End("ss", self.oracle, suites), End("rr", self.oracle, suites)]
        self.wire: list[list[Sealed]] = [[], []]
        """Messages on their way, by their sender; they stay there, so that they can come again."""
        self.spoiled: set[UUID] = set()
        """Keys that the receiver's module gave with other bits."""
        self.snapshots: list[list[Durable]] = [[self.ends[0].snapshot()], [self.ends[1].snapshot()]]
        self.doubtful: int | None = None
        """The end whose store was put back since the last session: older stores at both ends at once cannot be told."""

    def establish(self, lost: int = 0) -> bool:
        """Make a session; the message or answer number `lost` (1 to 4) never arrives."""
        initiator, responder = self.ends
        attempt = Initiator(initiator.end, initiator.proposal(), self.random.randbytes)
        signed = attempt.hello()
        if lost == 1:
            return False
        hello, suite = responder.acquaintance.hello(signed, responder.session, responder.suites)
        answering = Responder(responder.end, responder.proposal(), hello, signed, suite)
        if lost == 2:
            return False
        third = attempt.reply(answering.answer())
        if lost == 3:
            return False
        session, established = answering.establish(third)
        try:
            self.surviving(responder, lambda: responder.switch(session))
        except Crash:
            initiator.forget()
            return False
        if lost == 4:
            initiator.forget()
            return False
        try:
            self.surviving(initiator, lambda: initiator.switch(attempt.established(established)))
        except Crash:
            return False
        self.doubtful = None
        return True

    def surviving(self, end: End, work: Callable[[], None]) -> None:
        """Do work at an end; when it crashes there, it starts again."""
        try:
            work()
        except Crash:
            end.start()
            raise

    def send(self, index: int, length: int) -> bool:
        sender = self.ends[index]
        self.oracle.messages += 1
        clear, secret = str(self.oracle.messages).encode(), self.random.randbytes(length)
        stream = Stream.PAYLOAD if length else Stream.CONTROL
        try:
            sealed, flight = sender.outgoing.seal("k", clear, secret, stream, 0.0)
        except PadShortage:
            return False
        self.oracle.sent[clear] = secret
        self.wire[index].append(sealed)
        if self.random.random() < 0.5:
            sender.outgoing.flights.finished(flight, accepted=False)
        return True

    def deliver(self, index: int, which: int, damage: int = 0) -> bool:
        if not self.wire[index]:
            return False
        sealed = self.wire[index][which % len(self.wire[index])]
        if damage:
            name = ("header", "clear", "secret", "tag")[damage % 4]
            bits = bytearray(getattr(sealed, name))
            if not bits:
                return False
            bits[damage % len(bits)] ^= 1 << damage % 8
            sealed = msgspec.structs.replace(sealed, **{name: bytes(bits)})
        receiver = self.ends[1 - index]
        try:
            _, secret = receiver.incoming.open(sealed, "k")
        except REFUSALS:
            return False
        self.oracle.accept(sealed.clear, secret)
        return True

    def exchange(self, index: int, stream: Stream, keys: int, lost: int = 0, missing: int = 0, spoil: int = 0) -> bool:
        """A refill and lease by the sender of a direction; message (1) or answer (2) may be lost."""
        sender, receiver = self.ends[index], self.ends[1 - index]
        outgoing, incoming = sender.outgoing, receiver.incoming
        try:
            self.surviving(sender, lambda: self._lease(sender))
        except Crash:
            return False
        outgoing = sender.outgoing
        if keys and outgoing.pending is None and outgoing.streams[stream].level < SIZES[stream]:
            ids = [UUID(bytes=self.random.randbytes(16)) for _ in range(keys)]
            outgoing.offer(stream, ids, [self.random.randbytes(32) for _ in ids])
        message = outgoing.message(0.0)
        try:
            sealed, flight = outgoing.seal("c", msgspec.json.encode(message), b"", Stream.CONTROL, 0.0, own=True)
        except PadShortage:
            return False
        outgoing.flights.finished(flight, accepted=False)
        if lost == 1:
            return False
        try:
            incoming.open(sealed, "c", own=True)
        except REFUSALS:
            return False
        control = msgspec.json.decode(sealed.clear, type=LinkControl)
        pending = outgoing.pending
        try:
            wanted = incoming.lookup(control)
            found = dict(zip(pending.offer.key_ids, pending.bits, strict=True)) if pending and wanted else {}
            for number, key_id in enumerate(list(found)):
                if missing & 1 << number % 8:
                    del found[key_id]
                elif spoil:
                    found[key_id] = self.random.randbytes(32)
                    self.spoiled.add(key_id)
            confirmation = incoming.confirm(control, found)
        except OfferRefused:
            return False
        if confirmation.record is not None:
            record = confirmation.record
            try:
                self.surviving(receiver, lambda: receiver.write(record))
            except Crash:
                return False
        incoming.confirmed(confirmation)
        try:
            answer, reply_flight = receiver.outgoing.seal(
                "c",
                msgspec.json.encode(confirmation.reply),
                b"",
                Stream.CONTROL,
                0.0,
                own=True,
                associated=confirmation.bits,
                answers=flight.id,
            )
        except PadShortage:
            return False
        receiver.outgoing.flights.finished(reply_flight, accepted=False)
        if lost == 2:
            return False
        reply = msgspec.json.decode(answer.clear, type=LinkControlReply)
        try:
            sender.incoming.open(
                answer, "c", own=True, associated=outgoing.offered_bits(message, reply.missing), answers=flight.id
            )
        except AuthenticationFailed:
            assert pending is not None
            assert self.spoiled.intersection(pending.offer.key_ids)
            self._commit(sender, outgoing.mismatched(message))
            return False
        except REFUSALS:
            return False
        outgoing.flights.finished(flight, accepted=True)
        return self._commit(sender, outgoing.answered(message, reply))

    def heal(self) -> None:
        """Without an adversary both ends come to one view, and messages pass in both directions."""
        for end in self.ends:
            end.crash_at = 0
        assert self.establish()
        self.same_view()
        for index in (0, 1):
            for stream in (Stream.CONTROL, Stream.PAYLOAD, Stream.CONTROL, Stream.PAYLOAD):
                self.exchange(index, stream, 12)
            self.exchange(index, Stream.CONTROL, 0)
        self.same_view()
        for index in (0, 1):
            assert self.send(index, 40)
            assert self.deliver(index, -1)

    def same_view(self) -> None:
        for index in (0, 1):
            outgoing, incoming = self.ends[index].outgoing, self.ends[1 - index].incoming
            for stream in Stream:
                out, into = outgoing.streams[stream], incoming.streams[stream]
                for block in out.blocks:
                    start = max(block.start, out.position)
                    twin = next(each for each in into.blocks if each.number == block.number)
                    assert (twin.start, twin.end) == (block.start, block.end)
                    assert twin.material.reveal(start - block.start) == block.material.reveal(start - block.start)
                assert {each.number for each in into.blocks} == {each.number for each in out.blocks}

    def _lease(self, end: End) -> None:
        record = end.outgoing.lease({Stream.PAYLOAD: 60, Stream.CONTROL: 32})
        if record is not None:
            end.write(record)
            end.outgoing.committed(record)

    def _commit(self, end: End, record: Record | None) -> bool:
        if record is None:
            return True
        try:
            self.surviving(end, lambda: end.write(record))
        except Crash:
            return False
        end.outgoing.committed(record)
        return True


@contextlib.contextmanager
def watched(world: World) -> Iterator[None]:
    """Show the oracle whatever any sender takes of QKD-made pad."""
    plain = SenderPads.take

    def take(pads: SenderPads, count: int, keep: int = 0) -> tuple[int, bytes]:
        offset, bits = plain(pads, count, keep)
        world.oracle.take(bits)
        return offset, bits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SenderPads, "take", take)
        yield


INDEX = st.integers(0, 1)
STREAMS = st.sampled_from([Stream.CONTROL, Stream.PAYLOAD])
RARELY = st.sampled_from([0, 0, 0, 1])
OPERATIONS = st.one_of(
    st.tuples(st.just("send"), INDEX, st.sampled_from([0, 0, 20, 50])),
    st.tuples(st.just("send"), INDEX, st.sampled_from([0, 0, 20, 50])),
    st.tuples(st.just("deliver"), INDEX, st.integers(-3, 30), st.sampled_from([0, 0, 0, 1, 2, 3, 70, 200])),
    st.tuples(st.just("deliver"), INDEX, st.just(-1), st.just(0)),
    st.tuples(
        st.just("exchange"),
        INDEX,
        STREAMS,
        st.integers(0, 12),
        st.sampled_from([0, 0, 0, 1, 2]),
        st.sampled_from([0, 0, 1, 5, 255]),
        RARELY,
    ),
    st.tuples(st.just("exchange"), INDEX, STREAMS, st.just(8), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("establish"), st.sampled_from([0, 0, 0, 1, 2, 3, 4])),
    st.tuples(st.just("crash"), INDEX),
    st.tuples(st.just("crash at a write"), INDEX, st.integers(1, 4)),
    st.tuples(st.just("snapshot"), INDEX),
    st.tuples(st.just("restore"), INDEX, st.integers(-3, 10)),
    st.tuples(st.just("destroy"), INDEX),
)


def play(world: World, operations: list[tuple[object, ...]]) -> None:
    steps: dict[str, Callable[..., object]] = {
        "send": world.send,
        "deliver": world.deliver,
        "exchange": world.exchange,
        "establish": world.establish,
    }
    for name, *arguments in operations:
        if name in steps:
            steps[str(name)](*arguments)
            continue
        index = arguments[0]
        assert isinstance(index, int)
        end = world.ends[index]
        if name == "crash":
            end.start()
        elif name == "crash at a write":
            assert isinstance(arguments[1], int)
            end.crash_at = arguments[1]
        elif name == "snapshot":
            world.snapshots[index].append(end.snapshot())
        elif world.doubtful in (None, index):
            snapshots = world.snapshots[index]
            which = arguments[1] if name == "restore" else 0
            assert isinstance(which, int)
            end.durable = {
                side: (state, dict(rows)) for side, (state, rows) in snapshots[which % len(snapshots)].items()
            }
            world.doubtful = index
            end.start()


FILL: list[tuple[object, ...]] = [
    ("establish", 0),
    *[("exchange", index, stream, 10, 0, 0, 0) for index in (0, 1) for stream in (Stream.CONTROL, Stream.PAYLOAD)],
    *[("exchange", index, Stream.CONTROL, 0, 0, 0, 0) for index in (0, 1)],
]


@pytest.mark.parametrize("suites", [("otp",), ("aes-256-gcm",)])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), filled=st.booleans(), operations=st.lists(OPERATIONS, max_size=50))
def test_whatever_happens_no_pad_serves_twice_and_both_ends_agree(
    suites: tuple[str, ...], seed: int, filled: bool, operations: list[tuple[object, ...]]
) -> None:
    world = World(seed, suites)
    with watched(world):
        play(world, [*(FILL if filled else []), *operations])
        world.heal()


def test_a_crash_in_the_middle_of_a_lease_reuses_nothing() -> None:
    world = World(1, ("otp",))
    with watched(world):
        play(world, FILL)
        for _ in range(5):
            for index in (0, 1):
                world.send(index, 20)
            play(world, [("crash", 0), *FILL, ("crash", 1), *FILL])
        world.heal()


CRASH_AND_GO_ON: list[tuple[object, ...]] = [
    *FILL,
    ("send", 0, 50),
    ("crash", 0),
    ("establish", 0),
    ("exchange", 0, Stream.PAYLOAD, 0, 0, 0, 0),
    ("exchange", 0, Stream.PAYLOAD, 0, 0, 0, 0),
    ("send", 0, 50),
]
RESTORE_AND_GO_ON: list[tuple[object, ...]] = [
    ("establish", 0),
    *[("exchange", index, stream, 16, 0, 0, 0) for index in (0, 1) for stream in (Stream.CONTROL, Stream.PAYLOAD)],
    ("snapshot", 0),
    ("exchange", 0, Stream.CONTROL, 0, 0, 0, 0),
    *[("send", 0, 50), ("exchange", 0, Stream.CONTROL, 0, 0, 0, 0)] * 4,
    ("restore", 0, 1),
    ("establish", 0),
    *[("exchange", 0, Stream.CONTROL, 0, 0, 0, 0), ("send", 0, 50)] * 4,
]
DOUBLE: list[tuple[object, ...]] = [*FILL, ("send", 0, 50), ("deliver", 0, -1, 0), ("deliver", 0, -1, 0)]


def test_a_sender_that_forgot_its_lease_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SenderPads.__init__

    def forgetful(pads: SenderPads, *arguments: object, position: int = 0, **others: object) -> None:
        plain(pads, *arguments, position=min(position, 0), **others)  # type: ignore[arg-type]

    world = World(2, ("otp",))
    with watched(world):
        play(world, CRASH_AND_GO_ON)
    monkeypatch.setattr(SenderPads, "__init__", forgetful)
    world = World(2, ("otp",))
    with watched(world), pytest.raises(Reused):
        play(world, CRASH_AND_GO_ON)


def test_ends_that_trusted_a_restored_store_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(3, ("otp",))
    with watched(world):
        play(world, RESTORE_AND_GO_ON)
    monkeypatch.setattr("keyhaul.link.reconciliation._older", lambda sender, receiver: "")
    world = World(3, ("otp",))
    with watched(world), pytest.raises(Reused):
        play(world, RESTORE_AND_GO_ON)


def test_a_receiver_without_a_window_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(4, ("aes-256-gcm",))
    with watched(world):
        play(world, DOUBLE)
    monkeypatch.setattr("keyhaul.link.window.ReplayWindow.check", lambda window, sequence: None)
    world = World(4, ("aes-256-gcm",))
    with watched(world), pytest.raises(Doubled):
        play(world, DOUBLE)
