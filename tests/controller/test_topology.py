"""What both ends of each link tell is compared with the plan; a lie, or silence, only lowers what is believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.belief import BOUND, Kind
from controller.facts import LinkFacts, NodeReport, PoolFacts, Received
from controller.planned import MalformedPlan, PlannedLink, PlannedNetwork, PlannedNode
from controller.reporters import LOOK, STRAYS
from controller.rhythm import SILENCE
from controller.topology import Discovery, LinkFinding, LinkState, discover
from controller.view import Direction, Link

SUITES = frozenset({"otp", "aes-256-gcm"})
PLAN = PlannedNetwork(
    tuple(PlannedNode(f"ckms-{number}", jurisdiction="DE") for number in (8, 9, 16)),
    (
        PlannedLink("8-9", "ckms-8", "ckms-9", rate=10_000, capacity=8_000_000, suites=SUITES, km=51.0),
        PlannedLink("8-16", "ckms-8", "ckms-16", rate=2_000, capacity=8_000_000, suites=SUITES, km=30.0),
    ),
)
POOL = PoolFacts(available=500_000, capacity=1_000_000, reserve=4_096)
END = LinkFacts(
    id="8-9",
    neighbour="",
    up=True,
    quantum=True,
    suite="otp",
    suites=SUITES,
    rate=9_000,
    qber=0.02,
    latency_us=700,
    outgoing=POOL,
    incoming=POOL,
)


def report(node: str, at: float, *ends: LinkFacts, **more: Any) -> NodeReport:
    return NodeReport(
        node, at, **({"service_id": node} | more), links={end.neighbour: Received(end, at) for end in ends}
    )


def reports(at: float, a: LinkFacts | None = END, b: LinkFacts | None = END) -> dict[str, NodeReport]:
    """Link 8-16 is sound; the ends of link 8-9 say this of it."""
    short = replace(END, id="8-16", rate=2_000)
    first = [replace(a, neighbour="ckms-9")] if a else []
    second = [replace(b, neighbour="ckms-8")] if b else []
    told = [
        report("ckms-8", at, *first, replace(short, neighbour="ckms-16")),
        report("ckms-9", at, *second),
        report("ckms-16", at, replace(short, neighbour="ckms-8")),
    ]
    return {one.node: one for one in told}


def kinds(found: Discovery) -> dict[str, set[Kind]]:
    told: dict[str, set[Kind]] = {}
    for one in found.disagreements:
        told.setdefault(one.subject, set()).add(one.kind)
    return told


def test_a_network_as_planned_has_no_disagreement_and_a_view_with_all_of_it() -> None:
    found = discover(PLAN, reports(0), 0, quarantined={"ckms-16"})
    assert found.disagreements == ()
    assert {link: finding.state for link, finding in found.links.items()} == dict.fromkeys(("8-9", "8-16"), "found")
    pool = Direction(rate=9_000, pool=8 * (500_000 - 4_096), capacity=8_000_000)
    link = found.view.link("8-9")
    assert link == Link(
        "8-9",
        "ckms-8",
        "ckms-9",
        True,
        True,
        SUITES,
        km=51.0,
        latency_s=350e-6,
        stream=9_000,
        ab=pool,
        ba=pool,
    )
    assert [node.quarantined for node in found.view.nodes] == [False, False, True]
    assert {node.jurisdiction for node in found.view.nodes} == {"DE"}
    assert found.links["8-9"].belief.qber == 0.02


CASES: list[tuple[LinkFacts | None, LinkFacts | None, LinkState, Kind, bool]] = [
    (None, None, LinkState.MISSING, Kind.MISSING, False),
    (END, None, LinkState.ONE_SIDED, Kind.ONE_SIDED, False),
    (None, END, LinkState.ONE_SIDED, Kind.ONE_SIDED, False),
    (END, replace(END, id="9-8"), LinkState.DISAGREEING, Kind.ID, False),
    (END, replace(END, up=False), LinkState.DISAGREEING, Kind.UP, False),
    (replace(END, enabled=False), END, LinkState.DISAGREEING, Kind.ENABLED, False),
    (END, replace(END, suite="aes-256-gcm"), LinkState.DISAGREEING, Kind.SUITE, True),
    (replace(END, suite="ml-kem"), replace(END, suite="ml-kem"), LinkState.DISAGREEING, Kind.SUITE, True),
    (END, replace(END, quantum=False), LinkState.DISAGREEING, Kind.QUANTUM, True),
    (END, replace(END, rate=4_000), LinkState.DISAGREEING, Kind.RATE, True),
    (END, replace(END, rate=-1), LinkState.DISAGREEING, Kind.NONSENSE, True),
    (replace(END, qber=1.2), END, LinkState.DISAGREEING, Kind.NONSENSE, True),
    (END, replace(END, latency_us=nan), LinkState.DISAGREEING, Kind.NONSENSE, True),
    (END, replace(END, outgoing=replace(POOL, available=1e18)), LinkState.DISAGREEING, Kind.ABSURD, True),
]


@pytest.mark.parametrize(("a", "b", "state", "kind", "up"), CASES)
def test_what_is_not_as_planned_is_told_and_other_links_are_not_touched(
    a: LinkFacts | None, b: LinkFacts | None, state: LinkState, kind: Kind, up: bool
) -> None:
    found = discover(PLAN, reports(0, a, b), 0)
    assert found.links["8-9"].state == state
    assert kinds(found) == {"8-9": {kind}}
    assert found.view.link("8-9").up is up
    assert found.view.link("8-16").up


@pytest.mark.parametrize("node", ["a", "b"])
@pytest.mark.parametrize("figure", [nan, -inf, -1.0])
@pytest.mark.parametrize("name", ["rate", "available", "capacity", "reserve"])
def test_of_a_figure_that_cannot_be_nothing_is_believed(name: str, figure: float, node: str) -> None:
    """Not even what the other end says of it."""
    if name == "rate":
        liar = replace(END, rate=figure)
    else:
        pool = replace(POOL, **{name: figure})
        liar = replace(END, outgoing=pool, incoming=pool)
    found = discover(PLAN, reports(0, **{"a": END, "b": END, node: liar}), 0)
    assert kinds(found) == {"8-9": {Kind.NONSENSE}}
    link = found.view.link("8-9")
    assert [one.rate == 0 for one in (link.ab, link.ba)] == [name == "rate"] * 2
    assert [one.pool == 0 for one in (link.ab, link.ba)] == [name != "rate"] * 2


def test_an_infinite_figure_is_worth_what_the_other_end_says() -> None:
    pool = PoolFacts(inf, inf, 0)
    liar = replace(END, rate=inf, outgoing=pool, incoming=pool)
    found = discover(PLAN, reports(0, liar, END), 0)
    assert found.view == discover(PLAN, reports(0), 0).view
    assert kinds(found) == {"8-9": {Kind.ABSURD}}


def test_a_disagreement_says_who_says_what() -> None:
    (told,) = discover(PLAN, reports(0, END, replace(END, suite="aes-256-gcm")), 0).disagreements
    assert told.said == (("ckms-8", "otp"), ("ckms-9", "aes-256-gcm"), ("plan", "aes-256-gcm otp"))


def test_rates_that_differ_less_than_twofold_do_not_disagree_and_the_less_is_believed() -> None:
    found = discover(PLAN, reports(0, END, replace(END, rate=4_600)), 0)
    assert found.disagreements == ()
    assert found.view.link("8-9").ab.rate == 4_600


@pytest.mark.parametrize(("age", "up"), [(0.0, True), (SILENCE, True), (SILENCE + 0.01, False)])
def test_a_silent_node_is_not_a_fine_node(age: float, up: bool) -> None:
    told = reports(100)
    told["ckms-9"] = report("ckms-9", 100 - age, replace(END, neighbour="ckms-8"))
    found = discover(PLAN, told, 100)
    assert found.view.link("8-9").up is up
    assert found.links["8-9"].state == (LinkState.FOUND if up else LinkState.UNKNOWN)
    assert kinds(found) == ({} if up else {"ckms-9": {Kind.SILENT}})
    assert found.view.link("8-16").up


def test_a_node_that_talks_but_not_of_a_link_makes_the_link_unknown() -> None:
    told = reports(100)
    told["ckms-9"] = replace(told["ckms-9"], links={"ckms-8": Received(replace(END, neighbour="ckms-8"), 90)})
    assert discover(PLAN, told, 100).links["8-9"].state == LinkState.UNKNOWN


def test_how_long_facts_hold_is_for_each_end_to_say() -> None:
    """Nodes of a large network are asked more seldom."""
    told = {node: replace(one, fresh=20.0) for node, one in reports(100).items()}
    assert discover(PLAN, told, 120).view.link("8-9").up
    assert not discover(PLAN, told, 120.1).view.link("8-9").up
    told["ckms-9"] = replace(told["ckms-9"], fresh=SILENCE)
    found = discover(PLAN, told, 110)
    assert kinds(found) == {"ckms-9": {Kind.SILENT}}
    assert not found.view.link("8-9").up
    assert found.view.link("8-16").up


def test_a_node_that_never_spoke_makes_its_links_unknown() -> None:
    told = reports(0)
    del told["ckms-8"]
    found = discover(PLAN, told, 0)
    assert {finding.state for finding in found.links.values()} == {LinkState.UNKNOWN}
    assert kinds(found) == {"ckms-8": {Kind.SILENT}}


def test_a_node_by_a_false_name_is_not_believed() -> None:
    told = reports(0)
    told["ckms-9"] = replace(told["ckms-9"], service_id="ckms-8")
    found = discover(PLAN, told, 0)
    assert kinds(found) == {"ckms-9": {Kind.IMPOSTOR}}
    assert not found.view.link("8-9").up


def test_what_no_plan_knows_is_told_and_in_no_view() -> None:
    told = reports(0)
    moved, stray = replace(END, id="8-9", neighbour="ckms-16"), replace(END, id="9-77", neighbour="ckms-77")
    told["ckms-9"] = report("ckms-9", 0, replace(END, neighbour="ckms-8"), moved, stray)
    told["ckms-99"] = report("ckms-99", 0)
    found = discover(PLAN, told, 0)
    assert kinds(found) == {"8-9": {Kind.NEIGHBOUR}, "9-77": {Kind.UNPLANNED}, "ckms-99": {Kind.UNPLANNED}}
    assert [node.id for node in found.view.nodes] == [node.id for node in PLAN.nodes]
    assert len(found.view.links) == 2
    assert "9-77" not in kinds(discover(PLAN, told, SILENCE + 1)), "nobody says so any more"


def test_a_node_that_tells_of_a_thousand_links_is_told_of_in_a_few_words() -> None:
    told = reports(0)
    strays = [replace(END, neighbour=f"ckms-x{number}", id=f"x-{number}") for number in range(1_000)]
    told["ckms-9"] = report("ckms-9", 0, replace(END, neighbour="ckms-8"), *strays)
    found = discover(PLAN, told, 0)
    assert len(found.disagreements) == STRAYS + 1
    assert kinds(found)["ckms-9"] == {Kind.UNPLANNED}


def test_a_node_whose_words_cannot_be_read_is_told_of() -> None:
    told = reports(0)
    told["ckms-9"] = replace(told["ckms-9"], unreadable=True)
    assert kinds(discover(PLAN, told, 0)) == {"ckms-9": {Kind.NONSENSE}}


def test_a_view_that_did_not_change_is_the_same_and_a_new_plan_numbers_anew() -> None:
    first = discover(PLAN, reports(0), 0)
    second = discover(PLAN, reports(1), 1, first)
    assert second.view is first.view
    third = discover(PLAN, reports(2, replace(END, up=False)), 2, second)
    assert third.view.version == first.view.version + 1
    assert third.view.topology is first.view.topology
    assert third.view.links[1] is first.view.links[1]
    smaller = replace(PLAN, nodes=PLAN.nodes[:2], links=PLAN.links[:1])
    fourth = discover(smaller, reports(3), 3, third)
    assert fourth.view.version > third.view.version
    assert [link.id for link in fourth.view.links] == ["8-9"]


def test_a_pool_falls_at_once_and_rises_slowly_and_rates_settle() -> None:
    def end(available: float, rate: float) -> LinkFacts:
        pool = PoolFacts(available, 1_000_000)
        return replace(END, outgoing=pool, incoming=pool, rate=rate)

    full, empty = end(1_000_000, 10_000), end(0, 0)
    found = discover(PLAN, reports(0, full, full), 0)
    found = discover(PLAN, reports(1, empty, empty), 1, found)
    fallen = found.view.link("8-9").ab
    assert fallen.pool == 0
    assert 8_900 < fallen.rate < 9_100, "a tenth of the time constant"
    for second in range(2, 60):
        found = discover(PLAN, reports(second, empty, empty), second, found)
    found = discover(PLAN, reports(60, full, full), 60, found)
    risen = found.view.link("8-9").ab
    assert 0 < risen.pool < 8_000_000 / 4
    assert 900 < risen.rate < 1_000
    for second in range(61, 180):
        found = discover(PLAN, reports(second, full, full), second, found)
    settled = found.view.link("8-9").ab
    assert settled.rate >= 9_999
    assert settled.pool >= 7_999_999


def test_nothing_is_gained_by_falling_silent_and_coming_back() -> None:
    poor, rich = replace(END, rate=100), replace(END, rate=10_000)
    stays = returns = discover(PLAN, reports(0, poor, poor), 0)
    for second in range(1, 5):
        stays = discover(PLAN, reports(second, rich, rich), second, stays)
        returns = discover(PLAN, reports(second, rich, None if second < 4 else rich), second, returns)
    assert 0 < returns.view.link("8-9").ab.rate < stays.view.link("8-9").ab.rate < 10_000


ANY_NUMBER = st.one_of(
    st.sampled_from([nan, inf, -inf, -1.0]), st.floats(), st.floats(0, 2e7), st.integers(-1, 2**64 - 1), st.just(0)
)
POOLS = st.builds(PoolFacts, available=ANY_NUMBER, capacity=ANY_NUMBER, reserve=ANY_NUMBER)
LIES = st.builds(
    LinkFacts,
    id=st.sampled_from(["8-9", "8-9", "8-9", "else"]),
    neighbour=st.just(""),
    up=st.booleans(),
    enabled=st.booleans(),
    quantum=st.booleans(),
    suite=st.sampled_from(["", "otp", "ml-kem"]),
    suites=st.frozensets(st.sampled_from(["otp", "aes-256-gcm", "ml-kem", "hybrid", "none"])),
    rate=ANY_NUMBER,
    qber=st.one_of(st.none(), ANY_NUMBER),
    latency_us=st.one_of(st.none(), ANY_NUMBER),
    outgoing=st.one_of(st.none(), POOLS),
    incoming=st.one_of(st.none(), POOLS),
)
HONEST_POOLS = st.builds(
    PoolFacts, available=st.integers(0, 1_000_000), capacity=st.just(1_000_000), reserve=st.integers(0, 10_000)
)
HONEST = st.builds(
    lambda **some: replace(END, **some),
    up=st.booleans(),
    suites=st.frozensets(st.sampled_from(sorted(SUITES))),
    rate=st.integers(0, 25_000),
    latency_us=st.one_of(st.none(), st.integers(1, 5_000)),
    outgoing=HONEST_POOLS,
    incoming=HONEST_POOLS,
)


def mirrored(end: LinkFacts) -> LinkFacts:
    """What the other end says when both say the same."""
    return replace(end, outgoing=end.incoming, incoming=end.outgoing)


def no_more(link: Link, than: Link) -> None:
    assert link.up <= than.up
    assert link.quantum <= than.quantum
    assert link.suites <= than.suites
    for one, other in ((link.ab, than.ab), (link.ba, than.ba)):
        assert 0 <= one.rate <= other.rate
        assert 0 <= one.pool <= other.pool
        assert 0 <= one.capacity <= other.capacity


@given(st.data(), st.lists(st.tuples(HONEST, LIES, st.floats(0, 4)), min_size=1, max_size=8), st.booleans())
def test_whatever_one_end_says_only_lowers_what_is_believed(
    data: st.DataObject, steps: list[tuple[LinkFacts, LinkFacts, float]], liar_is_a: bool
) -> None:
    now = 0.0
    honest: Discovery | None = None
    lied: Discovery | None = None
    for number, (truth, lie, pause) in enumerate(steps):
        now += pause
        said = None if number and data.draw(st.booleans(), label="denies") else lie
        honest = discover(PLAN, reports(now, truth, mirrored(truth)), now, honest)
        both = (said, mirrored(truth)) if liar_is_a else (truth, said)
        lied = discover(PLAN, reports(now, *both), now, lied)
        no_more(lied.view.link("8-9"), honest.view.link("8-9"))
        assert lied.view.link("8-9").latency_s >= PLAN.links[0].km / 204_000
        assert lied.view.link("8-16") == honest.view.link("8-16"), "a liar reaches no other link"


@given(st.lists(st.tuples(LIES, LIES, st.floats(0, 20)), max_size=6))
def test_not_even_both_ends_are_believed_beyond_the_bounds_of_the_plan(
    steps: list[tuple[LinkFacts, LinkFacts, float]],
) -> None:
    now, found = 0.0, None
    plan = PLAN.links[0]
    for a, b, pause in steps:
        now += pause
        found = discover(PLAN, reports(now, a, b), now, found)
        link = found.view.link("8-9")
        for direction in (link.ab, link.ba):
            assert 0 <= direction.rate <= BOUND * plan.rate
            assert 0 <= direction.pool <= direction.capacity <= BOUND * plan.capacity
        assert link.suites <= plan.suites
        assert link.latency_s <= 5.0


RING = PlannedNetwork(
    tuple(PlannedNode(f"n{number}") for number in range(4)),
    tuple(
        PlannedLink(f"n{a}-n{b}", f"n{a}", f"n{b}", rate=10_000, capacity=8_000_000, suites=SUITES)
        for a, b in ((0, 1), (1, 2), (2, 3), (3, 0), (0, 2))
    ),
)
NAMES = st.sampled_from([node.id for node in RING.nodes])
Telling = tuple[str, str, dict[str, LinkFacts | None]]
GOOD = st.sampled_from(
    [
        replace(END, rate=rate, outgoing=pool, incoming=pool)
        for rate in (0, 9_000, 5_000)
        for pool in (POOL, replace(POOL, available=90_000))
    ]
)
ENDS = st.one_of(GOOD, GOOD, GOOD, st.none(), LIES)


@st.composite
def telling(draw: st.DrawFn) -> Telling:
    """A node, what it calls itself, and what it says of links to some others: facts, or that there is none."""
    node = draw(st.one_of(NAMES, NAMES, NAMES, st.just("n9")))
    neighbours = [other for link in RING.links if node in (link.a, link.b) for other in (link.a, link.b)]
    others = draw(st.one_of(st.just({*neighbours}), st.sets(st.one_of(NAMES, st.just("n7")), max_size=2))) - {node}
    facts: dict[str, LinkFacts | None] = {}
    for other in sorted(others):
        told = draw(ENDS)
        between = next((link.id for link in RING.links if {link.a, link.b} == {node, other}), "none")
        facts[other] = told and replace(told, neighbour=other, id=between if told.id == "8-9" else told.id)
    return node, draw(st.sampled_from(["", node, node, node, "n1"])), facts


STEPS = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([0.0, 0.02, 1.0, SILENCE, SILENCE + 0.1]), st.floats(0, 7)),
        st.lists(telling(), max_size=6),
        st.one_of(st.just(set[str]()), st.sets(NAMES, max_size=1)),
        st.one_of(st.just(set[str]()), st.sets(NAMES, max_size=1)),
    ),
    min_size=3,
    max_size=9,
)


@given(STEPS)
@settings(max_examples=150)
def test_what_is_found_of_what_changed_is_what_is_found_of_everything(
    steps: list[tuple[float, list[Telling], set[str], set[str]]],
) -> None:
    """Whatever is told, and by whom; only the means of links of which nobody tells anything new may be a second old."""
    now, told = 100.0, dict[str, NodeReport]()
    whole: Discovery | None = None
    found: Discovery | None = None
    for pause, messages, gone, quarantined in steps:
        now += pause
        changed = {node for node, _, _ in messages} | gone
        for node, called, facts in messages:
            links = dict(told[node].links) if node in told else {}
            links |= {other: Received(one, now) for other, one in facts.items() if one is not None}
            links = {other: one for other, one in links.items() if facts.get(other, one) is not None}
            told[node] = NodeReport(node, now, called, links=links)
        for node in gone:
            told.pop(node, None)
        scratch = discover(RING, told, now, quarantined=quarantined)
        whole = discover(RING, dict(told), now, whole, quarantined=quarantined)
        found = discover(RING, dict(told), now, found, quarantined=quarantined, changed=changed)
        for other in (scratch, whole):
            assert set(found.nodes) == set(other.nodes)
            assert found.view.nodes == other.view.nodes
            assert list(found.links) == list(other.links)
            for name, finding in found.links.items():
                known = other.links[name]
                assert finding.state == known.state
                assert finding.disagreements == known.disagreements
                assert finding.belief == known.belief
        for name, finding in found.links.items():
            known, link, other_link = whole.links[name], found.view.link(name), whole.view.link(name)
            assert now - finding.at < LOOK or finding.until > now
            assert means(finding, now) == pytest.approx(means(known, now), rel=1e-6, abs=1e-3)
            if finding.at == now:
                assert figures(link) == pytest.approx(figures(other_link), rel=1e-6, abs=1)
            assert figureless(link) == figureless(other_link)


def means(finding: LinkFinding, now: float) -> list[float]:
    """Its means as they would be if it were looked at now."""
    flows, idle = (finding.belief.ab, finding.belief.ba), now - finding.at
    late = [mean.towards(flow, idle) for mean, flow in zip(finding.means or (), flows, strict=False)]
    return [figure for mean in late for figure in (mean.rate, mean.pool)]


def figures(link: Link) -> list[int]:
    return [figure for one in (link.ab, link.ba) for figure in (one.rate, one.pool, one.capacity)]


def figureless(link: Link) -> Link:
    return replace(link, ab=Direction(), ba=Direction(), stream=None)


@given(st.permutations(sorted(reports(0))))
def test_the_order_of_reports_does_not_matter(order: list[str]) -> None:
    told: Mapping[str, NodeReport] = reports(0, END, replace(END, rate=inf))
    shuffled = {node: told[node] for node in order}
    assert discover(PLAN, shuffled, 0).view == discover(PLAN, told, 0).view


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nodes": (*PLAN.nodes, PLAN.nodes[0])}, "node is there twice"),
        ({"links": (*PLAN.links, PLAN.links[0])}, "link is there twice"),
        ({"links": (*PLAN.links, PlannedLink("x", "ckms-9", "ckms-8"))}, "joined twice"),
        ({"links": (PlannedLink("x", "ckms-9", "ckms-9"),)}, "link x does not join"),
        ({"links": (PlannedLink("x", "ckms-9", "ckms-1"),)}, "link x does not join"),
        ({"links": (PlannedLink("x", "ckms-9", "ckms-8", km=nan),)}, "link x: rate"),
    ],
)
def test_a_plan_that_is_no_network_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(MalformedPlan, match=says):
        replace(PLAN, **change)
