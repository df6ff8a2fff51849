"""Flows get their turns by weight, and a place is always left for one that comes late."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from keyhaul.pressure.fair import FairOrder, FairQueue, Shares
from keyhaul.pressure.gate import FairGate


def test_a_flow_that_comes_late_is_next_whatever_another_has_waiting() -> None:
    order: FairOrder[str] = FairOrder()
    for number in range(1000):
        order.push(f"greedy {number}", "greedy")
    for _ in range(10):
        order.pop()
    order.push("modest", "modest")
    assert "modest" in [order.pop(), order.pop()]


def test_turns_go_by_weight_and_cost() -> None:
    order: FairOrder[str] = FairOrder()
    for _ in range(300):
        order.push("double", "double", weight=2.0)
        order.push("single", "single", weight=1.0)
        order.push("large", "large", cost=4.0, weight=1.0)
    count = Counter(order.pop() for _ in range(130))
    assert count["double"] == pytest.approx(2 * count["single"], rel=0.05)
    assert count["single"] == pytest.approx(4 * count["large"], rel=0.1)


def test_one_flow_is_served_in_the_order_in_which_it_came() -> None:
    order: FairOrder[int] = FairOrder()
    for number in range(10):
        order.push(number)
    assert order.remove(4)
    assert not order.remove(4)
    assert order.head() == 0
    assert [order.pop() for _ in range(10)] == [0, 1, 2, 3, 5, 6, 7, 8, 9, None]


def test_a_flow_that_was_idle_saves_nothing_up() -> None:
    order: FairOrder[str] = FairOrder()
    for _ in range(100):
        order.push("busy", "busy")
        order.pop()
    for _ in range(10):
        order.push("busy", "busy")
        order.push("idle", "idle")
    count = Counter(order.pop() for _ in range(10))
    assert count["busy"] == count["idle"]


def test_what_is_remembered_of_flows_is_bounded() -> None:
    order: FairOrder[int] = FairOrder()
    order.push(-1, "always waiting", cost=1e9)
    order.push(-2, "always waiting")
    order.pop()
    for number in range(5000):
        order.push(number, number, cost=0.001)
        order.pop(lambda flow: flow != "always waiting")
    assert len(order._finish) < 1100


def test_no_flow_holds_more_places_than_are_left() -> None:
    shares = Shares(8)
    assert [shares.take("greedy") for _ in range(8)].count(True) == 4
    assert [shares.take("second") for _ in range(8)].count(True) == 2
    assert shares.take("third")
    assert shares.take("fourth")
    assert not shares.take("fifth")
    shares.give_back("greedy")
    assert shares.take("fifth")
    assert shares.held == 8


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_the_smallest_numbers_of_places_let_somebody_in(limit: int) -> None:
    shares = Shares(limit)
    assert shares.take("a")
    shares.give_back("a")
    assert shares.take("b")


def test_prefetch_waits_for_demand_and_gets_half_of_the_places_at_most() -> None:
    queue = FairQueue(4)
    prefetch = [queue.ask(f"flow {number}", urgent=False) for number in range(8)]
    assert [turn for turn in prefetch if turn in queue.admit()]
    assert queue.held == 2
    demand = [queue.ask(f"other {number}") for number in range(2)]
    assert set(queue.admit()) == set(demand)
    late = queue.ask("flow 9")
    queue.leave(next(turn for turn in prefetch if turn.admitted))
    assert queue.admit() == [late]


def test_who_gives_up_leaves_his_turn_to_the_next() -> None:
    queue = FairQueue(1)
    first, second, third = (queue.ask(name) for name in ("a", "b", "c"))
    assert queue.admit() == [first]
    queue.leave(second)
    queue.leave(first)
    assert queue.admit() == [third]
    assert queue.waiting == 0


async def test_a_gate_lets_so_many_in_and_forgets_who_was_cancelled() -> None:
    gate, inside, most = FairGate(3), 0, 0

    async def work(flow: str) -> None:
        nonlocal inside, most
        async with gate.enter(flow):
            inside += 1
            most = max(most, inside)
            try:
                await asyncio.sleep(0)
            finally:
                inside -= 1

    tasks = [asyncio.create_task(work(f"flow {number % 4}")) for number in range(60)]
    await asyncio.sleep(0)
    for task in tasks[::7]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3
    assert gate.held == gate.waiting == 0
    async with asyncio.timeout(1), gate.enter("flow 0"):
        assert gate.held == 1


async def test_a_greedy_flow_in_the_gate_delays_another_by_no_more_than_a_turn() -> None:
    gate, order = FairGate(4), []

    async def work(flow: str) -> None:
        async with gate.enter(flow):
            await asyncio.sleep(0)
            order.append(flow)

    greedy = [asyncio.create_task(work("greedy")) for _ in range(100)]
    await asyncio.sleep(0)
    modest = asyncio.create_task(work("modest"))
    await asyncio.gather(modest, *greedy)
    assert order.index("modest") <= 4
