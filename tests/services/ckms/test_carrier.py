"""The driver between links and AKMS: one-way handlers, bounded tasks, coalesced acknowledgements, clean stop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from keyhaul.identity.names import Role, ServiceName
from keyhaul.transport.interface import Peer
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.relay import Acknowledge, Deliver, Forward, Outcome, RelayFailure, RelayOutcome, Submit
from keyhaul.transport.operations import (
    CARRIER_SUBMIT,
)
from services.ckms.carrier import FORWARDS_PER_NEIGHBOUR
from services.ckms.forwarding import Entry, ForwardingTable, Hop, Path, PathLabel
from tests.services.ckms.carrying import AKMS, NEXT, PREVIOUS, Carried, FakeLinks, service

IN, HERE, OUT, DETOUR, AROUND = (PathLabel(character * 16) for character in "abcde")
BITS = b"bits that are gone when the transport took them"


class Bench(Carried):
    """One carrier between fakes, and its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.looks = 0
        self.pauses: list[float] = []
        links = FakeLinks()
        table = ForwardingTable("ckms-2", links.links, delivers=True)
        table.replace(
            [
                Entry(IN, "ckms-1", Hop("ckms-3", OUT)),
                Entry(HERE, "ckms-1", None),
                Entry(AROUND, "ckms-1", Hop("ckms-3", AROUND), detour=Hop("ckms-16", AROUND)),
            ],
            [Path("ckms-9", 0, Hop("ckms-3", HERE)), Path("ckms-9", 1, Hop("ckms-16", DETOUR))],
        )
        super().__init__(table, links, clock=self.clock, pause=self.pause)

    def clock(self) -> float:
        self.looks += 1
        return self.now

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.002)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    async def submit(self, batch: str = "0" * 32, *, peer: ServiceName = AKMS, bits: bytes = BITS) -> None:
        route = self.routes.find(CARRIER_SUBMIT.path)
        assert route is not None
        request = Submit(batch=batch, destination="ckms-9", bits=bits, service_class="gold", remaining_ms=2_000)
        assert isinstance(await route.handler(Peer(peer, None), request), Accepted)  # type: ignore[arg-type]

    async def forward(self, label: str = IN, reference: str = "1" * 16, bits: bytes = BITS) -> None:
        request = Forward(label=label, reference=reference, batch="0" * 32, remaining_ms=2_000)
        assert await self.links.handlers["relay.forward"](PREVIOUS, request, bits) == (None, b"")

    async def acknowledge(self, reference: str, failure: RelayFailure | None = None, by: ServiceName = NEXT) -> None:
        request = Acknowledge(outcomes=[RelayOutcome(reference, failure)])
        assert await self.links.handlers["relay.acknowledge"](by, request, b"") == (None, b"")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as made:
        yield made


async def test_a_batch_goes_from_link_to_link_and_its_outcome_back(bench: Bench) -> None:
    await bench.forward()
    onward = await bench.sent_to("ckms-3")
    assert (onward.label, onward.batch, onward.remaining_ms) == (OUT, "0" * 32, 1_990)
    await bench.acknowledge(onward.reference)

    assert await bench.sent_to("ckms-1") == Acknowledge(outcomes=[RelayOutcome("1" * 16)])


async def test_a_batch_for_this_node_reaches_its_akms(bench: Bench) -> None:
    await bench.forward(HERE)

    assert await bench.told() == Deliver(batch="0" * 32, bits=BITS)
    assert await bench.sent_to("ckms-1") == Acknowledge(outcomes=[RelayOutcome("1" * 16)])


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (ErrorCode.CONFLICT, RelayFailure.REFUSED),
        (ErrorCode.UNREACHABLE, RelayFailure.UNREACHABLE),
        (ErrorCode.BUSY, RelayFailure.BUSY),
        (ErrorCode.DEADLINE, RelayFailure.DEADLINE),
    ],
)
async def test_what_the_akms_does_not_take_is_answered(bench: Bench, code: ErrorCode, failure: RelayFailure) -> None:
    bench.akms.failures = [code]
    await bench.forward(HERE)

    assert (await bench.sent_to("ckms-1")).outcomes == [RelayOutcome("1" * 16, failure)]


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (ErrorCode.EXHAUSTED, RelayFailure.NO_KEYS),
        (ErrorCode.UNREACHABLE, RelayFailure.UNREACHABLE),
        (ErrorCode.DEADLINE, RelayFailure.DEADLINE),
        (ErrorCode.AUTHENTICATION, RelayFailure.UNREACHABLE),
    ],
)
async def test_what_the_next_hop_does_not_take_is_answered(
    bench: Bench, code: ErrorCode, failure: RelayFailure
) -> None:
    bench.links.to("ckms-3").failure = code
    await bench.forward()

    assert (await bench.sent_to("ckms-1")).outcomes == [RelayOutcome("1" * 16, failure)]


async def test_an_akms_submits_and_hears_the_outcome(bench: Bench) -> None:
    await bench.submit()
    onward = await bench.sent_to("ckms-3")
    await bench.acknowledge(onward.reference)

    assert await bench.told() == Outcome(batch="0" * 32)


async def test_after_a_failure_the_next_submission_goes_by_the_detour(bench: Bench) -> None:
    bench.links.to("ckms-3").failure = ErrorCode.UNREACHABLE
    await bench.submit()
    assert await bench.told() == Outcome(batch="0" * 32, failure=RelayFailure.UNREACHABLE)
    await bench.submit("2" * 32)

    assert (await bench.sent_to("ckms-16")).label == DETOUR


async def test_a_first_link_that_is_down_or_has_too_few_pads_is_passed_over(bench: Bench) -> None:
    first = bench.links.to("ckms-3")
    first.up = False
    await bench.submit()
    assert await bench.sent_to("ckms-16")
    first.up, first.suite, first.payload = True, "otp", len(BITS) + 15
    await bench.submit("2" * 32)
    assert await bench.sent_to("ckms-16")
    first.payload += 1
    await bench.submit("3" * 32)

    assert await bench.sent_to("ckms-3")


async def test_what_comes_in_goes_around_a_link_that_is_down(bench: Bench) -> None:
    bench.links.to("ckms-3").up = False
    await bench.forward(AROUND)
    assert (await bench.sent_to("ckms-16")).label == AROUND
    bench.links.to("ckms-3").up = True
    await bench.forward(AROUND, "2" * 16)

    assert (await bench.sent_to("ckms-3")).label == AROUND


async def test_only_the_akms_of_this_node_submits(bench: Bench) -> None:
    told: list[Submit] = []
    bench.carrier.on_submitted = told.append
    with pytest.raises(ServiceError) as error:
        await bench.submit(peer=service(Role.AKMS, "14"))
    assert told == []
    await bench.submit()
    assert [request.destination for request in told] == ["ckms-9"]
    await bench.acknowledge((await bench.sent_to("ckms-3")).reference)

    assert error.value.code is ErrorCode.FORBIDDEN
    assert bench.relay.in_flight == 0


async def test_an_outcome_is_offered_until_the_akms_takes_it(bench: Bench) -> None:
    bench.akms.failures = [ErrorCode.UNREACHABLE, ErrorCode.DEADLINE]
    await bench.submit()
    await bench.acknowledge((await bench.sent_to("ckms-3")).reference)

    assert await bench.told() == Outcome(batch="0" * 32)
    assert bench.pauses == [0.1, 0.2]


async def test_an_outcome_that_the_akms_never_takes_is_counted_as_lost(bench: Bench) -> None:
    bench.akms.failures = [ErrorCode.UNREACHABLE] * 1_000
    await bench.submit()
    await bench.acknowledge((await bench.sent_to("ckms-3")).reference)
    async with asyncio.timeout(5):
        while not bench.carrier.outcomes_lost:
            await asyncio.sleep(0)

    assert sum(bench.pauses) <= 30.0


async def test_acknowledgements_that_gather_go_together(bench: Bench) -> None:
    back = bench.links.to("ckms-1")
    back.open.clear()
    for number in range(10):
        await bench.forward(PathLabel("f" * 16), f"{number:016x}")
    await asyncio.sleep(0)
    back.open.set()
    counts = [len((await bench.sent_to("ckms-1")).outcomes)]
    while sum(counts) < 10:
        counts.append(len((await bench.sent_to("ckms-1")).outcomes))

    assert len(counts) <= 2


async def test_an_acknowledgement_that_failed_is_sent_again_while_it_is_of_use(bench: Bench) -> None:
    back = bench.links.to("ckms-1")
    back.failure = ErrorCode.UNREACHABLE
    await bench.forward(PathLabel("f" * 16))
    async with asyncio.timeout(5):
        while not bench.pauses:
            await asyncio.sleep(0)
    back.failure = None
    assert (await bench.sent_to("ckms-1")).outcomes == [RelayOutcome("1" * 16, RelayFailure.NO_PATH)]

    back.failure = ErrorCode.UNREACHABLE
    await bench.forward(PathLabel("f" * 16), "2" * 16)
    async with asyncio.timeout(5):
        while not bench.carrier.acknowledgements_lost:
            await asyncio.sleep(0)


async def test_more_than_one_neighbour_can_take_is_busy(bench: Bench) -> None:
    bench.links.to("ckms-3").open.clear()
    most_of_one_path = FORWARDS_PER_NEIGHBOUR // 2
    for number in range(most_of_one_path + 1):
        await bench.forward(reference=f"{number:016x}")

    last = f"{most_of_one_path:016x}"
    assert (await bench.sent_to("ckms-1")).outcomes == [RelayOutcome(last, RelayFailure.BUSY)]
    assert bench.relay.in_flight == most_of_one_path


async def test_what_no_answer_comes_for_fails_at_its_deadline(bench: Bench) -> None:
    await bench.forward()
    await bench.sent_to("ckms-3")
    bench.now += 2.1

    assert (await bench.sent_to("ckms-1")).outcomes == [RelayOutcome("1" * 16, RelayFailure.DEADLINE)]


async def test_what_was_sent_over_a_link_that_went_down_fails_at_once(bench: Bench) -> None:
    await bench.submit()
    await bench.sent_to("ckms-3")
    bench.links.to("ckms-3").up = False
    await bench.until(lambda: bool(bench.carrier._down_since))
    bench.now += 0.2

    assert await bench.told() == Outcome(batch="0" * 32, failure=RelayFailure.UNREACHABLE)


async def test_a_neighbour_is_watched_while_it_owes_an_acknowledgement_and_no_answer(bench: Bench) -> None:
    link = bench.links.to("ckms-3")
    for number in range(20):
        await bench.forward(reference=f"{number:016x}")
    onward = [await bench.sent_to("ckms-3") for _ in range(20)]
    await bench.until(lambda: link.expected == 1)
    assert bench.links.to("ckms-16").expected == 0

    for each in onward[1:]:
        await bench.acknowledge(each.reference)
    looks = bench.looks
    await bench.until(lambda: bench.looks > looks + 1)
    assert link.expected == 1
    await bench.acknowledge(onward[0].reference)
    await bench.until(lambda: link.expected == 0)


async def test_nobody_is_watched_once_the_carrier_is_closed(bench: Bench) -> None:
    await bench.forward()
    await bench.until(lambda: bench.links.to("ckms-3").expected == 1)
    bench.carrier.close()
    await bench.until(lambda: bench.links.to("ckms-3").expected == 0)


async def test_a_link_that_is_down_for_a_moment_fails_nothing(bench: Bench) -> None:
    await bench.forward()
    onward = await bench.sent_to("ckms-3")
    link = bench.links.to("ckms-3")
    link.up = False
    await bench.until(lambda: bool(bench.carrier._down_since))
    link.up = True
    await bench.until(lambda: not bench.carrier._down_since)
    bench.now += 0.2
    await bench.acknowledge(onward.reference)

    assert (await bench.sent_to("ckms-1")).outcomes == [RelayOutcome("1" * 16)]


async def test_the_bits_are_gone_when_the_next_hop_took_them(bench: Bench) -> None:
    bits = bytes(bytearray(b"only this copy"))
    before = sys.getrefcount(bits)
    await bench.forward(bits=bits)
    await bench.sent_to("ckms-3")
    for _ in range(3):
        await asyncio.sleep(0)

    assert bench.relay.in_flight == 1
    assert sys.getrefcount(bits) == before


async def test_the_bits_are_gone_when_the_batch_failed_before_it_was_sent(bench: Bench) -> None:
    bits = bytes(bytearray(b"only this copy"))
    before = sys.getrefcount(bits)
    bench.links.to("ckms-3").open.clear()
    await bench.forward(bits=bits)
    bench.now += 2.1
    assert (await bench.sent_to("ckms-1")).outcomes == [RelayOutcome("1" * 16, RelayFailure.DEADLINE)]
    for _ in range(3):
        await asyncio.sleep(0)

    assert sys.getrefcount(bits) == before


async def test_a_stopping_service_finishes_what_it_has_and_takes_nothing_new(bench: Bench) -> None:
    await bench.forward()
    onward = await bench.sent_to("ckms-3")
    draining = asyncio.create_task(bench.carrier.drain(5.0))
    await asyncio.sleep(0)
    with pytest.raises(ServiceError) as error:
        await bench.submit()
    await bench.forward(reference="2" * 16)
    refused = await bench.sent_to("ckms-1")
    await bench.acknowledge(onward.reference)

    assert error.value.code is ErrorCode.UNREACHABLE
    assert refused.outcomes == [RelayOutcome("2" * 16, RelayFailure.UNREACHABLE)]
    assert await draining
    assert (await bench.sent_to("ckms-1")).outcomes == [RelayOutcome("1" * 16)]


async def test_draining_gives_up_in_time(bench: Bench) -> None:
    bench.links.to("ckms-3").open.clear()
    await bench.forward()

    assert not await bench.carrier.drain(0.01)


async def test_an_unexpected_error_in_a_task_ends_the_service() -> None:
    bench = Bench()

    async def broken(*_arguments: Any, **_keywords: Any) -> None:
        raise RuntimeError("a defect")

    bench.links.to("ckms-3").send = broken  # type: ignore[method-assign]
    running = asyncio.create_task(bench.carrier.run())
    await asyncio.sleep(0)
    await bench.forward()

    with pytest.raises(ExceptionGroup) as error:
        async with asyncio.timeout(5):
            await running
    assert error.group_contains(RuntimeError, match="a defect")


@pytest.mark.parametrize("ends", ["by a failure", "cancelled"])
async def test_while_it_ends_what_comes_is_refused(ends: str) -> None:
    """Its tasks are being cancelled, and connections still bring messages: nothing begins, nothing fails, no place
    stays taken."""
    bench = Bench()
    failing = asyncio.Event()

    async def broken(*_arguments: Any, **_keywords: Any) -> None:
        await failing.wait()
        raise RuntimeError("a defect")

    bench.links.to("ckms-3").send = broken  # type: ignore[method-assign]
    bench.links.to("ckms-1").open.clear()
    running = asyncio.create_task(bench.carrier.run())
    await asyncio.sleep(0)
    await bench.forward()
    await asyncio.sleep(0)
    if ends == "cancelled":
        running.cancel()
    else:
        failing.set()
    number = 1
    while not running.done():
        await asyncio.sleep(0)
        number += 3
        await bench.forward(reference=f"{number:016x}")
        await bench.forward(HERE, f"{number + 1:016x}")
        with suppress(ServiceError):
            await bench.submit(f"{number + 2:032x}")
    assert number < 100
    with pytest.raises(ExceptionGroup if ends == "by a failure" else asyncio.CancelledError):
        await running
    with pytest.raises(ServiceError) as refused:
        await bench.submit()
    assert refused.value.code is ErrorCode.UNREACHABLE
    await asyncio.sleep(0)
    assert not bench.carrier._sending
    assert all(not shares.held for shares in bench.carrier._forwarding.values())


async def test_a_batch_cancelled_before_it_was_sent_occupies_nothing(bench: Bench) -> None:
    """What came and failed between two steps of the loop: its sending never began, and still frees its place."""
    for number in range(2 * FORWARDS_PER_NEIGHBOUR):
        await bench.forward(reference=f"{number:016x}")
        bench.relay.lost("ckms-3", bench.now)
        bench.carrier._stop_sending(bench.carrier._sending)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await bench.forward(reference="e" * 16)
    assert (await bench.sent_to("ckms-3")).label == OUT
