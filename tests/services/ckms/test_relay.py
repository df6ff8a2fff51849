"""The relay of one node: each batch has one outcome, each message the right answer."""

from __future__ import annotations

import pickle
import random
from itertools import count

import pytest

from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.relay import Acknowledge, Forward, RelayFailure, RelayOutcome, Submit
from services.ckms.bounds import HOP_MARGIN_MS, MAXIMUM_BATCH, MAXIMUM_REMAINING_MS
from services.ckms.choice import PathChoice
from services.ckms.effects import DeliverBatch, Effect, SendAcknowledge, SendForward, TellOutcome
from services.ckms.forwarding import Entry, ForwardingTable, Hop, Path, PathLabel
from services.ckms.relay import Relay

IN, HERE, OUT, DETOUR = (PathLabel(character * 16) for character in "abcd")
BATCH = "1" * 32
BITS = b"not to be kept anywhere at all"
REFERENCE = "9" * 16


def always(_neighbour: str, _length: int) -> bool:
    return True


def relay_of(capacity: int = 100) -> Relay:
    table = ForwardingTable("ckms-2", ["ckms-1", "ckms-3", "ckms-16"], delivers=True)
    table.replace(
        [Entry(IN, "ckms-1", Hop("ckms-3", OUT)), Entry(HERE, "ckms-1", None)],
        [Path("ckms-9", 0, Hop("ckms-3", HERE)), Path("ckms-9", 1, Hop("ckms-16", DETOUR))],
    )
    return Relay(table, PathChoice(), random.Random(7).randbytes, capacity=capacity)


def submit(batch: str = BATCH, *, destination: str = "ckms-9", remaining_ms: int = 1000, bits: bytes = BITS) -> Submit:
    return Submit(batch=batch, destination=destination, bits=bits, service_class="gold", remaining_ms=remaining_ms)


def forward(label: str = IN, reference: str = REFERENCE, *, batch: str = BATCH, remaining_ms: int = 1000) -> Forward:
    return Forward(label=label, reference=reference, batch=batch, remaining_ms=remaining_ms)


def only(effects: list[Effect]) -> Effect:
    assert len(effects) == 1
    return effects[0]


def sent(effects: list[Effect]) -> SendForward:
    effect = only(effects)
    assert isinstance(effect, SendForward)
    return effect


def answer(reference: str, failure: RelayFailure | None = None) -> Acknowledge:
    return Acknowledge(outcomes=[RelayOutcome(reference, failure)])


def acknowledged(failure: RelayFailure | None, deadline: float, reference: str = REFERENCE) -> list[Effect]:
    return [SendAcknowledge("ckms-1", RelayOutcome(reference, failure), deadline)]


def test_a_batch_goes_on_under_the_next_label_and_a_fresh_reference_with_less_time() -> None:
    effect = sent(relay_of().forward("ckms-1", forward(), BITS, now=50.0))

    assert (effect.neighbour, effect.message.label, effect.bits) == ("ckms-3", OUT, BITS)
    assert effect.message.reference != REFERENCE
    assert effect.message.remaining_ms == 1000 - HOP_MARGIN_MS
    assert effect.message.batch == BATCH


def test_the_outcome_goes_back_under_the_previous_hops_reference() -> None:
    relay = relay_of()
    onward = sent(relay.forward("ckms-1", forward(), BITS, 0.0))

    assert relay.acknowledge("ckms-3", answer(onward.message.reference), 0.1) == acknowledged(None, 1.0)
    assert relay.in_flight == 0


def test_a_batch_for_this_node_is_delivered_and_acknowledged_when_the_akms_has_it() -> None:
    relay = relay_of()
    effect = only(relay.forward("ckms-1", forward(HERE), BITS, 0.0))

    assert isinstance(effect, DeliverBatch)
    assert (effect.batch, effect.bits) == (BATCH, BITS)
    assert relay.finished(effect.reference, None, 0.2) == acknowledged(None, 1.0)
    assert relay.counts.delivered == 1


@pytest.mark.parametrize("failure", list(RelayFailure))
def test_a_failure_further_on_or_here_goes_back_with_its_reason(failure: RelayFailure) -> None:
    relay = relay_of()
    onward = sent(relay.forward("ckms-1", forward(), BITS, 0.0))
    assert relay.acknowledge("ckms-3", answer(onward.message.reference, failure), 0.1) == acknowledged(failure, 1.0)

    onward = sent(relay.forward("ckms-1", forward(reference="8" * 16), BITS, 0.0))
    assert relay.failed(onward.message.reference, failure, 0.1) == acknowledged(failure, 1.0, "8" * 16)


@pytest.mark.parametrize(
    ("message", "bits", "failure"),
    [
        (forward(label=OUT), BITS, RelayFailure.NO_PATH),
        (forward(remaining_ms=0), BITS, RelayFailure.DEADLINE),
        (forward(remaining_ms=-5), BITS, RelayFailure.DEADLINE),
        (forward(remaining_ms=HOP_MARGIN_MS), BITS, RelayFailure.DEADLINE),
        (forward(), b"", RelayFailure.REFUSED),
        (forward(), bytes(MAXIMUM_BATCH + 1), RelayFailure.REFUSED),
        (forward(batch="no name"), BITS, RelayFailure.REFUSED),
    ],
)
def test_a_batch_that_cannot_go_on_is_answered_and_nothing_of_it_stays(
    message: Forward, bits: bytes, failure: RelayFailure
) -> None:
    relay = relay_of()
    effect = only(relay.forward("ckms-1", message, bits, 0.0))

    assert isinstance(effect, SendAcknowledge)
    assert effect.outcome == RelayOutcome(REFERENCE, failure)
    assert relay.in_flight == 0


def test_a_label_over_another_neighbour_leads_nowhere() -> None:
    effect = only(relay_of().forward("ckms-3", forward(), BITS, 0.0))

    assert isinstance(effect, SendAcknowledge)
    assert effect.outcome.failure is RelayFailure.NO_PATH


def test_a_batch_without_usable_reference_is_malformed() -> None:
    with pytest.raises(ServiceError) as refused:
        relay_of().forward("ckms-1", forward(reference="x"), BITS, 0.0)
    assert refused.value.code is ErrorCode.MALFORMED


def test_a_duplicate_is_neither_forwarded_nor_answered() -> None:
    relay = relay_of()
    onward = sent(relay.forward("ckms-1", forward(), BITS, 0.0))
    assert relay.forward("ckms-1", forward(), BITS, 0.1) == []
    relay.acknowledge("ckms-3", answer(onward.message.reference), 0.2)
    assert relay.forward("ckms-1", forward(), BITS, 0.3) == []
    assert relay.counts.duplicates == 2


def test_the_same_reference_from_another_neighbour_is_another_batch() -> None:
    relay = relay_of()
    first = only(relay.forward("ckms-1", forward(), BITS, 0.0))
    second = only(relay.forward("ckms-3", forward(), BITS, 0.0))

    assert isinstance(first, SendForward)
    assert isinstance(second, SendAcknowledge)


def test_only_the_neighbour_that_got_a_batch_may_acknowledge_it_and_only_once() -> None:
    relay = relay_of()
    reference = sent(relay.forward("ckms-1", forward(), BITS, 0.0)).message.reference

    assert relay.acknowledge("ckms-16", answer(reference), 0.1) == []
    assert relay.acknowledge("ckms-3", answer("0" * 16), 0.1) == []
    assert len(relay.acknowledge("ckms-3", answer(reference), 0.1)) == 1
    assert relay.acknowledge("ckms-3", answer(reference), 0.1) == []
    assert relay.counts.strays == 3


def test_a_neighbour_cannot_acknowledge_what_waits_for_the_akms() -> None:
    relay = relay_of()
    effect = only(relay.forward("ckms-1", forward(HERE), BITS, 0.0))
    assert isinstance(effect, DeliverBatch)

    assert relay.acknowledge("ckms-1", answer(effect.reference), 0.1) == []
    assert relay.in_flight == 1


def test_what_is_late_fails_once_and_later_words_on_it_are_ignored() -> None:
    relay = relay_of()
    reference = sent(relay.forward("ckms-1", forward(), BITS, 0.0)).message.reference

    assert relay.expire(0.99) == []
    assert relay.expire(1.0) == acknowledged(RelayFailure.DEADLINE, 1.0)
    assert relay.expire(2.0) == []
    assert relay.acknowledge("ckms-3", answer(reference), 2.0) == []
    assert relay.failed(reference, RelayFailure.UNREACHABLE, 2.0) == []


def test_what_waits_for_a_neighbour_that_is_lost_fails_and_the_rest_stays() -> None:
    relay = relay_of()
    relay.forward("ckms-1", forward(), BITS, 0.0)
    relay.forward("ckms-1", forward(HERE, "7" * 16), BITS, 0.0)
    assert relay.awaited() == {"ckms-3"}

    assert relay.lost("ckms-16", 0.5) == []
    assert relay.lost("ckms-3", 0.5) == acknowledged(RelayFailure.UNREACHABLE, 1.0)
    assert relay.in_flight == 1
    assert relay.awaited() == set()


def test_a_far_deadline_is_shortened() -> None:
    relay = relay_of()
    effect = sent(relay.forward("ckms-1", forward(remaining_ms=10**9), BITS, 0.0))

    assert effect.message.remaining_ms == MAXIMUM_REMAINING_MS - HOP_MARGIN_MS


def test_a_submission_takes_rank_0_and_its_outcome_is_told() -> None:
    relay = relay_of()
    effect = sent(relay.submit(submit(), always, 0.0))

    assert (effect.neighbour, effect.message.label) == ("ckms-3", HERE)
    assert relay.acknowledge("ckms-3", answer(effect.message.reference), 0.1) == [TellOutcome(BATCH, None)]


def test_after_a_failure_the_next_submission_takes_the_detour_until_rank_0_works_again() -> None:
    relay = relay_of()
    names = (f"{number:032x}" for number in count())

    def attempt(now: float, failure: RelayFailure | None) -> str:
        effect = sent(relay.submit(submit(next(names)), always, now))
        relay.acknowledge(effect.neighbour, answer(effect.message.reference, failure), now)
        return effect.neighbour

    assert attempt(0.0, RelayFailure.UNREACHABLE) == "ckms-3"
    assert attempt(0.1, None) == "ckms-16"
    assert attempt(4.9, None) == "ckms-16"
    assert attempt(5.0, RelayFailure.UNREACHABLE) == "ckms-3"
    assert attempt(14.9, None) == "ckms-16"
    assert attempt(15.0, None) == "ckms-3"
    assert attempt(15.1, None) == "ckms-3"


def test_a_refusal_by_the_far_akms_does_not_blame_the_path() -> None:
    relay = relay_of()
    first = sent(relay.submit(submit(), always, 0.0))
    relay.acknowledge("ckms-3", answer(first.message.reference, RelayFailure.REFUSED), 0.1)

    assert sent(relay.submit(submit("2" * 32), always, 0.2)).neighbour == "ckms-3"


def test_without_path_or_link_the_outcome_is_told_at_once() -> None:
    relay = relay_of()

    assert relay.submit(submit(destination="ckms-77"), always, 0.0) == [TellOutcome(BATCH, RelayFailure.NO_PATH)]
    assert relay.submit(submit("2" * 32), lambda *_: False, 0.0) == [TellOutcome("2" * 32, RelayFailure.UNREACHABLE)]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (submit(batch="x"), ErrorCode.MALFORMED),
        (submit(bits=b""), ErrorCode.MALFORMED),
        (submit(bits=bytes(MAXIMUM_BATCH + 1)), ErrorCode.MALFORMED),
        (submit(remaining_ms=0), ErrorCode.DEADLINE),
    ],
)
def test_a_wrong_submission_is_refused(request_: Submit, code: ErrorCode) -> None:
    with pytest.raises(ServiceError) as refused:
        relay_of().submit(request_, always, 0.0)
    assert refused.value.code is code


def test_a_batch_is_submitted_under_one_name_once() -> None:
    relay = relay_of()
    relay.submit(submit(), always, 0.0)

    with pytest.raises(ServiceError) as refused:
        relay.submit(submit(), always, 0.1)
    assert refused.value.code is ErrorCode.CONFLICT


def test_a_full_table_refuses_what_comes_and_takes_again_when_something_ended() -> None:
    relay = relay_of(capacity=1)
    relay.submit(submit(), always, 0.0)

    with pytest.raises(ServiceError) as refused:
        relay.submit(submit("2" * 32), always, 0.1)
    assert refused.value.code is ErrorCode.BUSY
    sent(relay.forward("ckms-1", forward(), BITS, 0.1))
    busy = only(relay.forward("ckms-1", forward(reference="8" * 16), BITS, 0.2))
    assert isinstance(busy, SendAcknowledge)
    assert busy.outcome.failure is RelayFailure.BUSY
    relay.expire(1.1)
    sent(relay.forward("ckms-1", forward(reference="7" * 16), BITS, 1.1))


def test_a_neighbour_that_fills_its_share_of_the_table_keeps_no_other_out() -> None:
    relay = relay_of(capacity=3)
    flood = [relay.forward("ckms-1", forward(reference=f"{number:016x}"), BITS, 0.0) for number in range(20)]
    assert sum(isinstance(only(effects), SendForward) for effects in flood) == 3
    assert isinstance(only(relay.submit(submit(), always, 0.0)), SendForward)
    onward = [Entry(IN, "ckms-1", Hop("ckms-3", OUT)), Entry(IN, "ckms-16", Hop("ckms-3", DETOUR))]
    relay._table.replace(onward, [])
    assert isinstance(only(relay.forward("ckms-16", forward(), BITS, 0.0)), SendForward)


def test_what_is_remembered_of_duplicates_is_bounded() -> None:
    relay = relay_of(capacity=2)
    for number in range(500):
        effects = relay.forward("ckms-1", forward(reference=f"{number:016x}", remaining_ms=100), BITS, number * 1.0)
        reference = sent(effects).message.reference
        relay.acknowledge("ckms-3", answer(reference), number * 1.0)
        relay.expire(number * 1.0)

    assert len(pickle.dumps(relay)) < 10_000


def test_a_stopping_service_sends_batches_back() -> None:
    effect = only(relay_of().refuse("ckms-1", forward(), RelayFailure.UNREACHABLE, 0.0))

    assert isinstance(effect, SendAcknowledge)
    assert effect.outcome == RelayOutcome(REFERENCE, RelayFailure.UNREACHABLE)


def test_bits_show_in_no_text_and_do_not_stay() -> None:
    relay = relay_of()
    effects = relay.forward("ckms-1", forward(), BITS, 0.0) + relay.forward("ckms-1", forward(HERE, "7" * 16), BITS, 0)

    assert "not to be kept" not in repr(effects)
    assert BITS not in pickle.dumps(relay)


def test_a_batch_goes_around_a_link_that_is_down_while_there_is_a_way() -> None:
    detour = Hop("ckms-16", PathLabel("f" * 16))
    table = ForwardingTable("ckms-2", ["ckms-1", "ckms-3", "ckms-16"], delivers=True)
    table.replace([Entry(IN, "ckms-1", Hop("ckms-3", OUT), detour=detour)], [])
    relay = Relay(table, PathChoice(), random.Random(1).randbytes)
    down: set[str] = set()

    def hop(reference: str) -> tuple[str, str]:
        message = forward(reference=reference * 16)
        effect = sent(relay.forward("ckms-1", message, BITS, 0.0, lambda neighbour, _: neighbour not in down))
        return effect.neighbour, effect.message.label

    assert hop("1") == ("ckms-3", OUT)
    down.add("ckms-3")
    assert hop("2") == ("ckms-16", detour.label)
    down.add("ckms-16")
    assert hop("3") == ("ckms-3", OUT)
    down.clear()
    assert hop("4") == ("ckms-3", OUT)
    assert relay.counts.detoured == 1
