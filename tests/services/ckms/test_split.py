"""Class split through relays: shares over paths that meet nowhere, with messages lost, doubled, late and altered."""

from __future__ import annotations

import pickle
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.keys.material import xor
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.relay import Acknowledge, Expect, Forward, RelayFailure, RelayOutcome, Submit
from services.ckms.bounds import HOP_MARGIN_MS
from services.ckms.choice import PathChoice
from services.ckms.combining import Spoiled
from services.ckms.effects import DeliverBatch, Effect, SendAcknowledge, SendForward, StopSending, TellOutcome
from services.ckms.forwarding import Entry, ForwardingTable, Hop, InvalidForwarding, Path, PathLabel
from services.ckms.policing import Limit
from services.ckms.relay import Relay
from services.ckms.sending import SPREAD
from services.ckms.shares import join, name_of

BATCH = "1" * 32
BITS = random.Random(9).randbytes(96)
SOURCE, END = "ckms-s", "ckms-t"


def label(number: int) -> PathLabel:
    return PathLabel(f"{number:016x}")


def always(_neighbour: str, _length: int) -> bool:
    return True


@dataclass
class Wide:
    """From s to t over as many paths as there are shares, that of number n with n + 1 nodes in between."""

    chance: random.Random
    shares: int = 2
    spare: int = 0
    """Further paths, of class silver."""
    limit: Limit = field(default_factory=Limit)
    loss: float = 0.0
    doubling: float = 0.0
    failures: float = 0.0
    """How many of 1 messages a link refuses to take, and the AKMS to receive."""
    altering: float = 0.0
    unannounced: float = 0.0
    patient: bool = True
    """Whether links take what is sent at once; otherwise after a while, which may be too late."""
    now: float = 0.0
    relays: dict[str, Relay] = field(default_factory=dict)
    choice: PathChoice = field(default_factory=PathChoice)
    waiting: list[tuple[float, str, Any]] = field(default_factory=list)
    unsent: dict[str, tuple[float, SendForward]] = field(default_factory=dict)
    """What the source's links have not taken yet, by reference."""
    submitted: dict[str, bytes] = field(default_factory=dict)
    altered: set[str] = field(default_factory=set)
    """Names of shares that were."""
    delivered: list[DeliverBatch] = field(default_factory=list)
    outcomes: list[tuple[str, RelayFailure | None]] = field(default_factory=list)
    seen: defaultdict[str, list[SendForward]] = field(default_factory=lambda: defaultdict(list))
    """What each node got."""
    stopped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        total = self.shares + self.spare
        between = {number: [f"ckms-{number}{place}" for place in range(number + 1)] for number in range(total)}
        firsts, lasts = [nodes[0] for nodes in between.values()], [nodes[-1] for nodes in between.values()]
        source = ForwardingTable(SOURCE, firsts, delivers=True)
        end = ForwardingTable(END, lasts, delivers=True)
        serial = 0
        for number, nodes in between.items():
            split = number < self.shares
            service_class = "split" if split else "silver"
            whole = [SOURCE, *nodes, END]
            labels = [label(self.chance.getrandbits(63)) for _ in whole]
            serial += 1
            share = (number, self.shares) if split else (0, 1)
            first = Hop(nodes[0], labels[1])
            path = Path(END, number, first, service_class, self.limit, "g" * split, *share, serial)
            source.amend([], [path])
            for place in range(1, len(whole)):
                onward = Hop(whole[place + 1], labels[place + 1]) if place + 1 < len(whole) else None
                entry = Entry(labels[place], whole[place - 1], onward, service_class, self.limit, None, serial)
                if onward is None:
                    end.amend([], [entry])
                    continue
                table = ForwardingTable(whole[place], (whole[place - 1], whole[place + 1]), delivers=False)
                table.amend([], [entry])
                self.relays[whole[place]] = Relay(table, PathChoice(), self.chance.randbytes)
        self.relays[SOURCE] = Relay(source, self.choice, self.chance.randbytes)
        self.relays[END] = Relay(end, PathChoice(), self.chance.randbytes)

    def submit(
        self, batch: str = BATCH, bits: bytes = BITS, service_class: str = "split", remaining_ms: int = 2_000
    ) -> None:
        """The AKMSs at both ends: submitted here, announced there, sooner or later."""
        self.submitted[batch] = bits
        request = Submit(
            batch=batch, destination=END, bits=bits, service_class=service_class, remaining_ms=remaining_ms
        )
        self.follow(SOURCE, self.relays[SOURCE].submit(request, always, self.now))
        if self.chance.random() >= self.unannounced:
            self.waiting.append((self.now + self.chance.uniform(0.0, 0.1), END, Expect(batch=batch, length=len(bits))))

    def follow(self, at: str, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendForward():
                    if at == SOURCE and not self.patient:
                        self.unsent[effect.message.reference] = (self.now + self.chance.uniform(0.0, 1.0), effect)
                    else:
                        self.send(at, effect)
                case SendAcknowledge():
                    self.carry(effect.neighbour, (at, Acknowledge(outcomes=[effect.outcome])))
                case DeliverBatch():
                    refused = self.chance.random() < self.failures
                    if not refused:
                        self.delivered.append(effect)
                    failure = RelayFailure.REFUSED if refused else None
                    self.follow(at, self.relays[at].finished(effect.reference, failure, self.now))
                case TellOutcome():
                    self.outcomes.append((effect.batch, effect.failure))
                case StopSending():
                    for reference in effect.references:
                        if self.unsent.pop(reference, None) is not None:
                            self.stopped[reference] += 1
                            self.relays[at].unsent(reference)

    def send(self, at: str, effect: SendForward) -> None:
        if self.chance.random() < self.failures:
            failure = RelayFailure.UNREACHABLE
            self.follow(at, self.relays[at].failed(effect.message.reference, failure, self.now))
        else:
            self.carry(effect.neighbour, (at, effect))

    def carry(self, to: str, message: tuple[str, Any]) -> None:
        copies = 0 if self.chance.random() < self.loss else 1 + (self.chance.random() < self.doubling)
        for _ in range(copies):
            self.waiting.append((self.now + self.chance.uniform(0.0, 0.05), to, message))

    def run(self, seconds: float = 4.0) -> None:
        """Until nothing is under way and every deadline has passed."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.01
            for reference, (due, effect) in list(self.unsent.items()):
                if due <= self.now and self.unsent.pop(reference, None) is not None:
                    self.send(SOURCE, effect)
            arrived = [one for one in self.waiting if one[0] <= self.now]
            self.waiting = [one for one in self.waiting if one[0] > self.now]
            for _, to, message in arrived:
                self.take(to, message)
            for name, relay in self.relays.items():
                self.follow(name, relay.expire(self.now))

    def take(self, to: str, message: Any) -> None:
        relay = self.relays[to]
        if isinstance(message, Expect):
            self.follow(to, relay.expect(message, self.now))
            return
        sender, said = message
        if isinstance(said, Acknowledge):
            self.follow(to, relay.acknowledge(sender, said, self.now))
            return
        self.seen[to].append(said)
        bits = said.bits
        if to not in (SOURCE, END) and self.chance.random() < self.altering:
            self.altered.add(said.message.batch)
            bits = xor(bits, b"\x01" + bytes(len(bits) - 1))
        self.follow(to, relay.forward(sender, said.message, bits, self.now, always))

    @property
    def between(self) -> dict[str, list[SendForward]]:
        return {node: got for node, got in self.seen.items() if node not in (SOURCE, END)}

    def names(self, batch: str) -> list[str]:
        return [name_of(batch, number, self.shares) for number in range(self.shares)]


@pytest.mark.parametrize("shares", [2, 3, 5])
def test_a_key_arrives_whole_once_and_its_sender_hears_one_outcome(shares: int) -> None:
    wide = Wide(random.Random(1), shares)
    wide.submit()
    wide.run()
    [delivery] = wide.delivered
    assert (delivery.batch, delivery.bits, delivery.shares) == (BATCH, BITS, shares)
    assert wide.outcomes == [(BATCH, None)]
    assert wide.relays[END].counts.delivered == 1
    assert wide.relays[SOURCE].counts.divided == 1
    assert wide.relays[SOURCE].counts.share_bytes == shares * len(BITS)
    assert all(relay.in_flight == 0 for relay in wide.relays.values())


def test_no_node_between_the_ends_sees_more_than_one_share_or_anything_common_to_two() -> None:
    wide = Wide(random.Random(2), 3)
    for number in range(40):
        wide.submit(f"{number:032x}", random.Random(number).randbytes(64))
    wide.run()
    assert len(wide.delivered) == 40
    paths: dict[str, set[str]] = {}
    for node, got in wide.between.items():
        assert len(got) == 40
        paths.setdefault(node[5], set()).update(node for _ in got)
        for batch, bits in wide.submitted.items():
            assert sum(one.message.batch in wide.names(batch) for one in got) == 1
            assert batch not in {one.message.batch for one in got}
            assert bits not in {one.bits for one in got}
    marks: dict[str, set[str]] = defaultdict(set)
    for node, got in wide.between.items():
        for one in got:
            marks[node[5]] |= {one.message.batch, one.message.label, one.message.reference, one.bits.hex()}
    assert len(marks) == 3
    assert not marks["0"] & marks["1"]
    assert not marks["0"] & marks["2"]
    assert not marks["1"] & marks["2"]


def test_the_time_that_is_left_does_not_tell_which_shares_belong_together() -> None:
    wide = Wide(random.Random(3), 2)
    left: list[list[int]] = []
    for number in range(50):
        request = Submit(batch=f"{number:032x}", destination=END, bits=BITS, service_class="split", remaining_ms=5_000)
        effects = wide.relays[SOURCE].submit(request, always, 0.0)
        left.append([one.message.remaining_ms for one in effects if isinstance(one, SendForward)])
    longest, shortest = 5_000 - HOP_MARGIN_MS, 5_000 * (1 - SPREAD) - HOP_MARGIN_MS - 1
    assert all(shortest <= one <= longest for pair in left for one in pair)
    assert sum(first == second for first, second in left) <= 3
    assert len({one for pair in left for one in pair}) > 60


def test_all_shares_but_one_are_random_bits_that_say_nothing_of_the_key() -> None:
    """The same draws with another key: whoever sees all paths but one sees the same."""
    seen = []
    for bits in (BITS, bytes(len(BITS))):
        wide = Wide(random.Random(4), 3)
        wide.submit(bits=bits)
        wide.run()
        seen.append({node: [one.bits for one in got] for node, got in wide.between.items()})
    changed = {node[5] for node in seen[0] if seen[0][node] != seen[1][node]}
    assert changed == {"2"}


def test_a_retry_has_fresh_shares_under_fresh_names() -> None:
    """A node of a path that is new may have seen another share of the attempt before."""
    wide = Wide(random.Random(5), 2)
    for batch in (BATCH, "2" * 32):
        wide.submit(batch)
    wide.run()
    shares = {one.message.batch: one.bits for got in wide.between.values() for one in got}
    assert len(set(shares.values())) == len(shares) == 4
    together = [{one, other} for one, other in combinations(shares, 2) if join([shares[one], shares[other]]) == BITS]
    assert len(together) == 2
    assert all(set(wide.names(batch)) in together for batch in wide.submitted)
    with pytest.raises(ServiceError) as refused:
        wide.submit(BATCH)
    assert refused.value.code is ErrorCode.CONFLICT


def fail_first(wide: Wide) -> tuple[list[Effect], SendForward]:
    """Submit, and have the first share fail where it starts; returns what follows, and the other share."""
    request = Submit(batch=BATCH, destination=END, bits=BITS, service_class="split", remaining_ms=2_000)
    first, second = wide.relays[SOURCE].submit(request, always, 0.0)
    assert isinstance(first, SendForward)
    assert isinstance(second, SendForward)
    return wide.relays[SOURCE].failed(first.message.reference, RelayFailure.NO_KEYS, 0.1), second


def test_when_one_share_fails_the_batch_has_failed_and_the_others_are_not_sent() -> None:
    wide = Wide(random.Random(6))
    relay = wide.relays[SOURCE]
    effects, second = fail_first(wide)
    assert effects == [TellOutcome(BATCH, RelayFailure.NO_KEYS), StopSending((second.message.reference,))]
    assert not relay.waits(second.message.reference)
    relay.unsent(second.message.reference)
    assert relay.in_flight == 0
    assert relay.failed(second.message.reference, RelayFailure.UNREACHABLE, 0.2) == []
    on_trial = {path.share: wide.choice.on_probation(path) for path in relay._table.shares_to(END)}
    assert on_trial == {0: True, 1: False}
    assert relay.counts.failures[RelayFailure.NO_KEYS] == 1


def test_a_share_that_has_left_is_followed_to_its_end_and_says_how_its_own_path_is() -> None:
    wide = Wide(random.Random(7))
    relay = wide.relays[SOURCE]
    _, second = fail_first(wide)
    answer = Acknowledge(outcomes=[RelayOutcome(second.message.reference, RelayFailure.UNREACHABLE)])
    assert relay.acknowledge(second.neighbour, answer, 0.3) == []
    assert all(wide.choice.on_probation(path) for path in relay._table.shares_to(END))
    assert relay.counts.strays == 0


def test_the_end_that_waits_in_vain_for_a_share_does_not_blame_the_path_of_another() -> None:
    wide = Wide(random.Random(8), patient=True)
    dropped: list[str] = []
    carry = wide.carry

    def lose(to: str, message: tuple[str, Any]) -> None:
        if to == "ckms-00" and isinstance(message[1], SendForward):
            dropped.append(to)
        else:
            carry(to, message)

    wide.carry = lose  # type: ignore[method-assign]
    wide.submit()
    wide.run()
    assert dropped
    assert wide.delivered == []
    [(_, failure)] = wide.outcomes
    assert failure is RelayFailure.REFUSED
    on_trial = {path.share: wide.choice.on_probation(path) for path in wide.relays[SOURCE]._table.shares_to(END)}
    assert on_trial == {0: True, 1: False}
    assert wide.relays[END].combining.spoiled[Spoiled.INCOMPLETE] == 1


def test_with_fewer_paths_than_shares_nothing_is_sent_and_nothing_weaker_taken() -> None:
    """Though other paths lead there, and all shares but one still have theirs."""
    wide = Wide(random.Random(9), 2, spare=2)
    relay = wide.relays[SOURCE]
    table = relay._table
    lost = table.shares_to(END)[1]
    table.amend([lost], [])
    request = Submit(batch=BATCH, destination=END, bits=BITS, service_class="split", remaining_ms=2_000)
    assert relay.submit(request, always, 0.0) == [TellOutcome(BATCH, RelayFailure.UNREACHABLE)]
    table.amend(table.shares_to(END), [])
    request = Submit(batch="2" * 32, destination=END, bits=BITS, service_class="split", remaining_ms=2_000)
    assert relay.submit(request, always, 0.0) == [TellOutcome("2" * 32, RelayFailure.NO_PATH)]
    assert relay.counts.forwarded == 0


def test_a_link_that_is_down_fails_the_batch_before_any_share_leaves() -> None:
    wide = Wide(random.Random(10))
    request = Submit(batch=BATCH, destination=END, bits=BITS, service_class="split", remaining_ms=2_000)

    def ready(neighbour: str, _length: int) -> bool:
        return neighbour != "ckms-10"

    effects = wide.relays[SOURCE].submit(request, ready, 0.0)
    assert effects == [TellOutcome(BATCH, RelayFailure.UNREACHABLE)]


def test_each_share_is_policed_at_each_hop() -> None:
    wide = Wide(random.Random(11), limit=Limit(rate=1.0, burst=len(BITS)))
    wide.submit()
    wide.submit("2" * 32)
    wide.run()
    assert wide.outcomes == [("2" * 32, RelayFailure.BUSY), (BATCH, None)]
    for name, relay in wide.relays.items():
        assert [relay.police.traffic(place).bytes for place in relay._table.places()] == [len(BITS)] * (
            2 if name in (SOURCE, END) else 1
        )


def test_a_whole_key_that_comes_where_shares_do_is_not_delivered() -> None:
    """The name of a batch is no name of a share: whoever guesses it gains nothing."""
    wide = Wide(random.Random(12))
    relay = wide.relays[END]
    entry = next(entry for entry in relay._table.entries if entry.previous == "ckms-00")
    assert relay.expect(Expect(batch=BATCH, length=len(BITS)), 0.0) == []
    message = Forward(label=entry.label, reference="9" * 16, batch=BATCH, remaining_ms=1_000)
    assert relay.forward("ckms-00", message, BITS, 0.0) == []
    [answer] = relay.expire(1.0)
    assert isinstance(answer, SendAcknowledge)
    assert answer.outcome == RelayOutcome("9" * 16, RelayFailure.REFUSED)
    assert relay.combining.spoiled[Spoiled.UNEXPECTED] == 1


@pytest.mark.parametrize(("batch", "length"), [("no name", 5), (BATCH, 0), (BATCH, (1 << 20) + 1)])
def test_an_announcement_that_fits_no_batch_is_refused(batch: str, length: int) -> None:
    wide = Wide(random.Random(13))
    with pytest.raises(ServiceError) as refused:
        wide.relays[END].expect(Expect(batch=batch, length=length), 0.0)
    assert refused.value.code is ErrorCode.MALFORMED


def test_an_entry_of_class_split_has_no_detour_and_is_none_of_the_configurations() -> None:
    table = ForwardingTable("ckms-9", ["ckms-1", "ckms-2", "ckms-3"], delivers=False)
    detour = Entry(label(1), "ckms-1", Hop("ckms-2", label(2)), "split", detour=Hop("ckms-3", label(3)), serial=1)
    static = Entry(label(1), "ckms-1", Hop("ckms-2", label(2)), "split")
    for wrong, why in ((detour, "another share"), (static, "the controller alone")):
        with pytest.raises(InvalidForwarding, match=why):
            table.amend([], [wrong])
    assert table.entries == ()


def test_no_bits_stay_at_a_node_in_between_or_at_the_ends() -> None:
    wide = Wide(random.Random(14), 3)
    wide.submit()
    wide.run()
    shares = {one.bits for got in wide.seen.values() for one in got}
    for relay in wide.relays.values():
        for part in (relay._flights._batches, relay.combining._early, relay.combining._sets, relay._joint):
            kept = pickle.dumps(part)
            assert BITS not in kept
            assert not any(share in kept for share in shares)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shares=st.integers(2, 4),
    loss=st.sampled_from([0.0, 0.02, 0.2]),
    doubling=st.sampled_from([0.0, 0.3]),
    failures=st.sampled_from([0.0, 0.05]),
    altering=st.sampled_from([0.0, 0.1]),
    unannounced=st.sampled_from([0.0, 0.2]),
    patient=st.booleans(),
)
def test_whatever_happens_each_batch_has_one_outcome_and_what_is_delivered_is_what_was_sent(
    seed: int,
    shares: int,
    loss: float,
    doubling: float,
    failures: float,
    altering: float,
    unannounced: float,
    patient: bool,
) -> None:
    wide = Wide(
        random.Random(seed),
        shares,
        loss=loss,
        doubling=doubling,
        failures=failures,
        altering=altering,
        unannounced=unannounced,
        patient=patient,
    )
    for number in range(12):
        wide.submit(f"{number:032x}", wide.chance.randbytes(48))
        wide.run(0.1)
    wide.run()
    outcomes = dict(wide.outcomes)
    assert Counter(batch for batch, _ in wide.outcomes) == dict.fromkeys(wide.submitted, 1)
    delivered = {one.batch: one.bits for one in wide.delivered}
    assert len(delivered) == len(wide.delivered)
    for batch, bits in wide.submitted.items():
        untouched = not wide.altered & set(wide.names(batch))
        if outcomes[batch] is None:
            assert batch in delivered
        if batch in delivered and untouched:
            assert delivered[batch] == bits
        for got in wide.between.values():
            assert len({one.message.batch for one in got} & set(wide.names(batch))) <= 1
    if not (loss or failures or unannounced):
        assert set(outcomes.values()) == {None}
    for relay in wide.relays.values():
        assert relay.in_flight == 0
        assert relay.combining.waiting == 0
        assert not relay._joint
