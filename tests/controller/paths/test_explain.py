"""Why this path and why not the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from controller.paths.constraints import Constraints, Obstacle
from controller.paths.explain import Verdict, explain
from controller.paths.policies import Policy
from controller.view import Direction, NetworkView
from tests.controller.networks import RING, line, views
from tests.controller.paths.test_compute import constraints

DIAMOND = (("a", "b"), ("b", "z"), ("a", "c"), ("c", "z"), ("a", "d"), ("d", "z"), ("a", "e"), ("e", "z"))


def test_each_path_that_was_not_chosen_has_its_reason() -> None:
    view = line(*DIAMOND)
    drained = replace(view.link("d-z"), ab=Direction(1_000, 0, 10_000))
    view = view.changed([drained, replace(view.link("c-z"), quantum=False)])
    told = explain(view, "a", "z", Constraints(quantum_only=True))
    by_way = {candidate.nodes[1]: candidate for candidate in told.candidates}
    assert by_way["b"].verdict is Verdict.PRIMARY
    assert by_way["e"].verdict is Verdict.BACKUP
    assert by_way["d"].verdict is Verdict.HEAVIER
    assert by_way["d"].decisive is not None
    assert (by_way["d"].decisive.link, by_way["d"].decisive.pool) == ("d-z", 0)
    assert "d-z from d" in by_way["d"].reason
    assert by_way["c"].verdict is Verdict.NOT_ALLOWED
    assert by_way["c"].reason == f"c-z from c: {Obstacle.NO_QUANTUM}"
    assert told.would_open == ()


def test_where_there_is_no_path_it_says_what_is_in_the_way() -> None:
    view = line(*DIAMOND)
    told = explain(view, "a", "z", Constraints(rate=2_000, maximum_hops=5))
    assert told.chosen is None
    assert told.would_open == ("rate",)
    assert {candidate.verdict for candidate in told.candidates} == {Verdict.NOT_ALLOWED}
    both = explain(view, "a", "z", Constraints(rate=2_000, maximum_hops=1))
    assert both.would_open == ()
    short = explain(view, "a", "z", Constraints(maximum_hops=1))
    assert short.would_open == ("maximum_hops",)
    assert short.candidates[0].reason == "2 hops, at most 1 are allowed"
    apart = view.changed(nodes=[replace(view.node("z"), quarantined=True)])
    assert explain(apart, "a", "z").candidates[0].reason.endswith(Obstacle.QUARANTINED)
    with pytest.raises(KeyError):
        explain(view, "a", "nowhere")


def test_a_path_that_weighs_less_alone_may_lose_to_a_pair() -> None:
    """The trap of Suurballe: the lightest path bars every other."""
    view = line(("a", "b"), ("b", "c"), ("c", "z"), ("a", "d"), ("d", "c"), ("b", "e"), ("e", "z"))
    heavy = Direction(10, 10_000, 10_000)
    view = view.changed([replace(view.link(name), ab=heavy) for name in ("d-c", "b-e", "a-d", "e-z")])
    told = explain(view, "a", "z")
    assert told.chosen is not None
    assert not told.chosen.shared
    lost = next(candidate for candidate in told.candidates if candidate.nodes == ("a", "b", "c", "z"))
    assert lost.verdict is Verdict.LESS_DISJOINT


@settings(deadline=None, max_examples=40)
@given(views(), constraints())
def test_what_is_told_agrees_with_the_constraints(view: NetworkView, asked: Constraints) -> None:
    told = explain(view, "n0", "n1", asked, Policy.RESIDUAL)
    for candidate in told.candidates:
        barred = any(hop.obstacle for hop in candidate.hops)
        long = asked.maximum_hops is not None and len(candidate.hops) > asked.maximum_hops
        assert (candidate.verdict is Verdict.NOT_ALLOWED) == (barred or long)
        assert candidate.reason
    verdicts = [candidate.verdict for candidate in told.candidates]
    assert verdicts.count(Verdict.PRIMARY) == (told.chosen is not None)
    assert len({tuple(hop.link for hop in one.hops) for one in told.candidates}) == len(told.candidates)


def test_what_serves_divided_keys_is_told_as_that() -> None:
    told = explain(line(*RING), "a", "c", shares=2)
    assert {path.nodes for path in told.shares} == {("a", "b", "c"), ("a", "f", "e", "d", "c")}
    assert [candidate.verdict for candidate in told.candidates] == [Verdict.SHARE, Verdict.SHARE]
    assert told.chosen is None
    assert told.would_open == ()


def test_where_all_paths_meet_it_is_told_in_which_nodes() -> None:
    view = line(("a", "b"), ("b", "c"), ("b", "d"), ("c", "e"), ("d", "e"), ("e", "z"))
    told = explain(view, "a", "z", shares=2)
    assert told.shares == ()
    assert {candidate.verdict for candidate in told.candidates} == {Verdict.ALONE}
    assert {candidate.reason for candidate in told.candidates} == {"all of these would pass b, e"}
    assert told.would_open == ("topology",)


def test_a_constraint_that_keeps_the_second_share_away_is_told() -> None:
    told = explain(line(*RING), "a", "c", Constraints(excluded_nodes=frozenset({"e"})), shares=2)
    assert told.shares == ()
    assert told.would_open == ("excluded_nodes",)
    assert Verdict.NOT_ALLOWED in {candidate.verdict for candidate in told.candidates}
