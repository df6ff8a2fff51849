"""Path computation on views: constraints, policies, pairs and shares."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.routing_model import sndlib
from controller.paths.compute import (
    NoPath,
    Path,
    TooFewPaths,
    best_path,
    best_paths,
    path_along,
    path_with_backup,
    paths_for_shares,
)
from controller.paths.constraints import (
    UNCONSTRAINED,
    Constraints,
    Obstacle,
    link_obstacle,
    node_obstacle,
    obstacle,
    usable_weights,
)
from controller.paths.diverse import overlap
from controller.paths.policies import WEIGHTS, Policy, spare
from controller.paths.search import Arcs
from controller.view import Direction, Link, NetworkView, Node
from tests.controller.networks import RING, SUITES, all_paths, line, node_disjoint, views

SOURCE, TARGET = "n0", "n1"
POLICIES = st.sampled_from(Policy)


@st.composite
def constraints(draw: st.DrawFn) -> Constraints:
    """Anything that may be asked for."""
    return Constraints(
        rate=draw(st.sampled_from((0, 0, 1, 50, 500))),
        pool_floor=draw(st.sampled_from((0.0, 0.0, 0.1, 0.5))),
        quantum_only=draw(st.booleans()),
        suites=draw(st.none() | st.frozensets(st.sampled_from(SUITES))),
        jurisdictions=draw(st.sampled_from((None, None, frozenset("x"), frozenset("xy")))),
        excluded_nodes=draw(st.frozensets(st.sampled_from(("n2", "n3", "elsewhere")), max_size=1)),
        excluded_links=draw(st.frozensets(st.sampled_from(("l0", "l1", "elsewhere")), max_size=1)),
        excluded_risk_groups=draw(st.frozensets(st.sampled_from("rs"), max_size=1)),
        maximum_hops=draw(st.none() | st.integers(1, 5)),
    )


def allowed(view: NetworkView, asked: Constraints) -> list[Arcs]:
    """Every path that keeps to the constraints, judged by each of its links and nodes on its own."""
    every = all_paths(view.topology, [1] * (2 * len(view.links)), 0, 1)
    return [
        arcs
        for arcs in every
        if (asked.maximum_hops is None or len(arcs) <= asked.maximum_hops)
        and all(keeps(view, arc, asked) for arc in arcs)
    ]


def keeps(view: NetworkView, arc: int, asked: Constraints) -> bool:
    """The constraints written once more, in other words."""
    link, topology = view.links[arc >> 1], view.topology
    used = link.ba if arc % 2 else link.ab
    ends = [view.nodes[topology.heads[arc]], view.nodes[topology.heads[arc ^ 1]]]
    return (
        link.up
        and (link.quantum or not asked.quantum_only)
        and (asked.suites is None or bool(asked.suites & link.suites))
        and link.id not in asked.excluded_links
        and not asked.excluded_risk_groups & link.risk_groups
        and used.pool >= asked.pool_floor * min(used.capacity, 60 * used.rate or used.capacity)
        and used.rate - used.reserved >= asked.rate
        and (link.stream is None or link.stream - link.ab.reserved - link.ba.reserved >= asked.rate)
        and not any(end.quarantined or end.id in asked.excluded_nodes for end in ends)
        and (asked.jurisdictions is None or all(end.jurisdiction in asked.jurisdictions for end in ends))
    )


@settings(deadline=None, max_examples=60)
@given(views(), constraints())
def test_weights_are_nothing_exactly_where_there_is_an_obstacle(view: NetworkView, asked: Constraints) -> None:
    usable = usable_weights(view, view.per_arc(WEIGHTS[Policy.RESIDUAL]), asked)
    for arc, weight in enumerate(usable):
        assert bool(weight) == (obstacle(view, arc, asked) is None) == keeps(view, arc, asked)


@settings(deadline=None, max_examples=60)
@given(views(), constraints(), POLICIES)
def test_the_best_path_keeps_to_the_constraints_and_none_is_better(
    view: NetworkView, asked: Constraints, policy: Policy
) -> None:
    every = allowed(view, asked)
    try:
        path = best_path(view, SOURCE, TARGET, asked, policy)
    except NoPath:
        assert not every
        return
    assert path.arcs in every
    assert path.nodes[0] == SOURCE
    assert path.nodes[-1] == TARGET
    assert len(set(path.nodes)) == path.hops + 1
    weights, widths = view.per_arc(WEIGHTS[policy]), view.per_arc(spare)

    def rank(arcs: Arcs) -> tuple[int, int]:
        width = min(widths[arc] for arc in arcs) if policy is Policy.WIDEST_SHORTEST else 0
        return sum(weights[arc] for arc in arcs), -width

    assert rank(path.arcs) == min(map(rank, every))
    listed = best_paths(view, SOURCE, TARGET, 3, asked, policy)
    assert [one.weight for one in listed] == sorted(sum(weights[arc] for arc in arcs) for arcs in every)[:3]


@settings(deadline=None, max_examples=60)
@given(views(), constraints(), POLICIES)
def test_a_pair_keeps_to_the_constraints_and_says_what_it_shares(
    view: NetworkView, asked: Constraints, policy: Policy
) -> None:
    every = allowed(view, asked)
    try:
        pair = path_with_backup(view, SOURCE, TARGET, asked, policy)
    except NoPath:
        assert not every
        return
    assert pair.primary.arcs in every
    if pair.backup is None:
        assert pair.shared.links == pair.primary.links
        assert asked.maximum_hops is not None or len(every) == 1
        return
    assert pair.backup.arcs in every
    assert pair.backup.arcs != pair.primary.arcs
    assert pair.shared == overlap(view, pair.primary.arcs, pair.backup.arcs)
    best = min(overlap(view, *two).rank for two in combinations(every, 2))
    if asked.maximum_hops is None:
        assert len(pair.shared.links) == best[0]
        if not any(link.risk_groups for link in view.links):
            assert pair.shared.rank == best


@settings(deadline=None, max_examples=60)
@given(views(), constraints(), POLICIES, st.integers(2, 3))
def test_shares_go_over_disjoint_paths_or_nowhere(
    view: NetworkView, asked: Constraints, policy: Policy, count: int
) -> None:
    asked = replace(asked, maximum_hops=None)
    every = allowed(view, asked)
    most = max(
        (n for n in (0, 1, 2, 3) if any(node_disjoint(view.topology, some) for some in combinations(every, n))),
    )
    if most < count:
        with pytest.raises(TooFewPaths) as few:
            paths_for_shares(view, SOURCE, TARGET, count, asked, policy)
        assert (few.value.found, few.value.wanted) == (most, count)
        return
    paths = paths_for_shares(view, SOURCE, TARGET, count, asked, policy)
    assert len(paths) == count
    assert all(path.arcs in every for path in paths)
    assert node_disjoint(view.topology, [path.arcs for path in paths])


def test_keys_use_up_the_direction_that_they_traverse() -> None:
    empty, full = Direction(10, 0, 100, 10), Direction(10, 100, 100)
    view = NetworkView((Node("a"), Node("b")), (Link("l", "a", "b", ab=full, ba=empty),))
    assert best_path(view, "a", "b", Constraints(rate=1)).links == ("l",)
    with pytest.raises(NoPath):
        best_path(view, "b", "a", Constraints(rate=1))


def test_ends_that_are_none() -> None:
    view = line(*RING)
    for source, target in (("a", "z"), ("z", "a"), ("a", "a")):
        with pytest.raises(NoPath):
            best_path(view, source, target)


def test_the_default_policy_goes_round_what_is_scarce_and_others_do_not() -> None:
    view = line(*RING)
    drained = replace(view.link("b-c"), ab=Direction(1_000, 100, 10_000, 900))
    view = view.changed([drained])
    assert best_path(view, "a", "d").nodes == ("a", "f", "e", "d")
    assert best_path(view, "a", "c").nodes == ("a", "f", "e", "d", "c")
    assert best_path(view, "a", "c", policy=Policy.HOPS).nodes == ("a", "b", "c")
    assert best_path(view, "a", "c", policy=Policy.WIDEST_SHORTEST).nodes == ("a", "b", "c")
    assert best_path(view, "a", "d", policy=Policy.WIDEST_SHORTEST).nodes == ("a", "f", "e", "d")


def test_a_backup_avoids_the_duct_of_the_primary_where_it_can() -> None:
    view = line(("a", "b"), ("b", "z"), ("a", "c"), ("c", "z"), ("a", "d"), ("d", "e"), ("e", "z"))
    duct = frozenset({"duct"})
    view = view.changed([replace(view.link(name), risk_groups=duct) for name in ("a-b", "a-c")])
    pair = path_with_backup(view, "a", "z", policy=Policy.HOPS)
    assert {pair.primary.hops, pair.backup.hops if pair.backup else 0} == {2, 3}
    assert not pair.shared
    view = view.changed([replace(view.link("a-d"), risk_groups=duct)])
    pair = path_with_backup(view, "a", "z", policy=Policy.HOPS)
    assert pair.shared.risk_groups == ("duct",)
    assert not pair.shared.links


def test_what_a_pair_must_share_is_told() -> None:
    """Berlin to Bonn: a chain with one detour."""
    chain = [(str(number), str(number + 1)) for number in range(2, 14)]
    view = line(*chain, ("8", "16"), ("16", "9"))
    pair = path_with_backup(view, "2", "14")
    assert pair.backup is not None
    assert {pair.primary.hops, pair.backup.hops} == {12, 13}
    assert "8-9" not in pair.shared.links
    assert len(pair.shared.links) == 11
    assert pair.shared.nodes == tuple(str(number) for number in range(3, 14))
    with pytest.raises(TooFewPaths) as few:
        paths_for_shares(view, "2", "14", 2)
    assert few.value.found == 1


def test_nobel_germany_serves_shares_between_any_two_nodes() -> None:
    data = sndlib("nobel-germany")
    view = line(*((str(edge["source"]), str(edge["target"])) for edge in data["edges"]))
    names = [node.id for node in view.nodes]
    for source, target in combinations(names, 2):
        paths = paths_for_shares(view, source, target, 2)
        assert node_disjoint(view.topology, [path.arcs for path in paths])


def test_a_path_that_is_known_is_weighed_anew() -> None:
    view = line(*RING)
    path = best_path(view, "a", "c")
    drained = view.changed([replace(view.link("b-c"), ab=Direction(1_000, 100, 10_000))])
    again = path_along(drained, path.nodes, path.links, Policy.RESIDUAL)
    assert isinstance(again, Path)
    assert (again.arcs, again.weight > path.weight) == (path.arcs, True)
    with pytest.raises(KeyError):
        path_along(view, ("a", "z"), ("a-z",), Policy.RESIDUAL)


@settings(deadline=None, max_examples=50)
@given(views(), POLICIES)
def test_one_view_has_one_answer(view: NetworkView, policy: Policy) -> None:
    def answer(asked: NetworkView) -> object:
        try:
            return path_with_backup(asked, SOURCE, TARGET, policy=policy)
        except NoPath as none:
            return str(none)

    assert answer(view) == answer(NetworkView(view.nodes, view.links))


def test_each_obstacle_has_its_name() -> None:
    up = Link("l", "a", "b", suites=frozenset({"otp"}), risk_groups=frozenset({"r"}))
    assert link_obstacle(replace(up, up=False), UNCONSTRAINED) is Obstacle.DOWN
    assert link_obstacle(replace(up, quantum=False), Constraints(quantum_only=True)) is Obstacle.NO_QUANTUM
    assert link_obstacle(up, Constraints(suites=frozenset())) is Obstacle.SUITE
    assert link_obstacle(up, Constraints(excluded_links=frozenset({"l"}))) is Obstacle.EXCLUDED_LINK
    assert link_obstacle(up, Constraints(excluded_risk_groups=frozenset({"r"}))) is Obstacle.RISK_GROUP
    assert node_obstacle(Node("a", quarantined=True), UNCONSTRAINED) is Obstacle.QUARANTINED
    assert node_obstacle(Node("a"), Constraints(excluded_nodes=frozenset({"a"}))) is Obstacle.EXCLUDED_NODE
    assert node_obstacle(Node("a"), Constraints(jurisdictions=frozenset({"x"}))) is Obstacle.JURISDICTION


@pytest.mark.parametrize(
    ("rate", "pool", "fits"),
    [
        (300, 1_799, False),
        (300, 1_800, True),
        (1_000_000, 53_999, False),
        (1_000_000, 54_000, True),
        (0, 53_999, False),
        (0, 54_000, True),
    ],
)
def test_a_floor_is_a_share_of_the_pool_but_on_a_slow_link_of_a_minute(rate: int, pool: int, fits: bool) -> None:
    slow = Direction(rate=rate, pool=pool, capacity=540_000)
    full = Direction(rate=1_000_000, pool=540_000, capacity=540_000)
    view = NetworkView((Node("a"), Node("b")), (Link("a-b", "a", "b", ab=slow, ba=full),), 1)
    found = obstacle(view, 0, Constraints(pool_floor=0.1))
    assert (found is None) is fits
    assert bool(usable_weights(view, [1, 1], Constraints(pool_floor=0.1))[0]) is fits
