"""Each hop holds each path to what it may carry, and no path suffers for another."""

from __future__ import annotations

import random

import pytest
from prometheus_client import generate_latest
from prometheus_client.registry import CollectorRegistry

from keyhaul.transport.messages.relay import Acknowledge, Forward, RelayFailure, RelayOutcome, Submit
from services.ckms.choice import PathChoice
from services.ckms.effects import SendAcknowledge, SendForward, TellOutcome
from services.ckms.forwarding import Entry, ForwardingTable, Hop, InvalidForwarding, Path, PathLabel
from services.ckms.metrics import CarrierCollector
from services.ckms.policing import Limit, Traffic
from services.ckms.relay import Relay

GOLD, SILVER, GOLD_ON, SILVER_ON, DETOUR = (PathLabel(character * 16) for character in "abcde")
BATCH = bytes(1000)
NARROW = Limit(rate=1000.0, burst=2000)


def relay_of(*, paths: list[Path] | None = None, choice: PathChoice | None = None) -> Relay:
    table = ForwardingTable("ckms-2", ["ckms-1", "ckms-3"], delivers=True)
    entries = [
        Entry(GOLD, "ckms-1", Hop("ckms-3", GOLD_ON), "gold", NARROW),
        Entry(SILVER, "ckms-1", Hop("ckms-3", SILVER_ON), "silver"),
    ]
    table.replace(entries, paths or [])
    return Relay(table, choice or PathChoice(), random.Random(3).randbytes)


def carried(relay: Relay, label: PathLabel, now: float, batches: int = 1) -> int:
    """Send batches under a label at a moment; how many went on."""
    gone = 0
    for _ in range(batches):
        reference = random.randbytes(8).hex()
        message = Forward(label=label, reference=reference, batch="1" * 32, remaining_ms=1000)
        (effect,) = relay.forward("ckms-1", message, BATCH, now)
        if isinstance(effect, SendForward):
            gone += 1
        else:
            assert effect == SendAcknowledge("ckms-1", RelayOutcome(reference, RelayFailure.BUSY), now + 1.0)
    return gone


def test_an_entry_lets_its_burst_through_and_then_its_rate() -> None:
    relay = relay_of()
    assert carried(relay, GOLD, 0.0, 10) == 2
    assert carried(relay, GOLD, 0.9, 10) == 0
    assert sum(carried(relay, GOLD, 1.0 + second, 10) for second in range(20)) == 20


def test_each_place_counts_what_it_carried_and_goes_on_when_its_statement_is_renewed() -> None:
    relay = relay_of()
    carried(relay, GOLD, 0.0, 5)
    carried(relay, SILVER, 0.0, 3)
    relay._table.amend(
        [Entry(SILVER, "ckms-1", Hop("ckms-3", SILVER_ON), "silver")],
        [Entry(SILVER, "ckms-1", Hop("ckms-3", SILVER_ON), "silver", NARROW, serial=7)],
    )
    carried(relay, SILVER, 0.0, 3)
    traffic = relay.police.traffic
    assert traffic(("ckms-1", GOLD)) == Traffic(2, 2 * len(BATCH), 3)
    assert traffic(("ckms-1", SILVER)) == Traffic(5, 5 * len(BATCH), 1)
    assert traffic(("ckms-1", GOLD_ON)) == Traffic()


def test_one_path_beyond_its_limit_costs_another_nothing() -> None:
    relay = relay_of()
    for tenth in range(100):
        carried(relay, GOLD, tenth / 10, 10)
        assert carried(relay, SILVER, tenth / 10, 5) == 5


def test_what_is_policed_leaves_nothing_in_flight_and_is_counted_by_neighbour_and_class() -> None:
    relay = relay_of()
    carried(relay, GOLD, 0.0, 5)
    assert relay.in_flight == 2
    policed = relay.police.policed["ckms-1", "gold"]
    assert (policed.batches, policed.bytes) == (3, 3000)


def test_metrics_tell_what_was_policed() -> None:
    class Lost:
        acknowledgements_lost = outcomes_lost = 0

    relay, registry = relay_of(), CollectorRegistry()
    carried(relay, GOLD, 0.0, 5)
    registry.register(CarrierCollector(relay, Lost()))  # type: ignore[arg-type]
    text = generate_latest(registry).decode()
    assert 'keyhaul_ckms_policed_total{neighbour="ckms-1",service_class="gold"} 3.0' in text
    assert 'keyhaul_ckms_policed_bytes_total{neighbour="ckms-1",service_class="gold"} 3000.0' in text


def test_a_batch_greater_than_the_burst_passes_a_full_bucket_and_is_paid_for_after() -> None:
    relay = relay_of()
    table_of_one = [Entry(GOLD, "ckms-1", Hop("ckms-3", GOLD_ON), "gold", Limit(1000.0, 100))]
    relay._table.replace(table_of_one, [])
    assert carried(relay, GOLD, 0.0, 3) == 1
    assert carried(relay, GOLD, 0.9) == 0
    assert carried(relay, GOLD, 1.0) == 1


def submit(relay: Relay, service_class: str, number: int, now: float) -> SendForward | TellOutcome:
    request = Submit(
        batch=f"{number:032x}", destination="ckms-9", bits=BATCH, service_class=service_class, remaining_ms=1000
    )
    (effect,) = relay.submit(request, lambda *_: True, now)
    assert isinstance(effect, SendForward | TellOutcome)
    return effect


PATHS = [
    Path("ckms-9", 0, Hop("ckms-3", GOLD_ON), "gold", NARROW),
    Path("ckms-9", 1, Hop("ckms-1", DETOUR), "gold"),
    Path("ckms-9", 0, Hop("ckms-3", DETOUR)),
]


def test_a_class_takes_its_own_paths_and_others_those_for_any() -> None:
    table = ForwardingTable("ckms-2", ["ckms-1", "ckms-3"], delivers=True)
    table.replace([], PATHS)
    relay = Relay(table, PathChoice(), random.Random(3).randbytes)
    gold, bronze = submit(relay, "gold", 1, 0.0), submit(relay, "bronze", 2, 0.0)
    assert isinstance(gold, SendForward)
    assert isinstance(bronze, SendForward)
    assert (gold.message.label, bronze.message.label) == (GOLD_ON, DETOUR)


def test_submissions_are_policed_where_they_enter() -> None:
    table = ForwardingTable("ckms-2", ["ckms-1", "ckms-3"], delivers=True)
    table.replace([], PATHS)
    relay = Relay(table, PathChoice(), random.Random(3).randbytes)
    effects = [submit(relay, "gold", number, 0.0) for number in range(3)]
    assert [isinstance(effect, SendForward) for effect in effects] == [True, True, False]
    assert effects[2] == TellOutcome(f"{2:032x}", RelayFailure.BUSY)
    assert relay.police.policed["akms", "gold"].batches == 1
    assert isinstance(submit(relay, "silver", 9, 0.0), SendForward)


def test_a_path_on_which_somebody_was_too_busy_stays_first_choice() -> None:
    """Else what is policed on one path would go over the detour instead."""
    table = ForwardingTable("ckms-2", ["ckms-1", "ckms-3"], delivers=True)
    table.replace([], PATHS)
    choice = PathChoice()
    relay = Relay(table, choice, random.Random(3).randbytes)
    for number, failure in enumerate([RelayFailure.BUSY, RelayFailure.UNREACHABLE]):
        onward = submit(relay, "gold", number, 0.0)
        assert isinstance(onward, SendForward)
        relay.acknowledge(
            onward.neighbour, Acknowledge(outcomes=[RelayOutcome(onward.message.reference, failure)]), 0.1
        )
        assert choice.on_probation(PATHS[0]) == (failure is RelayFailure.UNREACHABLE)


def test_buckets_of_entries_that_are_gone_are_dropped_when_another_comes() -> None:
    relay = relay_of()
    for number in range(100):
        label = PathLabel(f"{number:016x}")
        relay._table.replace([Entry(label, "ckms-1", Hop("ckms-3", GOLD_ON))], [])
        carried(relay, label, 0.0)
    assert len(relay.police._held) <= 1


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (Entry(GOLD, "ckms-1", None, "tin"), "no class"),
        (Entry(GOLD, "ckms-1", None, "gold", Limit(0.0, 1)), "more than 0"),
        (Entry(GOLD, "ckms-1", None, None, Limit(1.0, 0)), "more than 0"),
    ],
)
def test_a_table_with_an_impossible_limit_is_refused_whole(entry: Entry, says: str) -> None:
    table = ForwardingTable("ckms-2", ["ckms-1"], delivers=True)
    with pytest.raises(InvalidForwarding, match=says):
        table.replace([entry], [])
    assert table.entries == ()
