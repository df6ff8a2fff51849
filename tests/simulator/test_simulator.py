"""A fixed share of the simulator's seeds: no rule is ever broken."""

from __future__ import annotations

import pytest

from tests.simulator.run import simulate
from tests.simulator.settings import Settings, drawn

SEEDS = range(1, 9)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_rules_hold(seed: int) -> None:
    settings = drawn(seed)
    settings.seconds = 10.0
    report = simulate(seed, settings)
    assert not report.findings
    assert report.delivered


def test_a_network_without_faults_serves_everybody() -> None:
    report = simulate(1, Settings(seconds=5.0))
    assert not report.findings
    assert report.fetched
    assert not report.faults
