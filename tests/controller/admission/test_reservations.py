"""Reservations never exceed rates, whatever happens in whatever order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controller.admission.classes import CLASSES
from controller.admission.reservations import Hop, Lease, Overbooked, Reservations, hops_of
from controller.paths.compute import NoPath, best_path, path_with_backup
from controller.paths.constraints import Constraints
from controller.view import NetworkView
from tests.controller.networks import RING, line

NODES = ("a", "b", "c", "d", "e", "f")


def lease(identity: str, *hops: Hop, demand: str = "", rate: int = 100, expires: float = 10.0) -> Lease:
    """A lease of class gold from the first hop's origin."""
    return Lease(identity, demand or identity, "gold", rate, hops, frozenset((hops[0][1],)), expires)


class Operations(RuleBasedStateMachine):
    """Demands come, move, are renewed, end, and die with nodes, while rates change; a plain list is the oracle."""

    def __init__(self) -> None:
        super().__init__()
        whole = line(*RING, ("b", "e"))
        shared = [replace(whole.link(name), stream=1_100) for name in ("b-c", "b-e", "e-f")]
        self.view: NetworkView = whole.changed(shared)
        self.reservations = Reservations()
        self.oracle: dict[str, Lease] = {}
        self.now = 0.0
        self.serial = 0

    def forget(self, ended: tuple[Lease, ...]) -> None:
        """What the reservations say has ended."""
        for one in ended:
            del self.oracle[one.id]

    @rule(
        ends=st.permutations(NODES).map(lambda names: names[:2]),
        demand=st.sampled_from("pqrs"),
        service_class=st.sampled_from(sorted(CLASSES)),
        rate=st.integers(0, 1_100),
        lasts=st.integers(1, 20),
        careful=st.booleans(),
    )
    def reserve(self, ends: list[str], demand: str, service_class: str, rate: int, lasts: int, careful: bool) -> None:
        """As path computation advises, or without looking at what is reserved."""
        self.serial += 1
        view = self.reservations.onto(self.view, without=demand) if careful else self.view
        try:
            pair = path_with_backup(view, ends[0], ends[1], Constraints(rate=rate if careful else 0))
        except NoPath:
            assert careful
            return
        paths = [pair.primary] + ([pair.backup] if pair.backup else [])
        new = Lease(str(self.serial), demand, service_class, rate, hops_of(paths), frozenset(ends), self.now + lasts)
        moves = any(one.demand == demand for one in self.oracle.values())
        try:
            self.reservations.reserve(self.view, new)
        except Overbooked:
            assert not careful or moves
            return
        self.oracle[new.id] = new

    @rule(number=st.integers(1, 20), lasts=st.integers(-5, 20))
    def renew(self, number: int, lasts: int) -> None:
        """A lease may have ended before."""
        known = self.oracle.get(str(number))
        assert self.reservations.renew(str(number), self.now + lasts) == (known is not None)
        if known is not None:
            self.oracle[known.id] = replace(known, expires=max(known.expires, self.now + lasts))

    @rule(passed=st.integers(0, 10))
    def expire(self, passed: int) -> None:
        """Time passes."""
        self.now += passed
        self.forget(self.reservations.expire(self.now))
        assert all(one.expires > self.now for one in self.oracle.values())

    @rule(demand=st.sampled_from("pqrs"))
    def release(self, demand: str) -> None:
        """A demand ends."""
        self.forget(self.reservations.release_demand(demand))
        assert all(one.demand != demand for one in self.oracle.values())

    @rule(node=st.sampled_from(NODES))
    def node_dies(self, node: str) -> None:
        """What begins or ends there comes back."""
        self.forget(self.reservations.release_node(node))
        assert all(node not in one.ends for one in self.oracle.values())

    @rule(number=st.integers(0, 6), rate=st.integers(0, 1_200), outwards=st.booleans(), stream=st.booleans())
    def rate_changes(self, number: int, rate: int, outwards: bool, stream: bool) -> None:
        """Maybe to less than is reserved."""
        link = self.view.links[number]
        if stream and link.stream is not None:
            link = replace(link, stream=rate)
        elif outwards:
            link = replace(link, ab=replace(link.ab, rate=rate))
        else:
            link = replace(link, ba=replace(link.ba, rate=rate))
        self.view = self.view.changed([link])
        self.forget(self.reservations.shed(self.view))

    @invariant()
    def never_exceeds(self) -> None:
        """Of each direction, what demands hold is what is counted, and no more than the rate."""
        assert {one.id: one for one in self.reservations.leases} == self.oracle
        stamped = self.reservations.onto(self.view)
        for link in stamped.links:
            for origin, direction in ((link.a, link.ab), (link.b, link.ba)):
                held: dict[str, int] = {}
                for one in self.oracle.values():
                    if (link.id, origin) in one.hops:
                        held[one.demand] = max(one.rate, held.get(one.demand, 0))
                assert direction.reserved == self.reservations.reserved((link.id, origin)) == sum(held.values())
                assert direction.reserved <= direction.rate
            assert link.stream is None or link.ab.reserved + link.ba.reserved <= link.stream


TestOperations = Operations.TestCase
TestOperations.settings = settings(deadline=None, max_examples=25, stateful_step_count=25)


def test_a_demand_that_moves_is_counted_once_where_it_stays() -> None:
    view = line(*RING)
    reservations = Reservations()
    reservations.reserve(view, lease("1", ("a-b", "a"), ("b-c", "b"), demand="p", rate=700))
    reservations.reserve(view, lease("2", ("a-b", "a"), demand="p", rate=800))
    assert reservations.reserved(("a-b", "a")) == 800
    assert reservations.reserved(("a-b", "b")) == 0
    assert reservations.links_of("p") == ("a-b", "b-c")
    with pytest.raises(Overbooked) as over:
        reservations.reserve(view, lease("3", ("b-c", "b"), ("a-b", "a"), demand="q", rate=201))
    assert over.value.hops == (("b-c", "b"), ("a-b", "a")) or over.value.hops == (("a-b", "a"),)
    reservations.release("2")
    assert reservations.reserved(("a-b", "a")) == 700
    assert reservations.reserved(("a-b", "a"), without="p") == 0


def test_what_does_not_fit_changes_nothing() -> None:
    view = line(*RING)
    reservations = Reservations()
    with pytest.raises(Overbooked):
        reservations.reserve(view, lease("1", ("a-b", "a"), ("z", "b"), rate=1))
    reservations.reserve(view, lease("1", ("a-b", "a")))
    with pytest.raises(ValueError):
        reservations.reserve(view, lease("1", ("b-c", "b")))
    assert [one.id for one in reservations.leases] == ["1"]
    assert Reservations(reservations.leases).onto(view) == reservations.onto(view)


def test_directions_that_share_a_stream_share_what_it_gives() -> None:
    view = line(("a", "b"))
    view = view.changed([replace(view.link("a-b"), stream=1_000)])
    reservations = Reservations()
    reservations.reserve(view, lease("1", ("a-b", "a"), rate=700, expires=5.0))
    with pytest.raises(Overbooked):
        reservations.reserve(view, lease("2", ("a-b", "b"), rate=301))
    assert reservations.free_at(view, ("a-b", "b"), 301, 0.0) == 5.0
    assert reservations.free_at(view, ("a-b", "b"), 300, 0.0) == 0.0
    stamped = reservations.onto(view).link("a-b")
    assert stamped.spare(stamped.ab) == stamped.spare(stamped.ba) == 300
    reservations.reserve(view, lease("2", ("a-b", "b"), rate=300))
    slower = replace(view.link("a-b"), stream=999)
    assert [one.id for one in reservations.shed(view.changed([slower]))] == ["2"]


def test_the_lowest_class_gives_way_first_and_then_the_latest() -> None:
    view = line(*RING)
    reservations = Reservations()
    for number, service_class in enumerate(("gold", "split", "gold", "split")):
        reservations.reserve(view, replace(lease(str(number), ("a-b", "a")), service_class=service_class))
    slower = replace(view.link("a-b"), ab=replace(view.link("a-b").ab, rate=150))
    assert [one.id for one in reservations.shed(view.changed([slower]))] == ["3", "1", "2"]


def test_when_a_hop_is_free_again() -> None:
    view = line(*RING)
    reservations = Reservations()
    for number, expires in enumerate((30.0, 10.0, 20.0)):
        reservations.reserve(view, lease(str(number), ("a-b", "a"), rate=300, expires=expires))
    hop = ("a-b", "a")
    assert reservations.free_at(view, hop, 100, 5.0) == 5.0
    assert reservations.free_at(view, hop, 101, 5.0) == 10.0
    assert reservations.free_at(view, hop, 700, 5.0) == 20.0
    assert reservations.free_at(view, hop, 1_000, 5.0) == 30.0
    assert reservations.free_at(view, hop, 1_001, 5.0) is None
    assert reservations.free_at(view, hop, 400, 5.0, without="1") == 5.0


def test_paths_that_share_hops_reserve_them_once() -> None:
    view = line(*RING)
    path = best_path(view, "a", "c")
    assert hops_of([path, path]) == (("a-b", "a"), ("b-c", "b"))
