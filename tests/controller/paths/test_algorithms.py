"""The algorithms against brute force: each path of small networks is looked at."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.paths.disjoint import disjoint, maximally_disjoint
from controller.paths.k_shortest import k_shortest
from controller.paths.search import Arcs, distances_to, hops_to, shortest, shortest_within, weight_of
from tests.controller.networks import Weighted, all_paths, between, node_disjoint, weighted

SOURCE, TARGET = 0, 1


@settings(deadline=None, max_examples=60)
@given(weighted())
def test_the_shortest_path_is_one_of_the_lightest(network: Weighted) -> None:
    topology, weights = network
    every = all_paths(topology, weights, SOURCE, TARGET)
    found = shortest(topology, weights, SOURCE, TARGET)
    if not every:
        assert found is None
        return
    assert found in every
    lightest = min(weight_of(weights, arcs) for arcs in every)
    assert weight_of(weights, found or ()) == lightest == distances_to(topology, weights, TARGET)[0][SOURCE]
    assert hops_to(topology, weights, TARGET)[SOURCE] == min(map(len, every))


@settings(deadline=None, max_examples=60)
@given(weighted(), st.integers(1, 3))
def test_with_a_limit_of_hops_it_is_the_lightest_of_those_that_keep_to_it(network: Weighted, limit: int) -> None:
    topology, weights = network
    every = [arcs for arcs in all_paths(topology, weights, SOURCE, TARGET) if len(arcs) <= limit]
    found = shortest_within(topology, weights, SOURCE, TARGET, limit)
    assert (found in every) if every else found is None
    if found is not None:
        assert weight_of(weights, found) == min(weight_of(weights, arcs) for arcs in every)


@settings(deadline=None, max_examples=60)
@given(weighted(), st.none() | st.integers(1, 4))
def test_all_paths_come_in_order_each_once_and_without_loops(network: Weighted, limit: int | None) -> None:
    topology, weights = network
    every = all_paths(topology, weights, SOURCE, TARGET)
    every = [arcs for arcs in every if limit is None or len(arcs) <= limit]
    found = list(k_shortest(topology, weights, SOURCE, TARGET, limit))
    assert sorted(found) == sorted(every)
    weighed = [weight_of(weights, arcs) for arcs in found]
    assert weighed == sorted(weighed)


@settings(deadline=None, max_examples=60)
@given(weighted(), st.integers(1, 3))
def test_disjoint_paths_are_as_many_as_there_are_and_the_lightest_together(network: Weighted, wanted: int) -> None:
    topology, weights = network
    every = all_paths(topology, weights, SOURCE, TARGET)
    found = disjoint(topology, weights, SOURCE, TARGET, wanted)
    assert all(arcs in every for arcs in found)
    assert node_disjoint(topology, found)
    best = 0
    for count in range(1, wanted + 1):
        totals = [
            sum(weight_of(weights, arcs) for arcs in several)
            for several in combinations(every, count)
            if node_disjoint(topology, several)
        ]
        if totals:
            best = count
            if count == len(found):
                assert sum(weight_of(weights, arcs) for arcs in found) == min(totals)
    assert len(found) == best


@settings(deadline=None, max_examples=60)
@given(weighted())
def test_a_pair_shares_as_little_as_any(network: Weighted) -> None:
    topology, weights = network
    every = all_paths(topology, weights, SOURCE, TARGET)
    found = maximally_disjoint(topology, weights, SOURCE, TARGET)
    assert all(arcs in every for arcs in found)
    assert len(found) == min(2, len(every))

    def rank(one: Arcs, other: Arcs) -> tuple[int, int, int]:
        return (
            len({arc >> 1 for arc in one} & {arc >> 1 for arc in other}),
            len(between(topology, one) & between(topology, other)),
            weight_of(weights, one) + weight_of(weights, other),
        )

    if len(found) == 2:
        assert rank(found[0], found[1]) == min(rank(*two) for two in combinations(every, 2))
        assert weight_of(weights, found[0]) <= weight_of(weights, found[1])
