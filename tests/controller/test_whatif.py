"""What would become of demands if something failed, or the plan were another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.admission.admit import Admission, Demand, admit
from controller.admission.classes import CLASSES
from controller.admission.refusal import Reason
from controller.admission.reservations import Reservations
from controller.paths.constraints import obstacle
from controller.planned import PlannedNetwork, PlannedNode
from controller.topology import discover
from controller.view import NetworkView
from controller.whatif import Failure, Fate, Kept, Outcome, Unknown, as_planned, changes, failed, islands, judge
from tests.controller.networks import views
from tests.controller.northbound.scene import planned, reports

NETWORK = planned()
VIEW = discover(NETWORK, reports(NETWORK, 0.0), 0.0).view


def take_on(
    view: NetworkView, *demands: Demand, reservations: Reservations | None = None
) -> tuple[Reservations, list[Kept]]:
    """Admit demands; those that are refused are left out."""
    promised = reservations or Reservations()
    kept = []
    for demand in demands:
        answer = admit(promised.onto(view), promised, demand, 0.0)
        if isinstance(answer, Admission):
            promised.reserve(view, answer.lease(demand.id, 60.0))
            kept.append(Kept(demand, answer.paths))
    return promised, kept


def demand(identity: str, service_class: str, rate: int = 1_000) -> Demand:
    return Demand(identity, "ckms-2", "ckms-14", service_class, rate)


def fates(outcomes: Sequence[Outcome]) -> dict[str, Fate]:
    return {outcome.kept.demand.id: outcome.fate for outcome in outcomes}


def test_gold_goes_on_over_its_backup_but_has_none_any_more_and_bronze_is_whole_again() -> None:
    promised, kept = take_on(VIEW, demand("gold", "gold"), demand("bronze", "bronze"))
    outcomes = list(judge(VIEW, failed(VIEW, Failure(links=frozenset({"8-9"}))), promised, kept, 0.0))
    assert fates(outcomes) == {"gold": Fate.WEAKENED, "bronze": Fate.PROTECTED}
    gold = outcomes[0]
    assert gold.refusal is not None
    assert gold.refusal.reason is Reason.NO_BACKUP
    assert [path.links for path in gold.paths] == [("2-8", "8-16", "9-16", "9-14")]


def test_a_node_that_all_paths_cross_or_a_risk_group_with_both_of_them_loses_the_demand() -> None:
    promised, kept = take_on(VIEW, demand("silver", "silver"))
    for failure in (Failure(nodes=frozenset({"ckms-9"})), Failure(risk_groups=frozenset({"bridge"}))):
        after = failed(VIEW, failure)
        assert fates(list(judge(VIEW, after, promised, kept, 0.0))) == {"silver": Fate.LOST}
        assert islands(after, failure.nodes) == (("ckms-2",), ("ckms-14",))
    assert islands(VIEW) == ()


def test_a_link_that_no_path_crosses_affects_nobody() -> None:
    promised, kept = take_on(VIEW, demand("direct", "split"), Demand("short", "ckms-2", "ckms-14", "bronze", 0))
    kept = [Kept(one.demand, one.paths[:1]) for one in kept]
    assert [one.demand.id for one in kept] == ["short"]  # two paths without a common node are not there
    after = failed(VIEW, Failure(links=frozenset({"8-16"})))
    assert list(judge(VIEW, after, promised, kept, 0.0)) == []


def test_a_primary_without_backup_is_rerouted_and_what_is_promised_to_others_is_not_touched() -> None:
    view = VIEW.changed([replace(VIEW.link("8-16"), ab=replace(VIEW.link("8-16").ab, rate=2_000))])
    other = Demand("other", "ckms-2", "ckms-14", "gold", 1_000)
    promised, kept = take_on(view, other, demand("a", "gold", 900), demand("b", "gold", 800))
    assert [one.demand.id for one in kept] == ["other"]  # 1,125 of 2,000 are gone: no backup for 900 more
    alone = [Kept(demand(name, "bronze", 0), kept[0].paths[:1]) for name in "ab"]
    outcomes = list(judge(view, failed(view, Failure(links=frozenset({"8-9"}))), promised, alone, 0.0))
    assert fates(outcomes) == {"a": Fate.REROUTED, "b": Fate.REROUTED}
    assert promised.reserved(("8-16", "ckms-8")) == 1_125


def test_where_not_all_fit_the_higher_class_is_served_first() -> None:
    ring = planned([("2", "8"), ("8", "9"), ("9", "14"), ("2", "16"), ("16", "14"), ("2", "7"), ("7", "14")])
    view = discover(ring, reports(ring, 0.0), 0.0).view
    low = demand("low", "split", 5_000)
    high = demand("high", "gold", 5_000)
    promised, kept = take_on(view, low)
    assert len(kept) == 1
    kept.append(Kept(high, kept[0].paths))
    outcomes = list(judge(view, failed(view, Failure(links=frozenset({kept[0].paths[0].links[0]}))), promised, kept, 0))
    assert fates(outcomes) == {"high": Fate.PROTECTED, "low": Fate.LOST}
    assert [outcome.kept.demand.id for outcome in outcomes] == ["high", "low"]
    refused = outcomes[1].refusal
    assert refused is not None
    assert refused.reason is Reason.RATE


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(Unknown, match="there is no 9-17, bridges, ckms-17"):
        failed(VIEW, Failure(frozenset({"ckms-17"}), frozenset({"9-17"}), frozenset({"bridges"})))


def test_a_changed_plan_tells_what_changes_and_whom_it_moves() -> None:
    promised, kept = take_on(VIEW, demand("gold", "gold"))
    bigger = planned([("2", "8"), ("8", "16"), ("9", "16"), ("9", "14"), ("8", "9")])
    assert list(changes(NETWORK, replace(bigger, nodes=NETWORK.nodes, links=NETWORK.links))) == []
    without = replace(bigger, links=bigger.links[:-1])
    assert [(change.what, change.id, change.kind) for change in changes(NETWORK, without)] == [
        ("link", "8-9", "removed")
    ]
    assert fates(list(judge(VIEW, as_planned(VIEW, without), promised, kept, 0.0))) == {"gold": Fate.WEAKENED}
    detour = planned([*[(link.a[5:], link.b[5:]) for link in without.links], ("8", "7"), ("7", "9")])
    assert fates(list(judge(VIEW, as_planned(VIEW, detour), promised, kept, 0.0))) == {"gold": Fate.PROTECTED}
    moved = replace(
        NETWORK, nodes=tuple(replace(node, jurisdiction="FR") for node in NETWORK.nodes[:1]) + NETWORK.nodes[1:]
    )
    (change,) = changes(NETWORK, moved)
    assert (change.kind, change.fields) == ("changed", (("jurisdiction", "DE", "FR"),))


def test_an_access_node_that_is_none_any_more_loses_its_demands() -> None:
    promised, kept = take_on(VIEW, demand("bronze", "bronze"))
    demoted = PlannedNetwork(
        tuple(PlannedNode(node.id, access=node.access and node.id != "ckms-14") for node in NETWORK.nodes),
        NETWORK.links,
    )
    (outcome,) = judge(VIEW, as_planned(VIEW, demoted), promised, kept, 0.0)
    assert outcome.fate is Fate.LOST
    assert outcome.refusal is not None
    assert outcome.refusal.reason is Reason.UNKNOWN_NODE


def test_a_plan_may_name_the_ends_of_a_link_the_other_way_round() -> None:
    fast = VIEW.changed([replace(VIEW.link("8-9"), ba=replace(VIEW.link("8-9").ba, rate=77))])
    turned = planned([("2", "8"), ("9", "8"), ("8", "16"), ("9", "16"), ("9", "14")])
    turned = replace(turned, links=tuple(replace(one, id="8-9" if one.id == "9-8" else one.id) for one in turned.links))
    link = as_planned(fast, turned).link("8-9")
    assert (link.a, link.ab.rate, link.ba.rate) == ("ckms-9", 77, 10_000)


@settings(max_examples=150, deadline=None)
@given(
    views(),
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from(list(CLASSES)), st.sampled_from((0, 8, 40)))
    ),
    st.sets(st.integers(0, 9), max_size=3),
    st.sets(st.integers(0, 5), max_size=1),
)
def test_whatever_fails_what_is_foretold_keeps_to_constraints_and_rates(
    view: NetworkView,
    asked: list[tuple[int, int, str, int]],
    links: set[int],
    nodes: set[int],
) -> None:
    bare = view.changed(
        replace(link, ab=replace(link.ab, reserved=0), ba=replace(link.ba, reserved=0)) for link in view.links
    )
    promised, kept = take_on(
        bare, *(Demand(f"d{number}", f"n{a}", f"n{b}", name, rate) for number, (a, b, name, rate) in enumerate(asked))
    )
    leases = promised.leases
    gone = frozenset(f"n{number}" for number in nodes if number < len(bare.nodes))
    failure = Failure(gone, frozenset(f"l{number}" for number in links if number < len(bare.links)))
    after = failed(bare, failure)
    outcomes = list(judge(bare, after, promised, kept, 0.0))
    assert promised.leases == leases
    moved = {outcome.kept.demand.id for outcome in outcomes}
    hit = {
        one.demand.id for one in kept for path in one.paths if failure.links & set(path.links) or gone & set(path.nodes)
    }
    assert moved == hit
    total = Reservations(lease for lease in leases if lease.demand not in moved)
    for outcome in outcomes:
        asked_for = outcome.kept.demand
        constraints = CLASSES[asked_for.service_class].constraints(0, asked_for.constraints)
        for path in outcome.paths:
            assert not gone & set(path.nodes)
            assert not failure.links & set(path.links)
            assert (path.nodes[0], path.nodes[-1]) == (asked_for.source, asked_for.target)
            broken = [found for arc in path.arcs if (found := obstacle(after, arc, constraints)) is not None]
            assert set(broken) <= {"the pool is below the floor of the class"}
        if outcome.fate in (Fate.PROTECTED, Fate.REROUTED):
            rate = CLASSES[asked_for.service_class].link_rate(asked_for.rate)
            hops = tuple(
                dict.fromkeys(hop for path in outcome.paths for hop in zip(path.links, path.nodes[:-1], strict=True))
            )
            for link, sender in hops:
                one = after.link(link)
                spare = (one.ab if sender == one.a else one.ba).rate - total.reserved((link, sender))
                assert spare >= rate
            if rate:
                answer = next(lease for lease in leases if lease.demand == asked_for.id)
                total = Reservations([*total.leases, replace(answer, hops=hops, rate=rate)])
        assert (outcome.fate in (Fate.LOST, Fate.WEAKENED)) == (outcome.refusal is not None)
        assert bool(outcome.paths) == (outcome.fate is not Fate.LOST)
