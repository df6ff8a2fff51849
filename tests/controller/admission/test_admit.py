"""What is admitted, and what a refusal says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.admission.admit import Admission, Demand, Reason, Refusal, admit
from controller.admission.classes import CLASSES
from controller.admission.reservations import Reservations
from controller.paths.constraints import Constraints
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
    assert ends["gold"] == Refusal(Reason.NO_BACKUP)
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
    assert refused(view, reservations, replace(asked, rate=2_000)) == Refusal(Reason.RATE, None)
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
    assert refused(apart, none, Demand("q", "a", "c", "bronze", 1)) == Refusal(Reason.NO_PATH)


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
