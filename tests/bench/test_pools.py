"""Simulated links fill, are used up and are cut as links are, and look the same from wherever they are simulated."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bench.nets import europe, generated, germany50, part
from bench.pools import SimulatedLink
from keyhaul.config.carrier import CarrierLink

LINK = CarrierLink(id="1-2", a="ckms-1", b="ckms-2", rate=8_000, capacity=480_000, suites=("otp",), km=51.0)


def pools(link: SimulatedLink, end: str, now: float) -> dict[str, dict[str, Any]]:
    return {pool["direction"]: pool for pool in link.told(end, now)["pool"]}


@given(st.lists(st.tuples(st.floats(0.01, 30.0), st.booleans()), min_size=1, max_size=20))
def test_what_is_there_is_what_was_added_less_what_was_used(steps: list[tuple[float, bool]]) -> None:
    link, now = SimulatedLink(LINK, 0.0, 1), 0.0
    first = pools(link, "ckms-1", 0.0)
    for pause, cut in steps:
        now += pause
        link.cut(now, cut=cut)
        for direction, pool in pools(link, "ckms-1", now).items():
            assert 0 <= pool["available"] <= LINK.capacity // 8
            gained = pool["bytes-in"] - pool["bytes-used"]
            assert abs(pool["available"] - first[direction]["available"] - gained) <= 2
        added = sum(pool["bytes-in"] for pool in pools(link, "ckms-1", now).values())
        assert added <= LINK.rate / 8 * now + 2, "one stream fills both"


def test_a_link_that_is_cut_stands_still_and_goes_on_when_it_is_mended() -> None:
    link = SimulatedLink(LINK, 0.0, 1)
    link.cut(10.0, cut=True)
    before = pools(link, "ckms-1", 10.0)
    told = link.told("ckms-1", 70.0)
    assert (told["up"], told["suite"]) == (False, None)
    assert pools(link, "ckms-1", 70.0) == before
    link.cut(70.0, cut=False)
    assert pools(link, "ckms-1", 100.0) != before


def test_both_ends_tell_the_same_though_they_are_simulated_apart() -> None:
    here, there = SimulatedLink(LINK, 0.0, 1), SimulatedLink(LINK, 0.0, 1)
    for now in range(1, 200):
        one = pools(here, "ckms-1", float(now))
        if now % 3 == 0:
            other = pools(there, "ckms-2", float(now))
            assert abs(one["outgoing"]["available"] - other["incoming"]["available"]) <= 2
            assert abs(one["incoming"]["available"] - other["outgoing"]["available"]) <= 2


def test_the_networks_are_as_large_as_they_are_said_to_be() -> None:
    assert (len(germany50().nodes), len(germany50().links)) == (50, 88)
    assert (len(europe().nodes), len(europe().links)) == (852, 1287)
    assert len(generated(1_000).nodes) == 1_000
    some = part(europe(), 500)
    nodes = {node for node, _ in some.nodes}
    assert len(nodes) == 500
    assert all(link.a in nodes and link.b in nodes for link in some.links)
