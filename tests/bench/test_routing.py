"""The comparison of routing policies: what it simulates, computes and draws."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from bench import routing_model
from bench.generated import TABLE_3
from bench.generated import network as generated
from bench.path_1000 import timed
from bench.routing import Estimate, estimates, ratio_interval, table
from bench.routing_model import CHOICES, SPLIT, STATIC, Run, network, simulate
from bench.routing_plot import picture
from controller.paths.compute import path_with_backup, paths_for_shares
from controller.paths.policies import Policy
from controller.paths.search import UNREACHED, hops_to

RUN = Run("nobel-germany", 0.1, STATIC, 1)


@pytest.fixture(autouse=True)
def _few_demands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing_model, "WARM_UP", 100)
    monkeypatch.setattr(routing_model, "DEMANDS", 150)


def test_networks_are_those_of_sndlib_with_measured_rates() -> None:
    view = network("germany50", 1)
    assert (len(view.nodes), len(view.links)) == (50, 88)
    assert {link.stream for link in view.links} <= set(TABLE_3)
    assert all(link.ab.rate == link.ba.rate == link.stream for link in view.links)
    assert network("germany50", 1) == view
    assert network("germany50", 2) != view


def test_a_run_can_be_repeated_and_policies_differ() -> None:
    static, residual = simulate(RUN), simulate(replace(RUN, choice=str(Policy.RESIDUAL)))
    assert simulate(RUN) == static
    assert residual.blocked < static.blocked
    assert residual.cost > static.cost > 1.125


def test_nothing_is_blocked_where_nearly_nothing_is_asked_for() -> None:
    still = replace(RUN, load=1e-4)
    assert [simulate(replace(still, choice=choice)).blocked for choice in CHOICES] == [0.0] * len(CHOICES)
    assert simulate(replace(still, choice=SPLIT)).cost > 1.6 * simulate(still).cost


def test_estimates_tables_and_pictures_hold_every_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing_model, "DEMANDS", 20)
    runs = [
        Run("nobel-germany", load, choice, seed)
        for load in (0.05, 0.2)
        for choice in (STATIC, str(Policy.HOPS))
        for seed in range(2)
    ]
    found = estimates({run: simulate(run) for run in runs})
    assert len(found) == 4
    text = table(found)
    assert text.count("nobel-germany") == 4
    drawn = picture(
        {key: (one.mean, one.half) for key, (one, _) in found.items()}, ("nobel-germany",), (0.05, 0.2), CHOICES
    )
    root = ET.fromstring(drawn)
    assert sum(element.tag.endswith("circle") for element in root.iter()) == 4


def test_the_interval_is_students() -> None:
    estimate = Estimate.of([float(number) for number in range(10)])
    assert estimate.mean == 4.5
    assert estimate.half == pytest.approx(2.262 * 3.02765 / 10**0.5, rel=1e-4)


def test_the_interval_of_a_ratio_holds_it() -> None:
    part, whole = [0.0, 0.1, 0.2, 0.0], [0.5, 0.4, 0.6, 0.5]
    low, high = ratio_interval(part, whole)
    assert 0 <= low < 0.15 < high < 1 / 3
    assert ratio_interval(whole, whole) == (1.0, 1.0)


def test_path_computation_is_timed_on_changing_figures() -> None:
    figure = timed("path_60", 60, 12, 1e6)
    assert figure.detail["nodes"] == 60
    assert figure.detail["milliseconds"]["samples"] == figure.detail["view_update_of_a_tenth_ms"]["samples"] == 12
    assert 0 < figure.value == figure.detail["milliseconds"]["p99"]
    assert figure.detail["hops_of_the_primary"]["samples"] + figure.detail["without_path"] == 12


@pytest.mark.parametrize("size", [10, 100, 400])
def test_generated_networks_have_their_size_and_two_ways_between_cities(size: int) -> None:
    view = generated(size)
    assert len(view.nodes) == size
    cities = [node.id for node in view.nodes if node.access]
    assert max(hops_to(view.topology, [1] * (2 * len(view.links)), 0)) < UNREACHED
    assert all(not path_with_backup(view, cities[0], city).shared for city in cities[1:20])
    assert len(paths_for_shares(view, cities[0], cities[-1], 2)) == 2
