"""What is admitted, and what a refusal says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.admission.admit import Admission, Demand, admit, possible
from controller.admission.classes import CLASSES
from controller.admission.price import undivided
from controller.admission.refusal import Reason, Refusal
from controller.admission.reservations import Reservations
from controller.paths.constraints import UNCONSTRAINED, Constraints
from controller.view import Link, NetworkView
from tests.controller.networks import RING, line, views


def change(view: NetworkView, name: str, **figures: int) -> NetworkView:
    """Change both directions of a link."""
    link = view.link(name)
    return view.changed([replace(link, ab=replace(link.ab, **figures), ba=replace(link.ba, **figures))])


def admitted(view: NetworkView, reservations: Reservations, demand: Demand, expires: float = 10.0) -> Admission:
    """Admit a demand and take its reservation up."""
    found = admit(reservations.onto(view), reservations, demand, 0.0)
    assert isinstance(found, Admission)
    reservations.reserve(view, found.lease(demand.id, expires))
    return found


def refused(view: NetworkView, reservations: Reservations, demand: Demand, now: float = 0.0) -> Refusal:
    """See a demand refused."""
    found = admit(reservations.onto(view), reservations, demand, now)
    assert isinstance(found, Refusal)
    return found


def test_gold_reserves_on_the_primary_and_on_its_backup() -> None:
    view, reservations = line(*RING), Reservations()
    found = admitted(view, reservations, Demand("p", "a", "c", "gold", 400))
    assert [path.nodes for path in found.paths] == [("a", "b", "c"), ("a", "f", "e", "d", "c")]
    assert not found.shared
    assert reservations.reserved(("a-b", "a")) == reservations.reserved(("e-f", "f")) == 450
    assert reservations.reserved(("a-b", "b")) == 0
    assert found.limit.rate * 8 * CLASSES["gold"].expansion <= found.link_rate
    assert found.price == pytest.approx(2 * 1.125)


def test_split_reserves_on_each_share_and_tells_the_price() -> None:
    view, reservations = line(*RING), Reservations()
    found = admitted(view, reservations, Demand("p", "a", "c", "split", 400))
    assert {path.nodes for path in found.paths} == {("a", "b", "c"), ("a", "f", "e", "d", "c")}
    assert found.price == pytest.approx(6 * 1.125)
    assert undivided(view, reservations, found.demand) == pytest.approx(2 * 1.125)
    assert undivided(view, reservations, Demand("r", "a", "c", "split", 10**9)) == 0.0
    assert refused(view, reservations, Demand("q", "a", "c", "split", 1, shares=3)) == Refusal(
        Reason.TOO_FEW_PATHS, None, 2
    )


def test_classes_take_the_links_that_they_may() -> None:
    view = line(*RING)
    a_b, b_c = view.link("a-b"), view.link("b-c")
    view = view.changed(
        [replace(a_b, quantum=False, suites=frozenset({"ml-kem"})), replace(b_c, suites=frozenset({"aes-256-gcm"}))]
    )
    ends = {
        name: admit(view, Reservations(), Demand("p", "a", "c", name, 10), 0.0) for name in ("gold", "silver", "bronze")
    }
    assert ends["gold"] == Refusal(
        Reason.NO_BACKUP, barriers=("links without QKD", "links without the protection required")
    )
    silver, bronze = ends["silver"], ends["bronze"]
    assert isinstance(silver, Admission)
    assert isinstance(bronze, Admission)
    assert silver.paths[0].nodes == ("a", "f", "e", "d", "c")
    assert bronze.paths[0].nodes == ("a", "b", "c")
    assert silver.link_rate == bronze.link_rate == 0


def test_what_a_demand_asks_beyond_its_class_is_never_less_than_its_class() -> None:
    gold = CLASSES["gold"].constraints(100, Constraints(suites=frozenset({"aes-256-gcm"}), rate=1))
    assert (gold.suites, gold.rate, gold.quantum_only) == (frozenset(), 113, True)
    view = line(*RING)
    elsewhere = Constraints(excluded_nodes=frozenset({"b"}))
    found = admit(view, Reservations(), Demand("p", "a", "c", "silver", 10, constraints=elsewhere), 0.0)
    assert isinstance(found, Admission)
    assert [path.nodes for path in found.paths] == [("a", "f", "e", "d", "c")]


def test_a_refusal_for_rate_says_when_it_may_be_free() -> None:
    view, reservations = line(*RING), Reservations()
    admitted(view, reservations, Demand("p", "a", "c", "gold", 800), expires=30.0)
    asked = Demand("q", "a", "c", "gold", 400)
    assert refused(view, reservations, asked, now=12.0) == Refusal(Reason.RATE, 18.0)
    assert isinstance(admit(reservations.onto(view), reservations, replace(asked, id="p"), 0.0), Admission)
    reservations.expire(30.0)
    admitted(view, reservations, asked)


def test_a_refusal_for_pools_says_when_they_are_filled() -> None:
    view = change(change(line(*RING), "a-b", pool=500), "f-a", pool=0)
    assert refused(view, Reservations(), Demand("q", "a", "c", "silver", 1)) == Refusal(Reason.POOL, 0.5)
    assert isinstance(admit(view, Reservations(), Demand("q", "a", "c", "gold", 1), 0.0), Admission)
    still = change(change(view, "a-b", rate=0), "f-a", rate=0)
    assert refused(still, Reservations(), Demand("q", "a", "c", "silver", 1)) == Refusal(Reason.POOL, None)


def test_refusals_that_no_time_mends() -> None:
    view = line(("a", "b"), ("b", "c"))
    none = Reservations()
    assert refused(view, none, Demand("q", "a", "c", "gold", 1)).reason is Reason.NO_BACKUP
    assert refused(view, none, Demand("q", "a", "c", "split", 1)) == Refusal(Reason.TOO_FEW_PATHS, None, 1)
    assert refused(view, none, Demand("q", "a", "z", "bronze", 1)).reason is Reason.UNKNOWN_NODE
    assert refused(view, none, Demand("q", "a", "a", "bronze", 1)).reason is Reason.UNKNOWN_NODE
    assert refused(view, none, Demand("q", "a", "c", "tin", 1)).reason is Reason.UNKNOWN_CLASS
    carrier = view.changed(nodes=[replace(view.node("c"), access=False)])
    assert refused(carrier, none, Demand("q", "a", "c", "bronze", 1)).reason is Reason.UNKNOWN_NODE
    apart = view.changed([replace(view.link("b-c"), up=False)])
    assert refused(apart, none, Demand("q", "a", "c", "bronze", 1)) == Refusal(
        Reason.NO_PATH, barriers=("links that are down",)
    )


def test_a_rate_that_no_links_make_is_not_promised_to_others() -> None:
    view, reservations = change(line(*RING), "e-f", rate=300), Reservations()
    found = refused(view, reservations, Demand("q", "a", "c", "gold", 400))
    assert found == Refusal(Reason.SLOW, least_rate=266)
    assert found.why == "the links make less than that rate: 266 bit/s of payload at most"
    assert possible(view, reservations, Demand("q", "a", "c", "gold", 400)) == 266
    assert isinstance(admit(view, reservations, Demand("q", "a", "c", "gold", 266), 0.0), Admission)
    assert refused(view, reservations, Demand("q", "a", "c", "gold", 267)).reason is Reason.SLOW
    admitted(view, reservations, Demand("p", "a", "c", "gold", 200), expires=30.0)
    asked = Demand("q", "a", "c", "gold", 100)
    assert refused(view, reservations, asked) == Refusal(Reason.RATE, 30.0)
    assert possible(reservations.onto(view), reservations, asked) == 66
    own = replace(asked, id="p")
    assert possible(reservations.onto(view), reservations, own) == 266, "what it has itself counts as free"


def test_a_shared_stream_makes_no_more_than_it_does() -> None:
    slow = [replace(link, stream=300) for link in line(*RING).links]
    view = line(*RING).changed(slow)
    assert refused(view, Reservations(), Demand("q", "a", "c", "gold", 400)) == Refusal(Reason.SLOW, least_rate=266)


def test_a_refusal_names_what_bars_the_paths() -> None:
    view = line(*RING)
    down = replace(view.link("a-b"), up=False)
    plain = replace(view.link("e-f"), quantum=False)

    def why(view: NetworkView, name: str, constraints: Constraints = UNCONSTRAINED) -> str:
        return refused(view, Reservations(), Demand("q", "a", "c", name, 1, constraints=constraints)).why

    assert why(view.changed([down]), "gold") == "there is no second path: every other has links that are down"
    both = view.changed([down, plain])
    assert why(both, "silver") == (
        "no path keeps to the constraints: every one has links that are down or links without QKD"
    )
    assert why(both.changed(nodes=[replace(view.node("f"), quarantined=True)]), "silver") == (
        "no path leads there: every one has links that are down"
    ), "one thing that opens a path says more than three that do not"
    short = Constraints(maximum_hops=1)
    assert why(view, "bronze", short) == "no path keeps to the constraints: every one has too many hops"
    assert why(line(("a", "b"), ("b", "c")), "gold") == "there is no second path"
    apart = line(("a", "b"), ("c", "d"))
    assert why(apart, "bronze") == "no path leads there"


@settings(deadline=None, max_examples=60)
@given(views(), st.sampled_from(("gold", "split")), st.sampled_from((4, 40, 400)))
def test_what_would_be_possible_is_admitted_and_more_is_not(view: NetworkView, name: str, rate: int) -> None:
    reservations = Reservations()
    view = reservations.onto(view)
    demand = Demand("p", "n0", "n1", name, rate)
    found = admit(view, reservations, demand, 0.0)
    if isinstance(found, Refusal) and found.reason is Reason.UNKNOWN_NODE:
        return
    most = possible(view, reservations, demand)
    assert (most >= rate) == isinstance(found, Admission)
    if most:
        assert isinstance(admit(view, reservations, replace(demand, rate=most), 0.0), Admission)
    assert isinstance(admit(view, reservations, replace(demand, rate=most + 1), 0.0), Refusal)


@settings(deadline=None, max_examples=60)
@given(views(), st.sampled_from(sorted(CLASSES)), st.sampled_from((0, 4, 40, 400)))
def test_what_is_admitted_fits_and_what_is_refused_is_served_when_the_time_has_come(
    view: NetworkView, name: str, rate: int
) -> None:
    reservations = Reservations()
    view = reservations.onto(view)
    demand = Demand("p", "n0", "n1", name, rate)
    found = admit(view, reservations, demand, 0.0)
    if isinstance(found, Admission):
        reservations.reserve(view, found.lease("p", 1.0))
        return
    if found.earliest_s is None:
        return
    later = view.changed([_after(link, found.earliest_s, math.ceil) for link in view.links])
    assert isinstance(admit(later, reservations, demand, found.earliest_s), Admission)
    sooner = view.changed([_after(link, 0.98 * found.earliest_s, math.floor) for link in view.links])
    assert isinstance(admit(sooner, reservations, demand, 0.0), Refusal)


def _after(link: Link, seconds: float, whole: Callable[[float], int]) -> Link:
    """A link whose pools filled for so long."""
    ab, ba = (
        replace(one, pool=min(one.capacity, one.pool + whole(max(0, link.spare(one)) * seconds)))
        for one in (link.ab, link.ba)
    )
    return replace(link, ab=ab, ba=ba)
