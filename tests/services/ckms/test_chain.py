"""Thirteen relays in a row, with messages lost, doubled and out of order."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.transport.messages.relay import Acknowledge, RelayFailure, Submit
from services.ckms.choice import PathChoice
from services.ckms.effects import DeliverBatch, Effect, SendAcknowledge, SendForward, TellOutcome
from services.ckms.forwarding import Entry, ForwardingTable, Hop, Path, PathLabel
from services.ckms.relay import Relay

NODES = 13


@dataclass
class Chain:
    """Relays 1 … 13, each joined to the next; both ends have an AKMS and a path to the other."""

    chance: random.Random
    loss: float = 0.0
    doubling: float = 0.0
    refusals: float = 0.0
    """How many of 1 messages a link refuses to take, and the AKMS to receive."""
    now: float = 0.0
    relays: dict[str, Relay] = field(default_factory=dict)
    waiting: list[tuple[float, str, Any]] = field(default_factory=list)
    delivered: list[tuple[str, str, bytes]] = field(default_factory=list)
    outcomes: list[tuple[str, str, RelayFailure | None]] = field(default_factory=list)
    references: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        labels = iter(PathLabel(self.chance.randbytes(8).hex()) for _ in range(4 * NODES))
        up = [next(labels) for _ in range(NODES)]
        down = [next(labels) for _ in range(NODES)]
        for place in range(1, NODES + 1):
            end = place in (1, NODES)
            before, after = f"ckms-{place - 1}", f"ckms-{place + 1}"
            table = ForwardingTable(f"ckms-{place}", [before] * (place > 1) + [after] * (place < NODES), delivers=end)
            entries, paths = [], []
            if place > 1:
                entries.append(Entry(up[place - 1], before, None if end else Hop(after, up[place])))
            if place < NODES:
                entries.append(Entry(down[place - 1], after, None if end else Hop(before, down[place - 2])))
            if place == 1:
                paths.append(Path(f"ckms-{NODES}", 0, Hop(after, up[1])))
            if place == NODES:
                paths.append(Path("ckms-1", 0, Hop(before, down[NODES - 2])))
            table.replace(entries, paths)
            self.relays[f"ckms-{place}"] = Relay(table, PathChoice(), self.chance.randbytes)

    def submit(self, at: str, to: str, batch: str, bits: bytes) -> None:
        request = Submit(batch=batch, destination=to, bits=bits, service_class="gold", remaining_ms=2_000)
        self.follow(at, self.relays[at].submit(request, lambda *_: True, self.now))

    def follow(self, at: str, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendForward():
                    self.references[at, effect.message.reference] += 1
                    if self.chance.random() < self.refusals:
                        self.follow(
                            at,
                            self.relays[at].failed(effect.message.reference, RelayFailure.UNREACHABLE, self.now),
                        )
                    self.carry(effect.neighbour, (at, effect))
                case SendAcknowledge():
                    self.carry(effect.neighbour, (at, Acknowledge(outcomes=[effect.outcome])))
                case DeliverBatch():
                    refused = self.chance.random() < self.refusals
                    if not refused:
                        self.delivered.append((at, effect.batch, effect.bits))
                    failure = RelayFailure.REFUSED if refused else None
                    self.follow(at, self.relays[at].finished(effect.reference, failure, self.now))
                case TellOutcome():
                    self.outcomes.append((at, effect.batch, effect.failure))

    def carry(self, to: str, message: tuple[str, Any]) -> None:
        copies = 0 if self.chance.random() < self.loss else 1 + (self.chance.random() < self.doubling)
        for _ in range(copies):
            self.waiting.append((self.now + self.chance.uniform(0.0, 0.05), to, message))

    def run(self) -> None:
        """Until nothing is under way and every deadline has passed."""
        end = self.now + 4.0
        while self.now < end:
            self.now += 0.01
            due = [one for one in self.waiting if one[0] <= self.now]
            self.waiting = [one for one in self.waiting if one[0] > self.now]
            for _, to, (sender, message) in due:
                relay = self.relays[to]
                if isinstance(message, Acknowledge):
                    self.follow(to, relay.acknowledge(sender, message, self.now))
                else:
                    self.follow(to, relay.forward(sender, message.message, message.bits, self.now))
            for name, relay in self.relays.items():
                self.follow(name, relay.expire(self.now))


def test_a_batch_crosses_twelve_hops_and_its_acknowledgement_comes_back() -> None:
    chain = Chain(random.Random(1))
    chain.submit("ckms-1", "ckms-13", "a" * 32, b"there")
    chain.submit("ckms-13", "ckms-1", "b" * 32, b"and back")
    chain.run()

    assert sorted(chain.delivered) == [("ckms-1", "b" * 32, b"and back"), ("ckms-13", "a" * 32, b"there")]
    assert sorted(chain.outcomes) == [("ckms-1", "a" * 32, None), ("ckms-13", "b" * 32, None)]


def test_a_node_sees_no_label_that_another_link_has() -> None:
    chain = Chain(random.Random(2))
    seen: list[str] = []
    carry = chain.carry

    def watch(to: str, message: tuple[str, Any]) -> None:
        if isinstance(message[1], SendForward):
            seen.append(message[1].message.label)
        carry(to, message)

    chain.carry = watch  # type: ignore[method-assign]
    chain.submit("ckms-1", "ckms-13", "a" * 32, b"there")
    chain.run()

    assert len(seen) == NODES - 1
    assert len(set(seen)) == NODES - 1


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.01, 0.1, 1.0]),
    doubling=st.sampled_from([0.0, 0.3]),
    refusals=st.sampled_from([0.0, 0.05]),
)
def test_whatever_is_lost_doubled_or_late_every_submission_has_one_outcome(
    seed: int, loss: float, doubling: float, refusals: float
) -> None:
    chain = Chain(random.Random(seed), loss, doubling, refusals)
    batches = {f"{number:032x}": chain.chance.randbytes(64) for number in range(12)}
    ends = {}
    for place, (batch, bits) in enumerate(batches.items()):
        at, to = ("ckms-1", "ckms-13") if place % 2 else ("ckms-13", "ckms-1")
        ends[batch] = (at, to)
        chain.submit(at, to, batch, bits)
    chain.run()

    assert sorted((batch, at) for at, batch, _ in chain.outcomes) == sorted((b, at) for b, (at, _) in ends.items())
    got = Counter(batch for _, batch, _ in chain.delivered)
    assert set(got.values()) <= {1}
    for at, batch, bits in chain.delivered:
        assert (at, bits) == (ends[batch][1], batches[batch])
    for _, batch, failure in chain.outcomes:
        assert failure is not None or got[batch] == 1
    assert set(chain.references.values()) <= {1}
    for relay in chain.relays.values():
        assert relay.in_flight == 0
        held = pickle.dumps(relay)
        assert not any(bits in held for bits in batches.values())
    if not loss and not refusals:
        assert all(failure is None for _, _, failure in chain.outcomes)
