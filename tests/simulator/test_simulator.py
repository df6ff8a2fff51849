"""A fixed share of the simulator's seeds: no rule is ever broken."""

from __future__ import annotations

import pytest

from tests.simulator.run import simulate
from tests.simulator.settings import Settings, drawn

SEEDS = range(1, 6)

STATIC = (4,)
"""Those without controllers."""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_rules_hold(seed: int) -> None:
    settings = drawn(seed, controllers=seed not in STATIC)
    settings.seconds = 10.0
    report = simulate(seed, settings)
    assert not report.findings
    assert report.delivered
    assert bool(report.steered) is (seed not in STATIC)


def test_a_network_without_faults_serves_everybody() -> None:
    report = simulate(1, Settings(seconds=5.0))
    assert not report.findings
    assert report.fetched
    assert not report.faults


def test_a_controller_alone_gives_keys_their_paths() -> None:
    """Where the configuration has none."""
    report = simulate(1, Settings(seconds=3.0, controllers=1, static=False))
    assert not report.findings
    assert report.fetched
    assert not report.faults


def test_controllers_that_lost_their_database_go_on_beyond_what_nodes_have_heard() -> None:
    meddling = {"controller crashed": 1.0, "controllers' database lost": 0.3}
    report = simulate(2, Settings(seconds=10.0, controllers=1, static=False, meddling=meddling))
    assert not report.findings
    assert report.faults["controllers' database lost"]
    assert report.alarms["database-behind-nodes"]


def test_a_seed_gives_the_same_run_again() -> None:
    settings = Settings(
        seconds=3.0, controllers=2, crash=0.5, messages={"lost": 0.1}, gnmi={"set lost": 0.1}, statement_thief=2.0
    )
    first, second = simulate(3, settings), simulate(3, settings)
    assert (first.steps, first.messages, first.steered) == (second.steps, second.messages, second.steered)
    assert first.faults == second.faults
