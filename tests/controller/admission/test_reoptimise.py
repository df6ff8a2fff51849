"""Moving to better paths without flapping."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.admission.admit import Admission, Demand, admit
from controller.admission.refusal import Reason
from controller.admission.reoptimise import (
    Hysteresis,
    Standing,
    Verdict,
    consider,
    is_surely_best,
    least_together,
    open_weights,
    reconsider,
)
from controller.admission.reservations import Reservations
from controller.paths.compute import Path
from controller.paths.search import distances_to
from controller.view import NetworkView
from tests.controller.networks import RING, line, views

USUAL = Hysteresis()
DEMAND = Demand("p", "a", "d", "silver", 100)


def drained(view: NetworkView, name: str, pool: int) -> NetworkView:
    """Set a link's pools."""
    link = view.link(name)
    return view.changed([replace(link, ab=replace(link.ab, pool=pool), ba=replace(link.ba, pool=pool))])


def settled(view: NetworkView, demand: Demand = DEMAND) -> tuple[Path, ...]:
    """The paths that a demand is given."""
    found = admit(view, Reservations(), demand, 0.0)
    assert isinstance(found, Admission)
    return found.paths


@settings(deadline=None, max_examples=300)
@given(views(7, 14), views(7, 14), st.sampled_from(("gold", "silver", "bronze", "split")), st.sampled_from((1, 30)))
def test_what_the_bound_passes_over_has_nothing_to_gain(
    view: NetworkView, other: NetworkView, name: str, rate: int
) -> None:
    demand, reservations = Demand("p", "n0", "n1", name, rate), Reservations()
    found = admit(view, reservations, demand, 0.0)
    if not isinstance(found, Admission) or found.shared or len(found.paths) < 2:
        return
    reservations.reserve(view, found.lease("p", 10.0))
    figures = zip(view.links, other.links, strict=False)
    view = reservations.onto(view.changed([replace(one, ab=new.ab, ba=new.ba, up=new.up) for one, new in figures]))
    weights = open_weights(view)
    tree, _ = distances_to(view.topology, weights, view.topology.node_number["n1"])
    least = least_together(view, weights, tree, "n0", len(found.paths))
    if is_surely_best(view, reservations, demand, found.paths, least):
        advice = reconsider(view, reservations, demand, found.paths, Standing(0.0, 0.0), 1e6)
        assert (advice.verdict, advice.standing.better_since) == (Verdict.STAY, None)


def test_a_cut_moves_it_at_once_and_the_repair_once() -> None:
    whole = line(("a", "b"), ("b", "d"), ("a", "e"), ("e", "f"), ("f", "d"), ("e", "g"), ("g", "d"))
    paths = settled(whole)
    assert paths[0].nodes == ("a", "b", "d")
    cut = whole.changed([replace(whole.link("b-d"), up=False)])
    advice = reconsider(cut, Reservations(), DEMAND, paths, Standing(0.0), 1.0)
    assert advice.verdict is Verdict.FLEE
    assert advice.admission is not None
    paths, standing = advice.admission.paths, advice.standing
    assert all("b" not in path.nodes for path in paths)
    moved = []
    for now in range(2, 400):
        advice = reconsider(whole, Reservations(), DEMAND, paths, standing, float(now))
        standing = advice.standing
        if advice.admission is not None:
            moved.append(now)
            paths = advice.admission.paths
    assert moved == [61]
    assert paths[0].nodes == ("a", "b", "d")


def test_one_without_a_backup_gets_it_soon_and_less_soon_each_time_it_goes_again() -> None:
    whole = line(("a", "b"), ("b", "d"), ("a", "e"), ("e", "f"), ("f", "d"))
    bare = whole.changed([replace(whole.link("e-f"), up=False)])
    paths, standing, waited = settled(bare), Standing(0.0), []
    assert len(paths) == 1
    now = 0.0
    for _ in range(4):
        since = now
        while len(paths) == 1:
            now += 1.0
            advice = reconsider(whole, Reservations(), DEMAND, paths, standing, now)
            standing = advice.standing
            if advice.admission is not None:
                paths = advice.admission.paths
        waited.append(now - since)
        advice = reconsider(bare, Reservations(), DEMAND, paths, standing, now)
        assert advice.verdict is Verdict.FLEE
        assert advice.admission is not None
        paths, standing = advice.admission.paths, advice.standing
    assert waited == [6.0, 11.0, 20.0, 20.0]


def test_a_quarantined_node_is_left_though_pools_are_low() -> None:
    view = line(("a", "b"), ("b", "d"), ("a", "e"), ("e", "f"), ("f", "d"))
    paths = settled(view)
    assert paths[0].nodes == ("a", "b", "d")
    low = drained(drained(view, "a-b", 0), "b-d", 0)
    quarantined = low.changed(nodes=[replace(low.node("b"), quarantined=True)])
    advice = reconsider(quarantined, Reservations(), DEMAND, paths, Standing(0.0), 1.0)
    assert advice.verdict is Verdict.FLEE


def test_nowhere_to_flee_to_is_said() -> None:
    view = line(("a", "d"))
    paths = settled(view)
    advice = reconsider(
        view.changed([replace(view.links[0], up=False)]), Reservations(), DEMAND, paths, Standing(0.0), 1.0
    )
    assert advice.verdict is Verdict.STAY
    assert advice.refusal is not None
    assert advice.refusal.reason is Reason.NO_PATH


def test_its_own_reservation_drives_nobody_away() -> None:
    view, reservations = line(*RING), Reservations()
    demand = Demand("p", "a", "c", "gold", 800)
    found = admit(view, reservations, demand, 0.0)
    assert isinstance(found, Admission)
    reservations.reserve(view, found.lease("p", 1e9))
    standing = Standing(0.0)
    for now in range(0, 1_000, 5):
        advice = reconsider(reservations.onto(view), reservations, demand, found.paths, standing, float(now))
        assert advice.verdict is Verdict.STAY
        assert advice.admission is None
        standing = advice.standing


def test_a_quarantined_node_is_left_at_once() -> None:
    view = line(("a", "b"), ("b", "d"), ("a", "e"), ("e", "f"), ("f", "d"))
    paths = settled(view)
    guarded = view.changed(nodes=[replace(view.node("b"), quarantined=True)])
    advice = reconsider(guarded, Reservations(), DEMAND, paths, Standing(0.0), 0.1)
    assert advice.verdict is Verdict.FLEE


@settings(deadline=None, max_examples=100)
@given(st.lists(st.booleans(), max_size=400), st.sampled_from((1.0, 3.0, 7.0)))
def test_measurements_that_come_and_go_sooner_than_it_is_steady_move_nothing(looks: list[bool], step: float) -> None:
    standing, now, in_a_row = Standing(-1e6), 0.0, 0.0
    for better in looks:
        verdict, standing = consider(standing, better, now, USUAL)
        in_a_row = in_a_row + step if better else 0.0
        if in_a_row <= USUAL.steady_s:
            assert verdict is Verdict.STAY
        if verdict is Verdict.MOVE:
            in_a_row = 0.0
        now += step


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=300))
def test_moves_without_need_grow_rarer(looks: list[tuple[bool, int]]) -> None:
    standing, now = Standing(0.0), 0.0
    moves: list[float] = []
    for better, passed in looks:
        now += passed
        verdict, standing = consider(standing, better, now, USUAL)
        if verdict is Verdict.MOVE:
            moves.append(now)
    gaps = [later - sooner for sooner, later in zip([0.0, *moves], moves, strict=False)]
    assert all(gap >= USUAL.dwell_s for gap in gaps)
    dwell = USUAL.dwell_s
    for before, gap in zip([1e9, *gaps], gaps, strict=False):
        assert gap >= dwell or before >= dwell
        dwell = min(2 * dwell, USUAL.dwell_s * 2**USUAL.doublings) if gap < 4 * dwell else 2 * USUAL.dwell_s


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 9), st.integers(600, 10_000))
def test_two_paths_that_take_turns_are_not_chased(period: int, high: int) -> None:
    """Pools of two ways go up and down against each other, as those do that everybody moves to and fro between."""
    view = line(*RING)
    paths, standing, moves = settled(view), Standing(-1e6), 0
    assert len(paths) == 2
    lone = replace(DEMAND, service_class="bronze")
    for now in range(60):
        turn = now // period % 2
        seen = drained(drained(view, "b-c", high if turn else 10_000), "e-f", 10_000 if turn else high)
        advice = reconsider(seen, Reservations(), lone, paths, standing, float(now))
        standing = advice.standing
        moves += advice.admission is not None
    assert moves == 0
