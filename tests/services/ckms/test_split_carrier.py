"""The driver and class split: shares leave over their links, are stopped there, and are put together for the AKMS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from keyhaul.randomness import random_bytes
from keyhaul.transport.interface import Peer
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.relay import Acknowledge, Deliver, Expect, Forward, Outcome, RelayFailure, RelayOutcome
from keyhaul.transport.messages.relay import Submit as Submission
from keyhaul.transport.operations import CARRIER_EXPECT, CARRIER_SUBMIT
from services.ckms.forwarding import Entry, ForwardingTable, Hop, Path, PathLabel
from services.ckms.metrics import CarrierCollector
from services.ckms.shares import divide, name_of
from tests.services.ckms.carrying import AKMS, NEXT, PREVIOUS, Carried, FakeLinks

BATCH = "5" * 32
BITS = b"bits that only the two ends should ever have"
IN, BESIDE, OUT, AROUND = (PathLabel(character * 16) for character in "abcd")


class Bench(Carried):
    """A carrier with two shares' paths to ckms-9, over ckms-3 and ckms-16, and two that end here."""

    def __init__(self) -> None:
        links = FakeLinks()
        table = ForwardingTable("ckms-2", links.links, delivers=True)
        table.amend(
            [],
            [
                Entry(IN, "ckms-1", None, "split", serial=1),
                Entry(BESIDE, "ckms-3", None, "split", serial=2),
                Path("ckms-9", 0, Hop("ckms-3", OUT), "split", group="g", share=0, shares=2, serial=3),
                Path("ckms-9", 1, Hop("ckms-16", AROUND), "split", group="g", share=1, shares=2, serial=4),
            ],
        )
        super().__init__(table, links)

    async def ask(self, operation: Any, request: Any, peer: Any = AKMS) -> None:
        route = self.routes.find(operation.path)
        assert route is not None
        await route.handler(Peer(peer, None), request)  # type: ignore[arg-type]

    async def submit(self) -> None:
        request = Submission(batch=BATCH, destination="ckms-9", bits=BITS, service_class="split", remaining_ms=30_000)
        await self.ask(CARRIER_SUBMIT, request)

    async def forward(self, label: str, reference: str, name: str, bits: bytes, previous: Any) -> None:
        request = Forward(label=label, reference=reference, batch=name, remaining_ms=30_000)
        assert await self.links.handlers["relay.forward"](previous, request, bits) == (None, b"")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as made:
        yield made


async def test_shares_leave_over_two_links_and_one_outcome_comes_of_both(bench: Bench) -> None:
    await bench.submit()
    one, other = await bench.sent_to("ckms-3"), await bench.sent_to("ckms-16")
    assert {one.batch, other.batch} == {name_of(BATCH, 0, 2), name_of(BATCH, 1, 2)}
    for neighbour, message in (("ckms-3", one), ("ckms-16", other)):
        assert bench.akms.got.empty()
        name = bench.links.to(neighbour).neighbour
        await bench.links.handlers["relay.acknowledge"](
            name, Acknowledge(outcomes=[RelayOutcome(message.reference)]), b""
        )
    assert await bench.told() == Outcome(batch=BATCH)
    metrics = CarrierCollector(bench.relay, bench.carrier).collect()
    shown = {metric.name: metric.samples[0].value for metric in metrics if metric.samples}
    assert shown["keyhaul_ckms_divided_bytes"] == len(BITS)
    assert shown["keyhaul_ckms_share_bytes"] == 2 * len(BITS)


@pytest.mark.parametrize("slow", ["ckms-3", "ckms-16"])
async def test_a_share_that_waits_for_its_link_is_not_sent_when_another_fails(bench: Bench, slow: str) -> None:
    """Whether its sending had begun or not."""
    fast = ({"ckms-3", "ckms-16"} - {slow}).pop()
    bench.links.to(slow).open.clear()
    bench.links.to(fast).failure = ErrorCode.EXHAUSTED
    await bench.submit()
    assert await bench.told() == Outcome(batch=BATCH, failure=RelayFailure.NO_KEYS)
    async with asyncio.timeout(5):
        while bench.relay.in_flight or bench.carrier._sending:
            await asyncio.sleep(0)
    bench.links.to(slow).open.set()
    await asyncio.sleep(0)
    assert bench.links.to(slow).sent.empty()
    assert all(not shares.held for shares in bench.carrier._forwarding.values())


async def test_where_the_first_link_takes_nothing_more_the_other_share_never_leaves(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ckms.carrier.FORWARDS_PER_NEIGHBOUR", 0)
    await bench.submit()
    assert await bench.told() == Outcome(batch=BATCH, failure=RelayFailure.BUSY)
    assert bench.relay.in_flight == 0
    assert bench.links.to("ckms-3").attempts == bench.links.to("ckms-16").attempts == 0


async def test_shares_are_put_together_for_the_akms_and_each_hop_hears_what_it_said(bench: Bench) -> None:
    first, second = divide(BITS, 2, random_bytes)
    await bench.forward(IN, "1" * 16, name_of(BATCH, 0, 2), first, PREVIOUS)
    await bench.ask(CARRIER_EXPECT, Expect(batch=BATCH, length=len(BITS)))
    assert bench.akms.got.empty()
    await bench.forward(BESIDE, "2" * 16, name_of(BATCH, 1, 2), second, NEXT)
    assert await bench.told() == Deliver(batch=BATCH, bits=BITS, shares=2)
    assert (await bench.sent_to("ckms-1")).outcomes == [RelayOutcome("1" * 16)]
    assert (await bench.sent_to("ckms-3")).outcomes == [RelayOutcome("2" * 16)]


async def test_what_the_akms_refuses_is_refused_to_both(bench: Bench) -> None:
    bench.akms.failures = [ErrorCode.CONFLICT]
    await bench.ask(CARRIER_EXPECT, Expect(batch=BATCH, length=len(BITS)))
    for number, (label, previous, share) in enumerate(
        zip((IN, BESIDE), (PREVIOUS, NEXT), divide(BITS, 2, random_bytes), strict=True)
    ):
        await bench.forward(label, f"{number}" * 16, name_of(BATCH, number, 2), share, previous)
    refused = RelayFailure.REFUSED
    assert (await bench.sent_to("ckms-1")).outcomes == [RelayOutcome("0" * 16, refused)]
    assert (await bench.sent_to("ckms-3")).outcomes == [RelayOutcome("1" * 16, refused)]


async def test_only_the_akms_of_the_node_says_what_is_on_its_way(bench: Bench) -> None:
    with pytest.raises(ServiceError) as refused:
        await bench.ask(CARRIER_EXPECT, Expect(batch=BATCH, length=1), PREVIOUS)
    assert refused.value.code is ErrorCode.FORBIDDEN


async def test_what_waits_is_wiped_when_the_service_stops(bench: Bench) -> None:
    await bench.forward(IN, "1" * 16, name_of(BATCH, 0, 2), BITS, PREVIOUS)
    [held] = [one.bits for one in bench.relay.combining._early.values()]
    bench.carrier.close()
    assert not any(held.reveal())
