"""A path is asked for when it is needed, once, and not in step with everybody else."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhaul.randomness import Source
from keyhaul.transport.messages.path import PathRefusal, PathReply
from services.ckms.forwarding import Hop, Path, PathLabel
from services.ckms.requesting import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    LONGEST_WAIT,
    MAXIMUM_DEMANDS,
    MAXIMUM_UNDER_WAY,
    RAISING,
    REMEMBERED,
    SETTLING,
    SPREAD,
    Ask,
    Demand,
    Grant,
    Lack,
    Need,
    PathRequests,
    Price,
    lack,
)
from services.ckms.usage import Usage

MISSING = Lack(Need.MISSING)
FAILED = Lack(Need.FAILED, "ckms-3")
ENDING = Lack(Need.ENDING)
DEMAND = Demand("ckms-9", "gold")


def zeros(count: int) -> bytes:
    return bytes(count)


def ones(count: int) -> bytes:
    return b"\xff" * count


def wanting(found: Lack | None) -> Callable[[Demand], Lack | None]:
    return lambda _: found


def plenty(_: Demand) -> Grant:
    return Grant()


def granting(rate: float, refused: int = 0) -> Callable[[Demand], Grant]:
    return lambda _: Grant(rate, refused)


def demanded(source: Source = zeros) -> PathRequests:
    requests = PathRequests(source)
    requests.used("ckms-9", "gold", 6_000, 0.0)
    return requests


def path(rank: int, *, serial: int | None = 1, share: int = 0, shares: int = 1) -> Path:
    first = Hop(f"ckms-{rank + 3}", PathLabel(f"{rank:016x}"))
    return Path("ckms-9", rank, first, serial=serial, share=share, shares=shares, group="g")


def everything(_: Path) -> bool:
    return True


@pytest.mark.parametrize(
    ("paths", "broken", "left", "found"),
    [
        ([], [], 1.0, MISSING),
        ([path(0, serial=None)], [], 1.0, MISSING),
        ([path(0), path(1)], [], 1.0, None),
        ([path(0), path(1)], [0], 1.0, None),
        ([path(0), path(1)], [0, 1], 1.0, FAILED),
        ([path(0), path(1), path(2, serial=None)], [0, 1], 1.0, FAILED),
        ([path(0), path(1)], [], 0.5, None),
        ([path(0), path(1)], [], 0.49, ENDING),
        ([path(0), path(1)], [0], 0.49, Lack(Need.ENDING, "ckms-3")),
        ([path(0, shares=2), path(1, share=1, shares=2)], [0], 1.0, FAILED),
        ([path(0, shares=2), path(1, share=1, shares=2), path(2, shares=2)], [0], 1.0, None),
    ],
)
def test_what_is_wanting(paths: list[Path], broken: list[int], left: float, found: Lack | None) -> None:
    assert lack(paths, lambda one: one.rank not in broken, lambda _: left) == found


def test_what_nobody_uses_is_not_asked_for() -> None:
    assert PathRequests(zeros).due(wanting(MISSING), plenty, 0.0) == []


def test_a_missing_path_is_asked_for_at_once_and_once() -> None:
    requests = demanded()
    [ask] = requests.due(wanting(MISSING), plenty, 0.0)

    assert ask.demand == DEMAND
    assert (ask.request.destination, ask.request.service_class, ask.request.failed) == ("ckms-9", "gold", None)
    assert ask.request.rate == pytest.approx(949, rel=0.01), "over the first seconds, not over a minute"
    requests.used("ckms-9", "gold", 100, 0.1)
    assert requests.due(wanting(MISSING), plenty, 100.0) == []


def test_the_rate_follows_what_is_submitted() -> None:
    requests = PathRequests(zeros)
    for second in range(600):
        requests.used("ckms-9", "gold", 1_000, float(second))
    [ask] = requests.due(wanting(MISSING), plenty, 600.0)

    assert ask.request.rate == pytest.approx(1_000.0, rel=0.05)


def test_more_is_asked_for_when_what_is_used_outgrows_the_grant_and_seldom() -> None:
    requests, asked = PathRequests(zeros), []
    for tenth in range(600):
        now = tenth / 10
        requests.used("ckms-9", "gold", 200 if now >= 20 else 100, now)
        for ask in requests.due(wanting(None), granting(1_250.0), now):
            asked.append((now, ask.request.rate))
            requests.answered(DEMAND, PathReply(), now)
    times = [now for now, _ in asked]

    assert 20 < times[0] < 25, "as soon as the average has left what is granted behind"
    assert all(later - former >= RAISING for former, later in pairwise(times))
    assert len(asked) <= 4, "it never came: the pauses grow"
    assert asked[0][1] == pytest.approx(1.25 * 1_250.0)
    assert asked[-1][1] == pytest.approx(2_000, rel=0.02)


def test_a_grant_that_serves_is_left_alone() -> None:
    requests = PathRequests(zeros)
    for second in range(100):
        requests.used("ckms-9", "gold", 1_000, float(second))
        assert requests.due(wanting(None), granting(1_400.0), float(second)) == []


def test_a_batch_that_was_refused_here_is_asked_more_for_once() -> None:
    requests = demanded()
    [ask] = requests.due(wanting(None), granting(5_000.0, refused=1), 0.1)
    assert ask.request.rate == 6_250.0
    requests.answered(DEMAND, PathReply(), 0.2)

    assert requests.due(wanting(None), granting(5_000.0, refused=1), 50.0) == []
    assert len(requests.due(wanting(None), granting(5_000.0, refused=2), 50.0)) == 1


def test_a_lack_of_paths_does_not_wait_for_the_pause_of_a_raise() -> None:
    requests = demanded()
    requests.due(wanting(None), granting(100.0), 0.0)
    requests.answered(DEMAND, PathReply(), 0.0)
    assert requests.due(wanting(None), granting(100.0), 1.0) == []

    assert len(requests.due(wanting(FAILED), granting(100.0), 1.0)) == 1


def test_what_was_used_at_the_most_is_asked_for_until_it_is_long_ago() -> None:
    usage = Usage(0.0)
    for second in range(60):
        usage.add(1_000, float(second))
    busy = usage.rate(60.0)
    usage.add(1, 360.0)
    assert usage.rate(360.0) == pytest.approx(busy / 2, rel=0.05)
    assert usage.lately(360.0) < 1
    usage.add(1, 3_600.0)
    assert usage.rate(3_600.0) < 1


def test_a_lower_rate_that_the_controller_offers_is_asked_for_at_once_and_once() -> None:
    refused = PathReply(refusal=PathRefusal.NO_CAPACITY, earliest_s=600.0, rate=400.0)
    requests = demanded()
    requests.due(wanting(MISSING), plenty, 0.0)
    requests.answered(DEMAND, refused, 0.1)
    [ask] = requests.due(wanting(MISSING), plenty, 0.1)
    assert ask.request.rate == 200.0, "others want some too"
    requests.answered(DEMAND, refused, 0.2)

    assert requests.due(wanting(MISSING), plenty, 50.0) == []
    requests = demanded()
    requests.due(wanting(MISSING), plenty, 0.0)
    requests.answered(DEMAND, PathReply(refusal=PathRefusal.NO_CAPACITY, rate=1.0), 0.1)
    assert requests.due(wanting(MISSING), plenty, 0.1) == [], "less than is of use to anybody"


def test_all_paths_failed_names_the_neighbour() -> None:
    [ask] = demanded().due(wanting(FAILED), plenty, 0.0)

    assert ask.request.failed == "ckms-3"


def test_statements_have_time_to_follow_and_are_asked_for_again_if_they_do_not() -> None:
    requests = demanded()
    requests.due(wanting(MISSING), plenty, 0.0)
    requests.answered(DEMAND, PathReply(), 1.0)

    assert requests.due(wanting(MISSING), plenty, 1.0 + SETTLING) == []
    assert requests.due(wanting(None), plenty, 1.1) == []
    assert len(requests.due(wanting(MISSING), plenty, 1.0 + SETTLING + FIRST_PAUSE)) == 1


def pauses(source: Source, number: int) -> list[float]:
    requests, now, found = demanded(source), 0.0, []
    for _ in range(number):
        requests.used("ckms-9", "gold", 1, now)
        assert requests.due(wanting(MISSING), plenty, now)
        requests.unanswered(DEMAND, now)
        began = now
        while not (ready := requests.due(wanting(MISSING), plenty, now)):
            now += 0.125
        assert len(ready) == 1
        requests.unanswered(DEMAND, now)
        now += 1_000.0
        requests.used("ckms-9", "gold", 1, now)
        found.append(now - began - 1_000.0)
    return found


def test_pauses_grow_to_the_longest_and_are_drawn_at_random() -> None:
    least, most = pauses(zeros, 6), pauses(ones, 6)

    assert least[0] == FIRST_PAUSE / 2
    assert least == sorted(least)
    assert least[-1] == LONGEST_PAUSE / 2
    assert most[-1] == LONGEST_PAUSE
    assert all(low < high for low, high in zip(least, most, strict=True))


def test_a_refusal_is_respected_until_its_earliest_time_and_no_longer_than_a_minute() -> None:
    for told, kept in ((30.0, 30.0), (10**9, LONGEST_WAIT), (-5.0, 0.0)):
        requests = demanded()
        requests.due(wanting(MISSING), plenty, 0.0)
        requests.answered(DEMAND, PathReply(refusal=PathRefusal.NO_CAPACITY, earliest_s=told), 0.0)
        requests.used("ckms-9", "gold", 1, kept)
        assert requests.due(wanting(MISSING), plenty, kept) == []
        assert len(requests.due(wanting(MISSING), plenty, kept + FIRST_PAUSE)) == 1


def test_a_failure_does_not_wait_for_the_pause_of_a_renewal() -> None:
    requests = demanded()
    assert requests.due(wanting(ENDING), plenty, 0.0) != []  # zeros: no spread
    requests.answered(DEMAND, PathReply(refusal=PathRefusal.NO_ROUTE, earliest_s=600.0), 0.0)
    assert requests.due(wanting(ENDING), plenty, 1.0) == []

    assert len(requests.due(wanting(FAILED), plenty, 2.0)) == 1


def test_renewals_are_spread() -> None:
    requests = demanded(ones)
    assert requests.due(wanting(ENDING), plenty, 0.0) == []
    assert requests.due(wanting(ENDING), plenty, SPREAD - 0.1) == []

    assert len(requests.due(wanting(ENDING), plenty, SPREAD)) == 1


def test_few_are_under_way_and_renewals_come_last() -> None:
    requests = PathRequests(zeros)
    for number in range(MAXIMUM_UNDER_WAY):
        requests.used(f"ckms-{number}", "silver", 1, 0.0)
    requests.used("ckms-99", "gold", 1, 0.0)

    def lacking(demand: Demand) -> Lack:
        return MISSING if demand.service_class == "gold" else ENDING

    asks = requests.due(lacking, plenty, 0.0)
    assert len(asks) == MAXIMUM_UNDER_WAY
    assert asks[0].demand.destination == "ckms-99"
    assert requests.due(lacking, plenty, 0.0) == []
    requests.answered(asks[0].demand, PathReply(), 0.0)
    assert len(requests.due(lacking, plenty, 0.0)) == 1


def test_demands_are_bounded_and_forgotten() -> None:
    requests = PathRequests(zeros)
    for number in range(MAXIMUM_DEMANDS + 1):
        requests.used(f"ckms-{number}", "gold", 1, 0.0)
    assert len(requests.demands) == MAXIMUM_DEMANDS
    assert Demand("ckms-0", "gold") not in requests.demands
    requests.used("ckms-1", "gold", 1, 1.0)
    requests.due(wanting(None), plenty, REMEMBERED + 0.5)

    assert requests.demands == (Demand("ckms-1", "gold"),)


def test_an_answer_to_what_was_forgotten_changes_nothing() -> None:
    requests = PathRequests(zeros)
    requests.answered(DEMAND, PathReply(), 0.0)
    requests.unanswered(DEMAND, 0.0)

    assert requests.demands == ()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["use", "look", "answer", "refuse", "lose"]),
            st.integers(0, 3),
            st.floats(0, 30),
            st.sampled_from([None, MISSING, FAILED, ENDING]),
        ),
        max_size=60,
    ),
    st.binary(min_size=7, max_size=7),
)
def test_never_two_requests_of_one_demand_and_never_more_than_the_pause_allows(
    steps: list[tuple[str, int, float, Lack | None]], drawn: bytes
) -> None:
    requests, now = PathRequests(lambda count: drawn[:count]), 0.0
    under_way: set[Demand] = set()
    settled: dict[Demand, tuple[float, Need | None]] = {}
    for what, number, seconds, found in steps:
        now += seconds
        demand = Demand(f"ckms-{number}", "gold")
        if what == "use":
            requests.used(demand.destination, demand.service_class, 1, now)
        elif what == "look":
            asks: list[Ask] = requests.due(wanting(found), plenty, now)
            for ask in asks:
                assert found is not None
                assert ask.demand not in under_way
                since, need = settled.get(ask.demand, (-1e9, None))
                assert now - since >= FIRST_PAUSE / 2 or need is Need.ENDING
                under_way.add(ask.demand)
                settled[ask.demand] = (now, found.need)
        elif demand in under_way:
            under_way.discard(demand)
            settled[demand] = (now, settled[demand][1])
            if what == "lose":
                requests.unanswered(demand, now)
            else:
                refusal = PathRefusal.NO_ROUTE if what == "refuse" else None
                requests.answered(demand, PathReply(refusal=refusal), now)


def test_what_keys_cost_is_kept_while_there_are_paths() -> None:
    requests = PathRequests(zeros)
    requests.used("ckms-9", "split", 100, 0.0)
    demand = Demand("ckms-9", "split")
    requests.answered(demand, PathReply(), 0.0)
    assert requests.prices == {}
    requests.answered(demand, PathReply(price=6.75, undivided=3.375), 1.0)
    assert requests.prices == {demand: Price(6.75, 3.375)}
    requests.answered(demand, PathReply(), 2.0)
    assert requests.prices == {demand: Price(6.75, 3.375)}
    requests.answered(demand, PathReply(refusal=PathRefusal.NOT_DISJOINT), 3.0)
    assert requests.prices == {}
